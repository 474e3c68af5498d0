"""Every way queries come, opened by the settings: UDP, TCP, TLS, HTTPS, through proxies or not, all to one front."""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from prometheus_client import REGISTRY

from fairlead_daemon.errors import BadSettings
from fairlead_daemon.logs import Log
from fairlead_dns import front_settings as told
from fairlead_dns.adapters import files
from fairlead_dns.adapters.gate import Gate
from fairlead_dns.adapters.sockets import Listener, bind, bind_streams, close_all
from fairlead_dns.adapters.tcp import Limits, TcpServer
from fairlead_dns.adapters.udp import ProxiedUdpServer, UdpServer
from fairlead_dns.adapters.udp_compiled import CompiledUdpServer, Loop, find
from fairlead_dns.adapters.waiting import Waiters
from fairlead_dns.decisions.acl import Acl
from fairlead_dns.decisions.asked import Came, Transport
from fairlead_dns.decisions.cookies import Cookies, parse_secrets
from fairlead_dns.decisions.front import Front
from fairlead_dns.front_metrics import FrontCollector
from fairlead_dns.metrics import Counts
from fairlead_dns.settings import DnsSettings

log = Log("dns")
Protocol = Callable[[Came], asyncio.BaseProtocol]


@dataclass(slots=True, eq=False)
class Opening:
    """Some listeners being served by this process. They stay bound when it closes: another process may serve them."""

    udp: list[UdpServer] = field(default_factory=list)
    gates: list[Gate] = field(default_factory=list)
    accepting: list[asyncio.Task[None]] = field(default_factory=list)

    async def close(self) -> None:
        """Answers what has come, and leaves them alone. Connections that are open stay so."""
        for server in self.udp:
            server.close()
        for task in self.accepting:
            task.cancel()
        await asyncio.gather(*self.accepting, return_exceptions=True)
        for gate in self.gates:
            gate.sock.close()


