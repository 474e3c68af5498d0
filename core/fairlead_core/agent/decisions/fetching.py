"""From a URI of a task to the commands that bring its file into the sandbox."""

from urllib.parse import unquote, urlsplit

from fairlead_core.agent.decisions.tasks import Uri
from fairlead_daemon.errors import Refused

TARS = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
ZIPS = (".zip",)
Argv = tuple[str, ...]


def steps(uri: Uri) -> list[Argv]:
    """Commands to run in the sandbox as the task's user. Raises Refused for what is not a file of this machine."""
    path = local_path(uri.value)
    name = uri.output_file or path.rpartition("/")[2]
    if "/" in name or name in {"", ".", ".."}:
        raise Refused(f"uri {uri.value!r}: {name!r} is no file name")
    copy: Argv = ("cp", "-L", "--", path, f"./{name}")
    if uri.executable:
        return [copy, ("chmod", "755", f"./{name}")]
    if uri.extract and name.endswith(TARS):
        return [copy, ("tar", "-xf", f"./{name}")]
    if uri.extract and name.endswith(ZIPS):
        return [copy, ("unzip", "-oq", f"./{name}")]
    return [copy]


def local_path(value: str) -> str:
    """`/a/b` and `file:///a/b` are files of this machine. Raises Refused."""
    parts = urlsplit(value)
    if parts.scheme not in {"", "file"}:
        raise Refused(f"uri {value!r}: only files of the machine (file:///… or /…) can be fetched by this agent")
    path = value if parts.scheme == "" else unquote(parts.path)
    if parts.netloc not in {"", "localhost"} or not path.startswith("/") or "\0" in path:
        raise Refused(f"uri {value!r}: an absolute path is needed")
    return path
