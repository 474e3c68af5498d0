"""Every way queries come, opened by the settings: UDP, TCP, TLS, HTTPS, through proxies or not, all to one front."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from prometheus_client import REGISTRY

from fairlead_daemon.errors import BadSettings
from fairlead_daemon.logs import Log
from fairlead_dns import front_settings as told
from fairlead_dns.adapters import files
from fairlead_dns.adapters.doh import ALPN, DohServer
from fairlead_dns.adapters.gate import Gate
from fairlead_dns.adapters.sockets import Bound, bind, bind_streams
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


@dataclass(slots=True)
class Transports:
    """Open and answering until closed. `places`: addresses of UDP and TCP; `tls`, `https`: of those."""

    tcp: TcpServer
    waiters: Waiters
    places: tuple[str, ...] = ()
    ips: tuple[str, ...] = ()
    tls: tuple[str, ...] = ()
    https: tuple[str, ...] = ()
    udp: list[UdpServer] = field(default_factory=list)
    gates: list[Gate] = field(default_factory=list)
    followed: list[files.Followed] = field(default_factory=list)
    loop: Loop | None = None
    """The compiled UDP loop, if it is there and wanted."""
    accepting: list[asyncio.Task[None]] = field(default_factory=list)

    def told(self) -> dict[str, str]:
        """Where it listens, for the log."""
        found = {"dns": self.places, "tls": self.tls, "https": self.https}
        loop = "python" if self.loop is None else "compiled"
        return {kind: ",".join(places) for kind, places in found.items() if places} | {"udp_loop": loop}

    @property
    def turned_away(self) -> int:
        return sum(gate.turned_away for gate in self.gates)

    async def run(self) -> None:
        """For ever: closes what is idle, reads changed files again. Raises what ended a listener."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self.tcp.sweep())
            group.create_task(files.follow(self.followed))
            group.create_task(_first_error(self.accepting))

    async def close(self) -> None:
        """Answers what has come, and stops."""
        for server in self.udp:
            server.close()
        for task in self.accepting:
            task.cancel()
        await asyncio.gather(*self.accepting, return_exceptions=True)
        for gate in self.gates:
            gate.sock.close()
        self.tcp.close()
        self.waiters.close()


async def _first_error(tasks: list[asyncio.Task[None]]) -> None:
    await asyncio.gather(*tasks)


def prepare(settings: DnsSettings, front: Front, version: str, server: str) -> list[files.Followed]:
    """Tells the front its settings; returns the files it hangs on, read once. Raises BadSettings."""
    told.check(settings)
    told.check_proxied(settings, (*settings.listen, *settings.listen_optional))
    front.views.query = told.acl("allow_query", settings.allow_query)
    front.identity = told.identity(settings, version, server)
    front.limiter = told.limiter(settings)
    front.keepalive_s = settings.tcp_idle_s
    if not settings.cookie_secrets:
        return []

    def take(text: str) -> None:
        front.cookies = Cookies(parse_secrets(text))

    secrets = files.text_file("cookie_secrets", Path(settings.cookie_secrets), take)
    secrets.first()
    return [secrets]


@asynccontextmanager
async def serving(
    settings: DnsSettings, front: Front, counts: Counts, followed: list[files.Followed]
) -> AsyncIterator[Transports]:
    """Answers from here on; on the way out answers what has come, and stops. Raises BadSettings naming the key; then nothing stays open."""
    limits = Limits(
        connections=settings.tcp_connections,
        per_client=settings.tcp_per_client,
        idle_s=settings.tcp_idle_s,
        queries=settings.tcp_queries,
    )
    waiters = Waiters(most=settings.waiting, patience_s=settings.patience_s)
    made = Transports(
        TcpServer(front, counts, limits, waiters), waiters, followed=[*followed], loop=find(settings.udp_loop)
    )
    collector = FrontCollector(front, waiters, lambda: made.turned_away)
    REGISTRY.register(collector)
    try:
        _open_plain(settings, made)
        _open_encrypted(settings, made)
        made.accepting += [gate.open() for gate in made.gates]
        yield made
    finally:
        REGISTRY.unregister(collector)
        await made.close()


def _open_plain(settings: DnsSettings, made: Transports) -> None:
    found = [("listen", text) for text in settings.listen]
    bound = [(text, pair) for key, text in found for pair in bind(key, text)]
    bound += [(text, pair) for text in settings.listen_optional for pair in _optional(text)]
    if not bound:
        raise BadSettings("listen: no address to listen on")
    for text, pair in bound:
        trusted = _trusted(settings, text)
        made.udp.append(_udp_server(made, pair, trusted))
        made.gates.append(Gate(pair.tcp, Transport.TCP, made.tcp.protocol, trusted=trusted))
    made.places = tuple(str(pair.place) for _, pair in bound)
    made.ips = tuple(dict.fromkeys(pair.place.ip for _, pair in bound))


def _udp_server(made: Transports, pair: Bound, trusted: Acl | None) -> UdpServer:
    tcp = made.tcp
    if trusted is None and made.loop is not None:
        return CompiledUdpServer(pair.udp, tcp.front, tcp.counts, made.waiters, made.loop)
    if trusted is None:
        return UdpServer(pair.udp, tcp.front, tcp.counts, made.waiters)
    return ProxiedUdpServer(pair.udp, tcp.front, tcp.counts, made.waiters, trusted)


def _open_encrypted(settings: DnsSettings, made: Transports) -> None:
    if not settings.listen_tls and not settings.listen_https:
        return
    dot, doh = files.tls_context(("dot",)), files.tls_context(ALPN)
    cert = Path(settings.certificate)
    followed = files.certificate(cert, Path(settings.certificate_key or cert), (dot, doh))
    followed.first()
    made.followed.append(followed)
    https = DohServer(made.tcp, settings.https_path)
    open_streams = _Streams(settings, made)
    made.tls = open_streams("listen_tls", Transport.DOT, made.tcp.protocol, dot)
    made.https = open_streams("listen_https", Transport.DOH, https.protocol, doh)


@dataclass(frozen=True, slots=True)
class _Streams:
    settings: DnsSettings
    made: Transports

    def __call__(self, key: str, kind: Transport, protocol: Protocol, context: ssl.SSLContext) -> tuple[str, ...]:
        places: list[str] = []
        texts: Iterable[str] = getattr(self.settings, key)
        for text in texts:
            trusted = _trusted(self.settings, text)
            for place, sock in bind_streams(key, text):
                self.made.gates.append(Gate(sock, kind, protocol, context, trusted))
                places.append(str(place))
        return tuple(places)


def _trusted(settings: DnsSettings, text: str) -> Acl | None:
    return told.acl("proxied_by", settings.proxied_by) if text in settings.proxied else None


def _optional(text: str) -> list[Bound]:
    try:
        return bind("listen_optional", text)
    except BadSettings as error:
        log.warning("not listening on an optional address", why=str(error))
        return []
