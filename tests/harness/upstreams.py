"""Upstreams for tests of forwarding: one of our own that lies as it is told, and real ones (Knot, NSD, BIND, unbound)."""

import asyncio
import socket
import ssl
import struct
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dnslib

from fairlead_dns.adapters.forward import Forwarder, Timing
from fairlead_dns.decisions.acl import LOCAL, Views
from fairlead_dns.decisions.asked import Came, Transport
from fairlead_dns.decisions.forward import Forwarding, Limits
from fairlead_dns.decisions.forward_cache import Cache, Policy
from fairlead_dns.decisions.forward_upstreams import Group, Place, Upstream, Zones
from fairlead_dns.decisions.front import Front, Waiting
from harness.names import query
from harness.ports import free_port
from harness.servers import Server, require

Behaviour = Callable[[bytes, bool], "bytes | Sequence[bytes] | None"]
"""A query and whether it came over TCP -> what to send back, in order; None: nothing."""
PROBE = b"fairlead-loop"
PATIENT = Timing(whole_s=20, try_s=15, resend_s=10)
"""So that a machine that stands still for a second changes nothing of what is counted."""


def answer(packet: bytes, *addresses: str, ttl_s: int = 300, flags: int = 0x8180, rcode: int = 0) -> bytes:
    """A reply as a resolver makes it: the question as asked, one A each, an OPT with a cookie nobody may pass on."""
    end = packet.index(b"\0", 12) + 5
    question = packet[12:end]
    records = b"".join(
        b"\xc0\x0c" + struct.pack("!HHIH", 1, 1, ttl_s, 4) + bytes(map(int, a.split("."))) for a in addresses
    )
    opt = b"\0" + struct.pack("!HHIH", 41, 1232, 0, 12) + struct.pack("!HH", 10, 8) + b"COOKIE!!"
    return packet[:2] + struct.pack("!HHHHH", flags | rcode, 1, len(addresses), 0, 1) + question + records + opt


def negative(packet: bytes, *, rcode: int = 3, soa_ttl_s: int = 300, minimum_s: int = 60, soa: bool = True) -> bytes:
    """NXDOMAIN or, with `rcode` 0, NODATA, with the SOA of the root."""
    end = packet.index(b"\0", 12) + 5
    data = b"\0\0" + struct.pack("!IIIII", 1, 2, 3, 4, minimum_s)
    record = b"\0" + struct.pack("!HHIH", 6, 1, soa_ttl_s, len(data)) + data if soa else b""
    return packet[:2] + struct.pack("!HHHHH", 0x8180 | rcode, 1, 0, int(soa), 0) + packet[12:end] + record


def always(*addresses: str, **how: Any) -> Behaviour:
    return lambda packet, _: answer(packet, *addresses, **how)


@dataclass(eq=False)
class Liar(asyncio.DatagramProtocol):
    """On one port, UDP and TCP (or TLS). Probes are answered truly; `seen` and `behave` are of everything else."""

    behave: Behaviour
    honest: bool = True
    delay_s: float = 0.0
    seen: list[bytes] = field(default_factory=list)
    probes: int = 0
    ports: set[int] = field(default_factory=set)
    connections: int = 0
    place: Place = field(default_factory=lambda: Place("127.0.0.1", free_port()))
    _transport: asyncio.DatagramTransport | None = None
    _server: asyncio.Server | None = None
    _writers: list[asyncio.StreamWriter] = field(default_factory=list)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # a datagram endpoint's

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self.ports.add(addr[1])
        for reply in self.replies(data, tcp=False):
            self._send(reply, addr)

    def error_received(self, exc: Exception) -> None:
        """The asker has gone."""

    def _send(self, reply: bytes, addr: Any) -> None:
        assert self._transport is not None
        if not self.delay_s:
            self._transport.sendto(reply, addr)
            return
        transport = self._transport
        asyncio.get_running_loop().call_later(self.delay_s, transport.sendto, reply, addr)

    def replies(self, packet: bytes, *, tcp: bool) -> Sequence[bytes]:
        if PROBE in packet.lower() and self.honest:
            self.probes += 1
            return [answer(packet, rcode=3)]
        self.seen.append(packet)
        said = self.behave(packet, tcp)
        return [said] if isinstance(said, bytes) else said or []

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._writers.append(writer)
        try:
            while True:
                size = int.from_bytes(await reader.readexactly(2), "big")
                for reply in self.replies(await reader.readexactly(size), tcp=True):
                    await asyncio.sleep(self.delay_s)
                    writer.write(len(reply).to_bytes(2, "big") + reply)
        except (OSError, EOFError):
            writer.close()

    def cut(self) -> None:
        """Ends every connection."""
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()

    async def open(self, tls: ssl.SSLContext | None = None) -> None:
        loop = asyncio.get_running_loop()
        where = (self.place.ip, self.place.port)
        await loop.create_datagram_endpoint(lambda: self, local_addr=where)
        self._server = await asyncio.start_server(self._serve, *where, ssl=tls)

    def close(self) -> None:
        self.cut()
        if self._transport is not None:
            self._transport.close()
        if self._server is not None:
            self._server.close()


