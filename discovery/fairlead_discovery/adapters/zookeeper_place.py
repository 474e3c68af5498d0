"""What a `zk://…` URL says: where, below which chroot, who we are, and whom we let read.

`zk://h1:2181,h2:2181/chroot?auth=/etc/fairlead/zk.auth&readers=none&tls=/etc/fairlead/ca.pem&cert=…&key=…`
"""

import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qsl

from fairlead_daemon.errors import BadSettings

OPTIONS: Mapping[str, str] = {
    "auth": "file with `user:password`, mode 0600",
    "readers": "world or none",
    "tls": "file with the authorities' certificates",
    "cert": "file with our certificate, for servers that ask for one",
    "key": "file with its key, mode 0600",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """`root` is the chroot, "" or `/a/b`. Credentials stand in files only: a URL is shown, logged, and in argv."""

    hosts: str
    root: str = ""
    auth: str = ""
    readers: str = "world"
    tls: str = ""
    cert: str = ""
    key: str = ""

    @property
    def name(self) -> str:
        return f"zk://{self.hosts}{self.root}"


def parse_place(place: str) -> Place:
    """What follows `zk://`. Raises BadSettings naming what is wrong."""
    where, _, query = place.partition("?")
    hosts, slash, rest = where.partition("/")
    root = f"/{rest.strip('/')}" if slash and rest.strip("/") else ""
    for host in hosts.split(","):
        name, _, port = host.rpartition(":")
        if "@" in name:
            raise BadSettings("registry: zk://…: credentials stand in a file, as zk://…?auth=FILE")
        if not name or not port.isdigit() or int(port) > 65535:
            raise BadSettings(f"registry: zk://{where}: {host!r} is not host:port")
    if any(segment in {"", ".", ".."} for segment in root.split("/")[1:]):
        raise BadSettings(f"registry: zk://{where}: {root!r} is no path")
    return Place(hosts=hosts, root=root, **_options(where, query))


def _options(where: str, query: str) -> dict[str, str]:
    try:
        options = dict(parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query)))
    except ValueError as error:
        raise BadSettings(f"registry: zk://{where}: {error}") from error
    for key, value in options.items():
        if key not in OPTIONS:
            known = ", ".join(f"{name} ({meaning})" for name, meaning in OPTIONS.items())
            raise BadSettings(f"registry: zk://{where}: {key}: unknown, expected one of {known}")
        if not value or (key == "readers" and value not in {"world", "none"}):
            raise BadSettings(f"registry: zk://{where}: {key}: {value!r}, expected {OPTIONS[key]}")
    if ("cert" in options) != ("key" in options) or ("cert" in options and "tls" not in options):
        raise BadSettings(f"registry: zk://{where}: cert, key and tls go together")
    if options.get("readers") == "none" and "auth" not in options:
        raise BadSettings(f"registry: zk://{where}: readers=none needs auth, or we could not read either")
    return options


def credentials(path: str) -> str:
    """`user:password`. Raises BadSettings when others may read the file, or it holds something else."""
    text = secret(path).strip()
    user, colon, password = text.partition(":")
    if not colon or not user or not password or "\n" in text:
        raise BadSettings(f"registry: auth: {path}: expected one line user:password")
    return text


def secret(path: str) -> str:
    """A file's content, for its owner only. Raises BadSettings."""
    try:
        with Path(path).open(encoding="utf-8") as stream:
            if stat.S_IMODE(os.fstat(stream.fileno()).st_mode) & 0o077:
                raise BadSettings(f"registry: {path}: others may read it; chmod 600 it")
            return stream.read()
    except (OSError, UnicodeDecodeError) as error:
        raise BadSettings(f"registry: {path}: {error}") from error
