"""Forwarding between real servers: Knot, NSD, BIND and unbound above us, unbound in its strictest settings below us."""

import asyncio
import select
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import dnslib
import pytest

from fairlead_discovery.backends import open_registry
from fairlead_discovery.records import Discovery
from fairlead_dns.adapters.forward_sockets import tls_context
from fairlead_dns.decisions.forward_upstreams import Place
from harness.names import DnsDaemon, ask_udp, data, ede, member, opt, publish, query, rcode
from harness.ports import free_port
from harness.servers import Server
from harness.upstreams import STRICT, asking, authoritative, black_hole, unbound
from harness.waiting import wait_until

REGISTRYD = (
    "import sys; from fairlead_daemon.main import main; from fairlead_discovery.registryd import DAEMON;"
    " sys.exit(main(DAEMON, sys.argv[1:]))"
)
ServerKind = TypeVar("ServerKind", bound=Server)
WEB = "web.marathon.mesos"


def ask(port: int, name: str, kind: str = "A", *, wait_s: float = 10.0, **how: object) -> dnslib.DNSRecord:
    packet = query(name, kind, opt=opt(), **how)  # type: ignore[arg-type]  # its own keywords
    return dnslib.DNSRecord.parse(ask_udp(port, packet, wait_s=wait_s))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("forward")
    made.chmod(0o755)
    return made


# --- authoritative servers as upstreams -------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["knot", "nsd", "bind"])
async def test_real_servers_answer_through_us(kind: str, tmp_path: Path) -> None:
    """Every kind of answer, a cut one over TCP too; the same as when the server is asked itself."""
    port = free_port()
    server = authoritative(kind, tmp_path, port).start()
    try:
        await asyncio.to_thread(server.wait_ready, kind, lambda: data(ask(port, "www.example", wait_s=0.3)))
        async with asking(Place("127.0.0.1", port)) as it:
            for name, of in (("www", "A"), ("www", "AAAA"), ("alias", "A"), ("_http._tcp", "SRV"), ("big", "TXT")):
                reply = await it.ask(f"{name}.example", of, tcp=True)
                asked = dnslib.DNSRecord.question(f"{name}.example", of)
                theirs = await asyncio.to_thread(asked.send, "127.0.0.1", port, tcp=True)

                assert data(dnslib.DNSRecord.parse(theirs)) == data(reply) != [], (name, of)
            negative = [await it.ask(name, of) for name, of in (("no.example", "A"), ("www.example", "MX"))]

            assert [("NXDOMAIN", 1), ("NOERROR", 1)] == [(rcode(r), len(r.auth)) for r in negative]
            assert 1 == (await it.ask("big.example", "TXT")).header.tc
    finally:
        server.stop()


# --- the whole daemon -------------------------------------------------------------------------------------------------


@dataclass
class House:
    """`dns`: our daemon, which forwards `example` to Knot, `hole` into a black hole, the rest to unbound."""

    dns: DnsDaemon
    strict: int
    stubbed: int
    resolver: int


@pytest.fixture(scope="module")
def certificate(folder: Path) -> Path:
    made = "-x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=dns.example"
    files = ["-keyout", str(folder / "key.pem"), "-out", str(folder / "cert.pem")]
    extra = ["-addext", "subjectAltName=DNS:dns.example"]
    subprocess.run(["openssl", "req", *made.split(), *files, *extra], check=True, capture_output=True)
    return folder / "cert.pem"


@pytest.fixture(scope="module")
def resolver(folder: Path, certificate: Path) -> Iterator[tuple[int, int]]:
    """An unbound with names of its own: its port, and the one it speaks TLS on."""
    port, tls = free_port(), free_port()
    local = "".join(f'  local-data: "n{n}.corp. 60 IN A 192.0.2.{n}"\n' for n in range(40))
    more = (
        f'  interface: 127.0.0.1@{tls}\n  tls-port: {tls}\n  tls-service-key: "{folder}/key.pem"\n'
        f'  tls-service-pem: "{certificate}"\n  local-zone: "corp." static\n{local}'
        '  local-zone: "fairlead-loop." static\n'
    )
    server = unbound(folder, port, "", server=more).start()
    server.wait_ready("unbound", lambda: data(ask(port, "n1.corp", wait_s=0.3)))
    yield port, tls
    server.stop()