@asynccontextmanager
async def lying(behave: Behaviour, *, tls: ssl.SSLContext | None = None, **how: Any) -> AsyncIterator[Liar]:
    liar = Liar(behave, **how)
    await liar.open(tls)
    try:
        yield liar
    finally:
        liar.close()


@dataclass(eq=False)
class Asking:
    """A forwarder behind a front, asked without sockets."""

    forwarder: Forwarder
    front: Front
    running: "asyncio.Task[None] | None" = None

    @property
    def forwarding(self) -> Forwarding:
        return self.forwarder.forwarding

    def upstream(self, number: int = 0) -> Upstream:
        return self.forwarding.zones.upstreams()[number]

    async def raw(self, packet: bytes, *, tcp: bool = False, client: str = "10.0.0.9") -> bytes:
        replied = self.front.reply(packet, Came(Transport.TCP if tcp else Transport.UDP, client))
        if isinstance(replied, Waiting):
            async with asyncio.timeout(20):
                replied = replied.finish(await replied.awaitable)
        assert isinstance(replied, bytes)
        return replied

    async def ask(self, name: str, kind: str | int = "A", **how: Any) -> dnslib.DNSRecord:
        asking = {key: how.pop(key) for key in ("tcp", "client") if key in how}
        return dnslib.DNSRecord.parse(await self.raw(query(name, kind, **how), **asking))


def forwarder_to(
    *places: Place,
    race: bool = True,
    policy: Policy | None = None,
    limits: Limits | None = None,
    timing: Timing | None = None,
    zones: dict[bytes, Place] | None = None,
    **how: Any,
) -> Asking:
    groups = {zone: Group(zone, [Upstream(place)], race) for zone, place in (zones or {}).items()}
    groups[b"\0"] = Group(b"\0", [Upstream(place) for place in places], race)
    forwarding = Forwarding(Zones(groups), Cache(policy or Policy()), limits or Limits())
    forwarder = Forwarder(forwarding, timing or PATIENT, **how)
    front = Front(clock=lambda: 0.0, views=Views(recursion=LOCAL))
    front.serve(b"\0", forwarder, recursive=True)
    return Asking(forwarder, front)


@asynccontextmanager
async def asking(*places: Place, probing: bool = False, **how: Any) -> AsyncIterator[Asking]:
    """`probing`: with ticks and probes, as in the daemon."""
    made = forwarder_to(*places, **how)
    if probing:
        made.running = asyncio.ensure_future(made.forwarder.run())
    try:
        yield made
    finally:
        if made.running is not None:
            made.running.cancel()
        made.forwarder.close()
        await asyncio.sleep(0)


