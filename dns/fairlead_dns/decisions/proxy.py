"""The PROXY protocol, versions 1 and 2: a line or header in front of a connection or datagram that says who really asks."""

import struct
from dataclasses import dataclass
from ipaddress import ip_address

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
START_BYTES = 12
"""So many bytes are read first: a header of either version has at least as many."""
FIXED_BYTES = 16
LINE_BYTES = 107
MOST_BYTES = 2048  # of a version 2 header: addresses are at most 216, the rest is extensions nobody needs here
_ADDRESSES = {1: 4, 2: 16}
"""Version 2's address family -> bytes of an address."""


class BadProxyError(ValueError):
    """Not a PROXY header: the connection is closed, the datagram dropped."""


@dataclass(frozen=True, slots=True)
class Header:
    """`size`: bytes it takes. `client` and `local` are empty when the proxy speaks for itself (a health check)."""

    size: int
    client: str = ""
    local: str = ""


def wanted(data: bytes) -> int:
    """How many more bytes to read at least before `parse` can tell; never beyond the header. Raises BadProxyError."""
    if len(data) < START_BYTES:
        return START_BYTES - len(data)
    if data.startswith(SIGNATURE):
        return max(0, (FIXED_BYTES if len(data) < FIXED_BYTES else _size(data)) - len(data))
    if not data.startswith(b"PROXY ") or len(data) > LINE_BYTES:
        raise BadProxyError("no PROXY header")
    return 0 if data.endswith(b"\r\n") else 1


def parse(data: bytes) -> Header:
    """Of data that begins with a whole header. Raises BadProxyError."""
    return _second(data) if data.startswith(SIGNATURE) else _first(data)


def _size(data: bytes) -> int:
    size = FIXED_BYTES + (data[14] << 8 | data[15])
    if size > MOST_BYTES:
        raise BadProxyError(f"a PROXY header of {size} bytes")
    return size


def _second(data: bytes) -> Header:
    if len(data) < FIXED_BYTES or len(data) < _size(data):
        raise BadProxyError("PROXY header cut")
    size, command, family = _size(data), data[12], data[13] >> 4
    if command not in (0x20, 0x21):
        raise BadProxyError("unknown version or command")
    length = _ADDRESSES.get(family)
    if command == 0x20 or length is None:
        return Header(size)
    if size < FIXED_BYTES + 2 * length + 4:
        raise BadProxyError("PROXY addresses cut")
    client, local = struct.unpack_from(f"{length}s{length}s", data, FIXED_BYTES)
    return Header(size, str(ip_address(client)), str(ip_address(local)))


def _first(data: bytes) -> Header:
    end = data.find(b"\r\n", 0, LINE_BYTES)
    if end < 0 or not data.startswith(b"PROXY "):
        raise BadProxyError("no PROXY header")
    words = data[:end].split(b" ")
    if words[1] == b"UNKNOWN":
        return Header(end + 2)
    if words[1] not in (b"TCP4", b"TCP6") or len(words) != 6:
        raise BadProxyError("not a PROXY line")
    try:
        client, local = (ip_address(word.decode("ascii")) for word in words[2:4])
    except ValueError as error:
        raise BadProxyError("not a PROXY line: no address") from error
    return Header(end + 2, str(client), str(local))
