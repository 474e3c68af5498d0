"""Before anything starts: is every port free, can tasks' users reach the data directory?"""

import errno
import os
import pwd
import re
import socket
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from fairlead_console.decisions.ports import Need
from fairlead_console.up.record import command_words
from fairlead_daemon.errors import BadSettings
from fairlead_daemon.processes import neighbours, pids

LISTEN = "0A"
TASK_USER = "nobody"


def check_ports(needs: Iterable[Need], *, data_dir: Path) -> None:
    """Ports that a predecessor's own processes hold are fine: they are handed over.

    Raises BadSettings naming option, port and, when it can be seen, the holder.
    """
    for need in needs:
        if reason := _taken(need):
            holders = _holders(need)
            mine = set(neighbours(data_dir)) if holders else set()
            foreign = next((str(h) for h in holders if h.pid not in mine or not h.ours(data_dir)), "")
            if foreign or not holders:
                raise BadSettings(f"{need.option}: cannot listen on {need}: {reason}{foreign}")


def _taken(need: Need) -> str:
    """Why it cannot be bound, "" when it can."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM if need.udp else socket.SOCK_STREAM) as probe:
        if not need.udp:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # else old connections in TIME_WAIT count
        try:
            probe.bind((need.address, need.port))
        except OSError as error:
            return "in use" if error.errno == errno.EADDRINUSE else (error.strerror or str(error)).lower()
        except OverflowError:
            return "a port is between 0 and 65535"
    return ""


@dataclass(frozen=True, slots=True)
class Holder:
    """A process that has a port open."""

    pid: int
    words: Sequence[str]

    def ours(self, data_dir: Path) -> bool:
        """HAProxy and the daemons carry the data directory's path in their command line."""
        return any(f"{data_dir}/" in word for word in self.words)

    def __str__(self) -> str:
        return f" by pid {self.pid} ({Path(self.words[0]).name})"


def _holders(need: Need) -> list[Holder]:
    """Those we may see: several share a port by SO_REUSEPORT, other users' are hidden from all but root."""
    inodes = {f"socket:[{inode}]" for inode in _inodes(need)}
    return [Holder(pid, command_words(pid)) for pid in pids() if inodes.intersection(_descriptors(pid))]


def _inodes(need: Need) -> Iterator[str]:
    """Of sockets bound to the address or to all of them, from the kernel's tables (in hexadecimal, bytes reversed)."""
    mine = socket.inet_aton(need.address)[::-1].hex().upper()
    for table in ("udp", "udp6") if need.udp else ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text(encoding="ascii").splitlines()[1:]:
            fields = line.split()
            address, _, port = fields[1].rpartition(":")
            bound = address == mine or not address.strip("0")
            if bound and int(port, 16) == need.port and (need.udp or fields[3] == LISTEN):
                yield fields[9]


def _descriptors(pid: int) -> Iterator[str]:
    try:
        for entry in os.scandir(f"/proc/{pid}/fd"):
            yield str(Path(entry.path).readlink())
    except OSError:  # another user's, or it ended
        return


def check_reachable(data_dir: Path) -> None:
    """As root tasks run as someone else, who must get to their sandboxes. Raises BadSettings naming the folder."""
    user = os.environ.get("SUDO_USER", "")
    user = TASK_USER if user in {"", "root"} else user  # as the agent chooses
    try:
        entry = pwd.getpwnam(user)
    except KeyError:
        return  # the agent says what it thinks of it
    for folder in (data_dir, *data_dir.parents):
        if folder.exists() and not _may_enter(folder, entry):
            raise BadSettings(
                f"data_dir: {data_dir}: user {user}, as whom tasks run, cannot enter {folder}; "
                f"chmod o+x it, or choose another --data-dir"
            )


def _may_enter(folder: Path, user: pwd.struct_passwd) -> bool:
    status = folder.stat()
    if user.pw_uid in {0, status.st_uid}:
        return user.pw_uid == 0 or bool(status.st_mode & 0o100)
    if status.st_gid in os.getgrouplist(user.pw_name, user.pw_gid):
        return bool(status.st_mode & 0o010)
    return bool(status.st_mode & 0o001)


def absolute(data_dir: str) -> Path:
    """Where everything is kept; as root outside of anyone's home. Plain characters only: it stands in many files."""
    default = "/var/lib/fairlead" if os.geteuid() == 0 else ".fairlead"
    path = Path(data_dir or default).absolute()
    if not re.fullmatch(r"[\w./@:+-]+", str(path), re.ASCII):
        raise BadSettings(f"data_dir: {path}: only letters, digits and . / _ - @ : + please")
    return path