@contextmanager
def black_hole() -> Iterator[int]:
    """Its port. It answers probes, so that its circuit stays closed, and swallows everything else: the worst case."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))

        def work() -> None:
            while (received := sock.recvfrom(4096))[0]:
                packet, peer = received
                if PROBE in packet.lower():
                    sock.sendto(packet[:2] + b"\x81\x83" + packet[4:], peer)

        thread = threading.Thread(target=work)
        thread.start()
        port: int = sock.getsockname()[1]
        yield port
        sock.sendto(b"", ("127.0.0.1", port))
        thread.join(10)


# --- real ones --------------------------------------------------------------------------------------------------------

ZONE = """$ORIGIN example.
$TTL 300
@ SOA ns root 1 3600 600 86400 60
@ NS ns
ns A 192.0.2.53
www A 192.0.2.1
www A 192.0.2.2
www AAAA 2001:db8::1
alias CNAME www
_http._tcp SRV 0 1 80 www
big TXT "{big}"
short 2 A 192.0.2.9
""".replace("{big}", '" "'.join(str(n) * 200 for n in range(1, 9)))


def authoritative(kind: str, folder: Path, port: int) -> Server:
    """A server of `example.`, not started: `knot`, `nsd` or `bind`."""
    (folder / "example.zone").write_text(ZONE)
    configuration = folder / f"{kind}.conf"
    where = f"{folder}/example.zone"
    if kind == "knot":
        configuration.write_text(
            f"server:\n  listen: 127.0.0.1@{port}\n  rundir: {folder}\n  udp-workers: 1\n  tcp-workers: 1\n"
            f"  background-workers: 1\ndatabase:\n  storage: {folder}\nzone:\n  - domain: example\n    file: {where}\n"
            "    zonefile-sync: -1\n    journal-content: none\n"
        )
        command = [require("knotd"), "-c", str(configuration)]
    elif kind == "nsd":
        configuration.write_text(
            f'server:\n  ip-address: 127.0.0.1@{port}\n  username: ""\n  pidfile: ""\n  zonesdir: "{folder}"\n'
            f'  xfrdfile: "{folder}/xfrd.state"\n  xfrdir: "{folder}"\n  zonelistfile: "{folder}/zone.list"\n'
            f'  database: ""\n  server-count: 1\nremote-control:\n  control-enable: no\n'
            f'zone:\n  name: example\n  zonefile: "{where}"\n'
        )
        command = [require("nsd"), "-d", "-c", str(configuration)]
    else:
        configuration.write_text(
            f'options {{ directory "{folder}"; listen-on port {port} {{ 127.0.0.1; }}; listen-on-v6 {{ none; }};\n'
            f"  recursion no; pid-file none; session-keyfile none; dnssec-validation no; }};\n"
            f'controls {{ }};\nzone "example" {{ type primary; file "{where}"; }};\n'
        )
        command = [require("named"), "-g", "-n", "1", "-c", str(configuration)]
    return Server(command, log=folder / f"{kind}.log")


STRICT = """  harden-below-nxdomain: yes
  use-caps-for-id: yes
  qname-minimisation: yes
  qname-minimisation-strict: yes
  harden-referral-path: no
  harden-large-queries: yes
  harden-short-bufsize: yes
  aggressive-nsec: yes
"""


def unbound(folder: Path, port: int, zones: str, *, server: str = "") -> Server:
    """Not started. `zones`: its forward-, stub- and auth-zone clauses; `server`: more of its server clause."""
    configuration = folder / f"unbound-{port}.conf"
    configuration.write_text(
        f'server:\n  interface: 127.0.0.1@{port}\n  username: ""\n  chroot: ""\n  pidfile: ""\n  directory: "{folder}"\n'
        '  do-daemonize: no\n  use-syslog: no\n  logfile: ""\n  do-not-query-localhost: no\n  module-config: iterator\n'
        f"  num-threads: 1\n  access-control: 127.0.0.0/8 allow\n{server}remote-control:\n  control-enable: no\n{zones}"
    )
    return Server([require("unbound"), "-d", "-p", "-c", str(configuration)], log=folder / f"unbound-{port}.log")