@pytest.fixture(scope="module")
def house(folder: Path, resolver: tuple[int, int]) -> Iterator[House]:
    with ExitStack() as stack:
        knot, port, http = free_port(), free_port(), free_port()
        upstream = stack.enter_context(_served(authoritative("knot", folder, knot)))
        upstream.wait_ready("knot", lambda: data(ask(knot, "www.example", wait_s=0.3)))
        hole = stack.enter_context(black_hole())
        url = f"local:{folder}/r.sock"
        sets = (f"registry={url}", f"data_dir={folder}", "token=off")
        command = [sys.executable, "-c", REGISTRYD, *(part for each in sets for part in ("--set", each))]
        stack.enter_context(_served(Server(command, log=folder / "registry.log"))).wait_ready(
            "registry", (folder / "r.sock").exists
        )
        dns = DnsDaemon(
            folder,
            registry=url,
            port=port,
            http_port=http,
            resolvers=[f"127.0.0.1:{resolver[0]}"],
            zone_resolvers={"example": [f"127.0.0.1:{knot}"], "hole": [f"127.0.0.1:{hole}"]},
            forward_in_flight=16,
            patience_s=2.0,
            reverse_zones=["10.in-addr.arpa"],
        )
        stack.enter_context(_served(dns)).wait_serving()
        asyncio.run(_publish(url))
        wait_until("the names are there", lambda: len(dns.answers(WEB)) == 3)
        strict, stubbed = free_port(), free_port()
        here = f"127.0.0.1@{port}"
        for at, zones in (
            (strict, f'forward-zone:\n  name: "."\n  forward-addr: {here}\n'),
            (stubbed, f'stub-zone:\n  name: "mesos"\n  stub-addr: {here}\n  stub-prime: no\n'),
        ):
            server = stack.enter_context(_served(unbound(folder, at, zones, server=STRICT)))
            server.wait_ready("unbound", lambda at=at: rcode(ask(at, "ns1.mesos", wait_s=0.5)) == "NOERROR")
        yield House(dns, strict, stubbed, resolver[0])


@contextmanager
def _served(server: ServerKind) -> Iterator[ServerKind]:
    server.start()
    try:
        yield server
    finally:
        server.stop()


async def _publish(url: str) -> None:
    registry = await open_registry(url)
    await publish(registry, *(member(n) for n in range(3)))
    await publish(registry, member(0, name="shop", discovery=Discovery(name="shop.front", given=True)))
    await registry.close()


def test_own_names_and_others_through_one_server(house: House) -> None:
    """Ours with AA, the others without; RA on both; a name in neither place."""
    own, other, none = (ask(house.dns.port, name) for name in (WEB, "n7.corp", "nobody.corp"))

    assert (3, ["192.0.2.7"], "NXDOMAIN") == (len(data(own)), data(other), rcode(none))
    assert [(1, 1), (0, 1), (0, 1)] == [(r.header.aa, r.header.ra) for r in (own, other, none)]


def test_a_zones_own_upstream_is_asked(house: House) -> None:
    """`example` is Knot's; unbound would say NXDOMAIN."""
    assert ["192.0.2.1", "192.0.2.2"] == data(ask(house.dns.port, "www.example"))


