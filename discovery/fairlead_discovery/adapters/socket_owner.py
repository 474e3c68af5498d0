"""Whose socket is at the other end of a connection on this machine: the kernel's word, by its own table of sockets.

Asked while our end is open: nobody else can have the same four numbers then.
"""

import os
import socket
import struct
from pathlib import Path

_SOCK_DIAG = 4  # NETLINK_SOCK_DIAG
_BY_FAMILY = 20  # SOCK_DIAG_BY_FAMILY
_REQUEST = 1
_HEADER = struct.Struct("=IHHII")
_ASK = struct.Struct("=BBBBI")
_SOCKET_ID = struct.Struct("!HH16s16s")
_ANYWHERE = struct.pack("=IQ", 0, 2**64 - 1)  # any device, no cookie
_OWNER_AT = _HEADER.size + 4 + 48 + 12
_OWNER = struct.Struct("=II")
_ALL_STATES = 0xFFFFFFFF
_WHOLE = "         0          0 4294967295"
Address = tuple[str, int]


def owner(theirs: Address, ours: Address) -> int | None:
    """Uid of whoever holds the socket `theirs` that is connected to `ours` (IPv4). None: nobody does any more."""
    ask = _ASK.pack(socket.AF_INET, socket.IPPROTO_TCP, 0, 0, _ALL_STATES)
    names = _SOCKET_ID.pack(theirs[1], ours[1], socket.inet_aton(theirs[0]), socket.inet_aton(ours[0])) + _ANYWHERE
    size = _HEADER.size + len(ask) + len(names)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC, _SOCK_DIAG) as link:
        link.settimeout(1)
        link.send(_HEADER.pack(size, _BY_FAMILY, _REQUEST, 1, 0) + ask + names)
        answer = link.recv(8192)
    if len(answer) < _OWNER_AT + _OWNER.size or _HEADER.unpack_from(answer)[1] != _BY_FAMILY:
        return None
    uid, inode = _OWNER.unpack_from(answer, _OWNER_AT)
    return uid if inode else None  # closed: what is left of it belongs to nobody, which looks like root


def ambiguous() -> bool:
    """Whether our uid is also that of strangers: in a user namespace all unknown users look like the overflow one."""
    overflow = int(Path("/proc/sys/kernel/overflowuid").read_text(encoding="ascii"))
    return os.geteuid() == overflow and _WHOLE not in Path("/proc/self/uid_map").read_text(encoding="ascii")
