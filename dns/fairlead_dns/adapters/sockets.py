"""Sockets for our addresses: UDP and TCP, shared between processes, one a local address so that replies come from it."""

import errno
import socket
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

from fairlead_daemon.errors import BadSettings

SO_RCVBUFFORCE = 33
RECEIVE_BUFFER_BYTES = 4 * 1024 * 1024  # a burst of queries waits here while a large change is applied
PORT_TRIES = 16
REASONS = {
    errno.EADDRINUSE: "another process holds the port",
    errno.EACCES: "ports under 1024 need root or CAP_NET_BIND_SERVICE",
    errno.EADDRNOTAVAIL: "this machine has no such address",
}


@dataclass(frozen=True, slots=True)
class Place:
    """Where to listen. Port 0: one the kernel finds free for both transports."""

    ip: str
    port: int

    def __str__(self) -> str:
        return f"[{self.ip}]:{self.port}" if ":" in self.ip else f"{self.ip}:{self.port}"


@dataclass(frozen=True, slots=True, eq=False)
class Listener:
    """The sockets of one address, bound, not yet served. `key` and `text`: the setting it stands in, and as what."""

    key: str
    text: str
    place: Place
    stream: socket.socket
    udp: socket.socket | None = None

    def close(self) -> None:
        self.stream.close()
        if self.udp is not None:
            self.udp.close()

    def again(self) -> "Listener":
        """Another one on the same address: the kernel spreads what comes over all of them. Raises OSError."""
        stream = _socket(self.place, socket.SOCK_STREAM)
        try:
            udp = None if self.udp is None else _socket(self.place, socket.SOCK_DGRAM)
        except OSError:
            stream.close()
            raise
        return Listener(self.key, self.text, self.place, stream, udp)


def close_all(listeners: Iterable[Listener]) -> None:
    for each in listeners:
        each.close()


def parse_place(option: str, text: str) -> Place:
    """`127.0.0.1:53`, `[::1]:53`. Raises BadSettings naming the option."""
    host, _, port = text.rpartition(":")
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    try:
        ip = str(ip_address(bare)) if (":" in bare) == (bare != host) else ""
    except ValueError:
        ip = ""
    if not ip or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise BadSettings(f"{option}: {text!r} is no address, expected ip:port")
    return Place(ip, int(port))


def bind(option: str, text: str) -> list[Listener]:
    """UDP and TCP, for each local address that `text` means: 0.0.0.0 is every address there is now.

    Raises BadSettings naming port and option; then nothing stays bound.
    """
    return _bound(option, text, lambda place: _bind_pair(option, text, place))


def bind_streams(option: str, text: str) -> list[Listener]:
    """As `bind`, but for TCP alone."""

    def one(place: Place) -> Listener:
        made = _socket(place, socket.SOCK_STREAM)
        return Listener(option, text, Place(place.ip, made.getsockname()[1]), made)

    return _bound(option, text, one)


def _bound(option: str, text: str, one: Callable[[Place], Listener]) -> list[Listener]:
    place = parse_place(option, text)
    found: list[Listener] = []
    try:
        found.extend(one(each) for each in _explicit(place))
    except OSError as error:
        close_all(found)
        reason = REASONS.get(error.errno or 0, error.strerror)
        raise BadSettings(f"{option}: cannot listen on {place}: {reason}") from error
    if not found:
        raise BadSettings(f"{option}: cannot listen on {place}: this machine has no such address")
    return found


def _bind_pair(option: str, text: str, place: Place) -> Listener:
    for attempt in range(PORT_TRIES):
        udp = _socket(place, socket.SOCK_DGRAM)
        chosen = Place(place.ip, udp.getsockname()[1])
        try:
            return Listener(option, text, chosen, _socket(chosen, socket.SOCK_STREAM), udp)
        except OSError:
            udp.close()
            if place.port or attempt == PORT_TRIES - 1:
                raise
    raise AssertionError("unreachable")


def _socket(place: Place, kind: socket.SocketKind) -> socket.socket:
    family = socket.AF_INET6 if ":" in place.ip else socket.AF_INET
    made = socket.socket(family, kind)
    try:
        made.setblocking(False)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if kind == socket.SOCK_STREAM:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        else:
            _widen(made)
        made.bind((place.ip, place.port))
    except OSError:
        made.close()
        raise
    return made


def _widen(udp: socket.socket) -> None:
    try:
        udp.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, RECEIVE_BUFFER_BYTES)
    except OSError:  # not root: as much as the kernel gives
        with suppress(OSError):
            udp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)


def _explicit(place: Place) -> Iterator[Place]:
    """A wildcard socket would answer from whatever address the route prefers, which clients refuse."""
    if not ip_address(place.ip).is_unspecified:
        yield place
        return
    for ip in local_addresses(six=":" in place.ip):
        yield Place(ip, place.port)


def local_addresses(*, six: bool) -> list[str]:
    """Addresses of one family on this machine, loopback included, link-local ones left out."""
    found = _six() if six else _four()
    return sorted({ip for ip in found if not ip_address(ip).is_link_local})


def _four() -> Iterator[str]:
    """The kernel's own table of local addresses: a `/32 host LOCAL` line follows its address' line."""
    before = ""
    for line in _lines("/proc/net/fib_trie"):
        if "/32 host LOCAL" in line:
            yield before
        before = line.rpartition(" ")[2]


def _six() -> Iterator[str]:
    for line in _lines("/proc/net/if_inet6"):
        yield str(ip_address(bytes.fromhex(line.split()[0])))


def _lines(file: str) -> list[str]:
    try:
        return Path(file).read_text(encoding="ascii").splitlines()
    except OSError:
        return []
