"""Whose process is at the other end of a loopback connection: the kernel knows."""

import socket
from collections.abc import Iterable
from pathlib import Path

TABLE = Path("/proc/net/tcp")
Address = tuple[str, int]


def is_child(master: int, theirs: Address, ours: Address) -> bool:
    """Whether the connection from `theirs` to `ours` (IPv4, of this machine) is a child's of `master`."""
    inode = _inode(theirs, ours)
    return bool(inode) and any(_holds(pid, f"socket:[{inode}]") for pid in _children(master))


def _inode(theirs: Address, ours: Address) -> str:
    """Of their end; empty when there is no such connection, or that end is nobody's any more."""
    begin = [_as_listed(theirs), _as_listed(ours)]
    try:
        lines = TABLE.read_text(encoding="ascii").splitlines()[1:]
    except OSError:
        return ""
    found = next((fields[9] for line in lines if (fields := line.split())[1:3] == begin), "")
    return "" if found == "0" else found


def _as_listed(address: Address) -> str:
    """`0100007F:1F90`: as the machine, little-endian, prints it."""
    return f"{socket.inet_aton(address[0])[::-1].hex().upper()}:{address[1]:04X}"


def _children(master: int) -> Iterable[int]:
    try:
        return tuple(map(int, Path(f"/proc/{master}/task/{master}/children").read_text(encoding="ascii").split()))
    except (OSError, ValueError):
        return ()


def _holds(pid: int, link: str) -> bool:
    try:
        return any(_link(handle) == link for handle in Path(f"/proc/{pid}/fd").iterdir())
    except OSError:
        return False


def _link(handle: Path) -> str:
    try:
        return str(handle.readlink())
    except OSError:
        return ""