def test_libc_clients_get_what_they_need(house: House) -> None:
    """dig, with cookies and EDNS as it does by itself, over UDP and TCP: nothing to complain about."""
    for how in ((), ("+tcp",), ("+noedns",), ("+dnssec", "+cd")):
        said = subprocess.run(
            ["dig", "@127.0.0.1", "-p", str(house.dns.port), *how, "n3.corp"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout

        assert ("192.0.2.3" in said, "WARNING" in said, "malformed" in said) == (True, False, False), said


@pytest.mark.parametrize(
    ("name", "kind", "expected"),
    [
        (WEB, "A", ("NOERROR", 3)),
        (WEB, "AAAA", ("NOERROR", 0)),
        ("_web._tcp.marathon.mesos", "SRV", ("NOERROR", 3)),
        ("shop.front.marathon.mesos", "A", ("NOERROR", 1)),
        ("front.marathon.mesos", "A", ("NOERROR", 0)),
        ("marathon.mesos", "A", ("NOERROR", 0)),
        ("_tcp.marathon.mesos", "A", ("NOERROR", 0)),
        ("nobody.marathon.mesos", "A", ("NXDOMAIN", 0)),
        ("x.nobody.marathon.mesos", "A", ("NXDOMAIN", 0)),
        (WEB, "MX", ("NOERROR", 0)),
        ("mesos", "SOA", ("NOERROR", 1)),
        ("mesos", "NS", ("NOERROR", 1)),
    ],
)
def test_the_strictest_unbound_resolves_own_names_through_us(
    house: House, name: str, kind: str, expected: tuple[str, int]
) -> None:
    """As a stub that trusts us with the zone, and as a forwarder: it hides nothing below a name that exists (8020),
    every minimised step is answered (9156), every case is echoed (0x20).
    """
    replies = [ask(port, name, kind) for port in (house.stubbed, house.strict)]

    assert [expected] * 2 == [(rcode(r), len(r.rr)) for r in replies]


@pytest.mark.parametrize(
    ("name", "kind", "expected"),
    [
        ("n5.corp", "A", ("NOERROR", ["192.0.2.5"])),
        ("nobody.corp", "A", ("NXDOMAIN", [])),
        ("n5.corp", "TXT", ("NOERROR", [])),
        ("www.example", "A", ("NOERROR", ["192.0.2.1", "192.0.2.2"])),
        ("_http._tcp.example", "SRV", ("NOERROR", ["0 1 80 www.example."])),
        ("no.example", "A", ("NXDOMAIN", [])),
    ],
)
def test_the_strictest_unbound_forwards_through_us(
    house: House, name: str, kind: str, expected: tuple[str, list[str]]
) -> None:
    """Names that we forward in turn."""
    reply = ask(house.strict, name, kind)

    assert expected == (rcode(reply), data(reply))


def test_a_black_hole_does_not_hold_up_own_names(house: House) -> None:
    """600 questions into it, own ones between them: every own one is answered, rightly; the others are bounded, get
    SERVFAIL, and are never more than their share upstream. What a full buffer loses is asked again, as clients do.
    """
    most, own, replies = 0.0, [], {}
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as flood:
        flood.connect(("127.0.0.1", house.dns.port))
        for number in range(600):
            flood.send(query(f"n{number}.hole", number=number, opt=opt()))
            if number % 10 == 0:
                own.append(len(data(ask(house.dns.port, WEB))))
                most = max(most, house.dns.metric("fairlead_dns_forward_in_flight"))
                replies |= _received(flood, 0.0)

        def all_answered() -> bool:
            """Asks for at most 100 at a time: as many replies as fit the buffer."""
            replies.update(_received(flood, 0.0))
            missing = [number for number in range(600) if number not in replies]
            for number in missing[:100]:
                flood.send(query(f"n{number}.hole", number=number, opt=opt()))
            replies.update(_received(flood, 2.5))
            return len(replies) == 600

        wait_until("all are answered", all_answered, within_s=60)

    assert ([3] * 60, {"SERVFAIL"}) == (own, {rcode(r) for r in replies.values()})
    assert most <= 16
    assert house.dns.metric("fairlead_dns_forward_failures_total") > 0
    assert {0, 22} >= {ede(r) for r in replies.values()}
    wait_until("nothing is left", lambda: house.dns.metric("fairlead_dns_forward_waiting") == 0, within_s=30)


def _received(sock: socket.socket, wait_s: float) -> dict[int, dnslib.DNSRecord]:
    """What has come, by id; waits for the first."""
    found = {}
    while select.select([sock], [], [], wait_s)[0]:
        wait_s = 0.0
        reply = dnslib.DNSRecord.parse(sock.recv(4096))
        found[reply.header.id] = reply
    return found


def test_metrics_tell_of_upstreams(house: House) -> None:
    """Each with its circuit and round trip, and what became of questions."""
    ask(house.dns.port, "n9.corp")
    ask(house.dns.port, "again.hole")
    upstream = f'upstream="127.0.0.1:{house.resolver}",zone="."'

    assert house.dns.metric(f'fairlead_dns_upstream_circuit{{circuit="closed",{upstream}') == 1
    assert house.dns.metric(f"fairlead_dns_upstream_trip_seconds{{{upstream}") > 0
    assert house.dns.metric("fairlead_dns_forward_cached ") > 0
    assert house.dns.metric("fairlead_dns_forward_failures_total") > 0


# --- TLS --------------------------------------------------------------------------------------------------------------


async def test_unbound_over_tls(resolver: tuple[int, int], certificate: Path) -> None:
    """Forty at once through one verified connection."""
    async with asking(Place("127.0.0.1", resolver[1], "tls", "dns.example"), tls=tls_context(str(certificate))) as it:
        replies = await asyncio.gather(*(it.ask(f"n{n}.corp") for n in range(40)))

        assert [[f"192.0.2.{n}"] for n in range(40)] == [data(r) for r in replies]
        assert [1] == [streams.opened for streams in it.forwarder._streams.values()]
