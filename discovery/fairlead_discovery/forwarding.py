"""Callers that cannot do TLS: a port on localhost that leads to one service, with the certificate of whoever listens.

Only our own user's connections are taken: the port is open to the whole machine, our identity is not. What is said is
passed on as it is, over mTLS to a balancer's mesh port, which is told the service by the name in the TLS greeting.
"""

import asyncio
import os
import socket
import ssl
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fairlead_daemon.errors import BadSettings, FairleadError, Refused, Unavailable
from fairlead_daemon.logs import Log
from fairlead_discovery.adapters import socket_owner, x509
from fairlead_discovery.decisions import identity

CONNECT_S = 5.0
LOCALHOST = "127.0.0.1"
WAITING = 128
log = Log("mesh")


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """From a port of localhost to a service's port `index`, through the mesh port `mesh`."""

    port: int
    service: str
    mesh: tuple[str, int]
    index: int = 0


@dataclass(slots=True)
class Shown:
    """Our certificate, and whom we believe; read again when its file is another."""

    whole: Path
    roots: Path
    _stamp: tuple[int, int] = (0, 0)
    _context: ssl.SSLContext | None = None
    _domain: str = ""

    def context(self) -> tuple[ssl.SSLContext, str]:
        """And our trust domain. Raises Refused with the reason."""
        try:
            stamp = (self.whole.stat().st_mtime_ns, self.roots.stat().st_mtime_ns)
            if self._context is None or stamp != self._stamp:
                made = ssl.create_default_context(cafile=str(self.roots))
                made.check_hostname = False  # that it is a balancer is looked at below, which one does not matter
                made.minimum_version = ssl.TLSVersion.TLSv1_2
                made.load_cert_chain(self.whole)
                uris = x509.seen(self.whole.read_text(encoding="ascii")).uris
                self._domain = uris[0].removeprefix("spiffe://").partition("/")[0] if uris else ""
                self._context, self._stamp = made, stamp
        except (OSError, UnicodeDecodeError) as error:
            raise Refused(f"identity {self.whole}: {getattr(error, 'strerror', None) or error}") from error
        return self._context, self._domain


@dataclass(slots=True)
class Forwarder:
    """Sockets are bound by `listening`, before anything is served, so that a taken port is told at once."""

    shown: Shown
    ways: Sequence[Way]
    uid: int = field(default_factory=os.geteuid)

    async def serve(self, sockets: Sequence[socket.socket]) -> None:
        """For ever."""
        loop = asyncio.get_running_loop()
        servers = [
            await loop.create_server(lambda way=way: _Caller(self, way), sock=one, backlog=WAITING)  # type: ignore[misc]  # mypy cannot see through the default
            for way, one in zip(self.ways, sockets, strict=True)
        ]
        try:
            await asyncio.Event().wait()
        finally:
            for server in servers:
                server.close()

    def stranger(self, transport: asyncio.Transport) -> str:
        """Why that caller is none of ours; "" when it is."""
        theirs, ours = transport.get_extra_info("peername"), transport.get_extra_info("sockname")
        try:
            uid = socket_owner.owner(theirs, ours) if theirs and ours else None
        except OSError as error:
            return f"the kernel does not say whose it is: {error.strerror or error}"
        return "" if uid == self.uid else "it is gone" if uid is None else f"it is uid {uid}'s, we are {self.uid}"

    async def open(self, way: Way, caller: "_Caller") -> asyncio.Transport:
        """A connection to the mesh on which that service answers. Raises Refused, Unavailable."""
        context, domain = self.shown.context()
        name = identity.dns_name(domain, way.service, way.index)
        try:
            async with asyncio.timeout(CONNECT_S):
                transport, _ = await asyncio.get_running_loop().create_connection(
                    lambda: _Mesh(caller), *way.mesh, ssl=context, server_hostname=name
                )
        except (OSError, TimeoutError) as error:
            raise Unavailable(f"mesh {way.mesh[0]}:{way.mesh[1]}: {str(error) or 'no answer'}") from error
        if not _balancer(transport, domain):
            transport.abort()
            raise Refused(f"mesh {way.mesh[0]}:{way.mesh[1]}: who answers there is no balancer of {domain}")
        return transport


def listening(ways: Sequence[Way]) -> list[socket.socket]:
    """Raises BadSettings naming the port."""
    if socket_owner.ambiguous():
        raise BadSettings("this user is whom the kernel takes for all that it does not know here: run as another")
    found = []
    for way in ways:
        one = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            one.bind((LOCALHOST, way.port))
        except OSError as error:
            raise BadSettings(f"--to: port {way.port}: {error.strerror}") from error
        one.listen(WAITING)
        found.append(one)
    return found


def _balancer(transport: asyncio.Transport, domain: str) -> bool:
    names = (transport.get_extra_info("peercert") or {}).get("subjectAltName", ())
    services = [identity.service_of(domain, value) for kind, value in names if kind == "URI"]
    return any(s is not None and s.startswith(f"{identity.BALANCER}:") for s in services)


class _End(asyncio.Protocol):
    """One end of a connection; what comes is written to `other`, no faster than that can take it."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self.other: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        if self.other is not None:
            self.other.write(data)

    def pause_writing(self) -> None:
        if self.other is not None:
            self.other.pause_reading()

    def resume_writing(self) -> None:
        if self.other is not None and not self.other.is_closing():
            self.other.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  # asyncio's signature
        if self.other is not None:
            self.other.close()


class _Caller(_End):
    """The plain one."""

    def __init__(self, forwarder: Forwarder, way: Way) -> None:
        super().__init__()
        self._forwarder = forwarder
        self._way = way
        self._opening: asyncio.Task[None] | None = None
        self._early = bytearray()
        """What was read before there was a way: a read that was due already is not held back by the pause."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        assert self.transport is not None
        if why := self._forwarder.stranger(self.transport):
            log.warning("refused a caller", port=self._way.port, why=why)
            self.transport.abort()
            return
        self.transport.pause_reading()
        self._opening = asyncio.get_running_loop().create_task(self._open(self.transport))

    async def _open(self, transport: asyncio.Transport) -> None:
        try:
            mesh = await self._forwarder.open(self._way, self)
        except FairleadError as error:
            log.warning("no way", service=self._way.service, why=str(error))
            transport.abort()
            return
        if transport.is_closing():
            mesh.close()
            return
        self.other = mesh
        mesh.write(bytes(self._early))
        self._early.clear()
        transport.resume_reading()

    def data_received(self, data: bytes) -> None:
        if self.other is None:
            self._early += data
        else:
            self.other.write(data)

    def eof_received(self) -> bool:
        """It has said all; its answer may still come, which TLS cannot be told to go on with when half is closed."""
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        if self._opening is not None:
            self._opening.cancel()
        super().connection_lost(exc)


class _Mesh(_End):
    """The one over TLS."""

    def __init__(self, caller: _Caller) -> None:
        super().__init__()
        self.other = caller.transport