@dataclass(slots=True)
class Transports:
    """Answering until closed. `places`: addresses of UDP and TCP; `tls`, `https`: of those."""

    settings: DnsSettings
    tcp: TcpServer
    waiters: Waiters
    followed: list[files.Followed]
    loop: Loop | None
    """The compiled UDP loop, if it is there and wanted."""
    dot: ssl.SSLContext = field(default_factory=lambda: files.tls_context(("dot",)))
    doh: ssl.SSLContext = field(default_factory=lambda: files.tls_context(files.ALPN))
    listeners: Sequence[Listener] = ()
    openings: list[Opening] = field(default_factory=list)
    failed: asyncio.Event = field(default_factory=asyncio.Event)
    _error: BaseException | None = None
    _turned_away: int = 0

    @property
    def places(self) -> tuple[str, ...]:
        return self._of("listen", "listen_optional")

    @property
    def ips(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(each.place.ip for each in self.listeners if each.udp is not None))

    @property
    def tls(self) -> tuple[str, ...]:
        return self._of("listen_tls")

    @property
    def https(self) -> tuple[str, ...]:
        return self._of("listen_https")

    def _of(self, *keys: str) -> tuple[str, ...]:
        return tuple(str(each.place) for each in self.listeners if each.key in keys)

    def told(self) -> dict[str, str]:
        """Where it listens, for the log."""
        found = {"dns": self.places, "tls": self.tls, "https": self.https}
        loop = "python" if self.loop is None else "compiled"
        return {kind: ",".join(places) for kind, places in found.items() if places} | {"udp_loop": loop}

    @property
    def turned_away(self) -> int:
        return self._turned_away + sum(gate.turned_away for opening in self.openings for gate in opening.gates)

    def open(self, listeners: Iterable[Listener]) -> Opening:
        """Serves them from here on."""
        made = Opening()
        for each in listeners:
            trusted = _trusted(self.settings, each.text)
            if each.udp is not None:
                made.udp.append(self._udp_server(each.udp.dup(), trusted))
            transport, protocol, context = self._spoken(each.key)
            made.gates.append(Gate(each.stream.dup(), transport, protocol, context, trusted))
        made.accepting += [gate.open() for gate in made.gates]
        for task in made.accepting:
            task.add_done_callback(self._accepted)
        self.openings.append(made)
        return made

    async def leave(self, opening: Opening) -> None:
        """Serves its listeners no more; connections that are open stay so."""
        self.openings.remove(opening)
        self._turned_away += sum(gate.turned_away for gate in opening.gates)
        await opening.close()

    async def run(self) -> None:
        """For ever: closes what is idle, reads changed files again. Raises what ended a listener."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self.tcp.sweep())
            group.create_task(files.follow(self.followed))
            group.create_task(self._first_error())

    async def close(self) -> None:
        """Answers what has come, and stops."""
        for opening in tuple(self.openings):
            await self.leave(opening)
        self.tcp.close()
        self.waiters.close()

    def _spoken(self, key: str) -> tuple[Transport, Protocol, ssl.SSLContext | None]:
        match key:
            case "listen_tls":
                return Transport.DOT, self.tcp.protocol, self.dot
            case "listen_https":
                from fairlead_dns.adapters.doh import DohServer  # noqa: PLC0415  # half of a worker's start, for few

                return Transport.DOH, DohServer(self.tcp, self.settings.https_path).protocol, self.doh
        return Transport.TCP, self.tcp.protocol, None

    def _udp_server(self, sock: socket.socket, trusted: Acl | None) -> UdpServer:
        tcp = self.tcp
        if trusted is not None:
            return ProxiedUdpServer(sock, tcp.front, tcp.counts, self.waiters, trusted)
        if self.loop is not None:
            return CompiledUdpServer(sock, tcp.front, tcp.counts, self.waiters, self.loop)
        return UdpServer(sock, tcp.front, tcp.counts, self.waiters)

    def _accepted(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled():
            self._error = self._error or task.exception()
            self.failed.set()

    async def _first_error(self) -> None:
        await self.failed.wait()
        if self._error is not None:
            raise self._error


def prepare(settings: DnsSettings, front: Front, version: str, server: str) -> list[files.Followed]:
    """Tells the front its settings; returns the files it hangs on, read once. Raises BadSettings."""
    told.check(settings)
    told.check_proxied(settings, (*settings.listen, *settings.listen_optional))
    front.views.query = told.acl("allow_query", settings.allow_query)
    front.views.zones = told.zone_access(settings)
    front.identity = told.identity(settings, version, server)
    front.limiter = told.limiter(settings)
    front.keepalive_s = settings.tcp_idle_s
    front.require_cookies = settings.require_cookies != "off"
    if not settings.cookie_secrets:
        return []

    def take(text: str) -> None:
        front.cookies = Cookies(parse_secrets(text))

    secrets = files.text_file("cookie_secrets", Path(settings.cookie_secrets), take)
    secrets.first()
    return [secrets]


def bind_all(settings: DnsSettings) -> list[Listener]:
    """One of each address that the settings name. Raises BadSettings naming the key; then nothing stays bound."""
    bound: list[Listener] = []
    try:
        for text in settings.listen:
            bound += bind("listen", text)
        for text in settings.listen_optional:
            bound += _optional(text)
        for key in ("listen_tls", "listen_https"):
            for text in getattr(settings, key):
                bound += bind_streams(key, text)
    except BadSettings:
        close_all(bound)
        raise
    if (settings.listen or settings.listen_optional or bound) and not any(each.udp is not None for each in bound):
        close_all(bound)
        raise BadSettings("listen: no address to listen on")
    return bound


@asynccontextmanager
async def serving(
    settings: DnsSettings,
    front: Front,
    counts: Counts,
    followed: list[files.Followed],
    slots: Sequence[Sequence[Listener]] = (),
) -> AsyncIterator[Transports]:
    """Answers from here on; on the way out answers what has come, and stops. Raises BadSettings naming the key; then nothing stays open.

    `slots`: listeners that somebody else binds and closes; without any they are bound here.
    """
    limits = Limits(
        connections=settings.tcp_connections,
        per_client=settings.tcp_per_client,
        idle_s=settings.tcp_idle_s,
        queries=settings.tcp_queries,
    )
    waiters = Waiters(most=settings.waiting, patience_s=settings.patience_s)
    tcp = TcpServer(front, counts, limits, waiters)
    made = Transports(settings, tcp, waiters, [*followed], find(settings.udp_loop))
    if settings.listen_tls or settings.listen_https:
        cert = Path(settings.certificate)
        made.followed.append(files.certificate(cert, Path(settings.certificate_key or cert), (made.dot, made.doh)))
        made.followed[-1].first()
    own = [] if slots else bind_all(settings)
    slots = slots or (own,)
    made.listeners = slots[0]
    collector = FrontCollector(front, waiters, lambda: made.turned_away, counts.elsewhere)
    REGISTRY.register(collector)
    try:
        for slot in slots:
            made.open(slot)
        yield made
    finally:
        REGISTRY.unregister(collector)
        await made.close()
        close_all(own)


def _trusted(settings: DnsSettings, text: str) -> Acl | None:
    return told.acl("proxied_by", settings.proxied_by) if text in settings.proxied else None


def _optional(text: str) -> list[Listener]:
    try:
        return bind("listen_optional", text)
    except BadSettings as error:
        log.warning("not listening on an optional address", why=str(error))
        return []
