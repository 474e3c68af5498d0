"""Whose process is at the other end of a loopback connection: the kernel knows."""

import socket
from pathlib import Path

_FAMILIES = (("/proc/net/tcp", socket.AF_INET), ("/proc/net/tcp6", socket.AF_INET6))


def owner_of(address: tuple[str, int]) -> int | None:
    """The user id of the socket bound to `address` on this machine; None when it is not of this machine."""
    for table, family in _FAMILIES:
        wanted = _as_listed(address, family)
        for line in _lines(Path(table)):
            fields = line.split()
            if wanted and fields[1] == wanted:
                return int(fields[7])
    return None


def _lines(table: Path) -> list[str]:
    try:
        return table.read_text(encoding="ascii").splitlines()[1:]
    except OSError:
        return []


def _as_listed(address: tuple[str, int], family: int) -> str:
    """`0100007F:1F90`: each 32-bit word as the machine, little-endian, prints it."""
    host, port = address
    try:
        packed = socket.inet_pton(family, host)
    except OSError:
        return ""
    words = [packed[i : i + 4][::-1].hex().upper() for i in range(0, len(packed), 4)]
    return f"{''.join(words)}:{port:04X}"
