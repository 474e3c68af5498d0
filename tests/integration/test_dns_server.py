"""`fairlead dns` as a process, on both real registries, asked by other people's clients."""

import asyncio
import json
import os
import random
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dnslib
import pytest

from fairlead_discovery import paths
from fairlead_discovery.backends import open_registry
from fairlead_discovery.records import Discovery, Framework, encode
from fairlead_discovery.registry import Registry
from harness.names import DnsDaemon, ask_udp, data, ede, member, opt, publish, query, rcode, withdraw
from harness.ports import free_port
from harness.servers import Server
from harness.waiting import wait_until
from harness.zookeeper import ZooKeeper

pytestmark = [pytest.mark.needs("dig", "kdig")]

WEB = "web.marathon.mesos"
SRV = "_web._tcp.marathon.mesos"
REGISTRYD = (
    "import sys; from fairlead_daemon.main import main; from fairlead_discovery.registryd import DAEMON;"
    " sys.exit(main(DAEMON, sys.argv[1:]))"
)


class Place:
    """A registry that can be stopped and started."""

    def __init__(self, url: str, start: Callable[[], None], stop: Callable[[], None]) -> None:
        self.url = url
        self.start = start
        self.stop = stop


@pytest.fixture
def stopping() -> None:
    """Asked for by tests that stop the registry, which is theirs alone then."""


@pytest.fixture(params=["local", "zookeeper"])
def place(request: pytest.FixtureRequest, short_dir: Path) -> Iterator[Place]:
    """One of the two real registries, with nothing in it."""
    (short_dir / "reg").mkdir()
    if request.param == "zookeeper" and "stopping" not in request.fixturenames:
        shared: ZooKeeper = request.getfixturevalue("zookeeper")
        yield Place(f"{shared.url}/{short_dir.name}", _never, _never)
        return
    if request.param == "zookeeper":
        zookeeper = ZooKeeper(short_dir / "reg").start()
        yield Place(zookeeper.url, lambda: zookeeper.start() and None, zookeeper.stop)
        zookeeper.stop()
        return
    socket_file = short_dir / "reg" / "r.sock"
    sets = (f"registry=local:{socket_file}", f"data_dir={short_dir}/reg", "token=off")
    command = [sys.executable, "-c", REGISTRYD, *(part for s in sets for part in ("--set", s))]
    server = Server(command, log=short_dir / "registry.log")

    def start() -> None:
        server.start().wait_ready("registry", lambda: _connects(socket_file))

    start()
    yield Place(f"local:{socket_file}", start, lambda: server.stop() and None)
    server.stop()


def _never() -> None:
    raise AssertionError("the session's ZooKeeper is not stopped: ask for `stopping`")


def _connects(file: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        probe.connect(str(file))
    return True


@pytest.fixture
def dns(place: Place, short_dir: Path) -> Iterator[DnsDaemon]:
    server = DnsDaemon(short_dir, registry=place.url, port=free_port(), http_port=free_port())
    server.start()
    server.wait_serving()
    yield server
    server.stop()


def doing(url: str, body: Callable[[Registry], Any]) -> Any:
    """Runs one coroutine function with a registry of its own."""

    async def run() -> Any:
        registry = await open_registry(url)
        try:
            return await body(registry)
        finally:
            await registry.close()

    return asyncio.run(run())


def tool(*words: str) -> str:
    return subprocess.run(words, capture_output=True, text=True, timeout=20, check=True).stdout


def dig(port: int, *words: str) -> list[str]:
    return _lines(tool("dig", "@127.0.0.1", "-p", str(port), "+tries=1", "+time=15", "+short", *words))


def kdig(port: int, *words: str) -> list[str]:
    return _lines(tool("kdig", "@127.0.0.1", "-p", str(port), "+short", *words))


def _lines(text: str) -> list[str]:
    """Without remarks such as ";; Truncated, retrying in TCP mode", and the blank lines after them."""
    return sorted(line for line in text.splitlines() if line and not line.startswith(";"))


def test_dig_and_kdig_read_every_name(place: Place, dns: DnsDaemon) -> None:
    """A and SRV over UDP and TCP, by two clients that are not ours."""
    members = [member(n, discovery=Discovery(name="web")) for n in range(2)]
    doing(place.url, lambda r: publish(r, *members))
    wait_until("both are answered", lambda: len(dns.answers(WEB)) == 2)

    targets = [f"0 1 80 {line.split()[3]}" for line in dig(dns.port, SRV, "SRV")]
    for client in (dig, kdig):
        for transport in ("+notcp", "+tcp"):
            assert ["10.0.0.1", "10.0.0.2"] == client(dns.port, WEB, "A", transport)
            assert targets == client(dns.port, SRV, "SRV", transport)
            assert targets == client(dns.port, f"_http.{SRV}", "SRV", transport)
    assert ["10.0.0.1", "10.0.0.2"] == sorted(dig(dns.port, t.split()[3])[0] for t in targets)


def test_dig_sees_honest_headers(place: Place, dns: DnsDaemon) -> None:
    """NXDOMAIN, NODATA, REFUSED and BADVERS, as dig prints them; no warning about our packets."""
    doing(place.url, lambda r: publish(r, member()))
    wait_until("it is answered", lambda: dns.answers(WEB))

    for words, status in (
        (("nope.mesos",), "NXDOMAIN"),
        ((WEB, "AAAA"), "NOERROR"),
        (("_tcp.marathon.mesos",), "NOERROR"),
        (("example.com",), "REFUSED"),
        ((WEB, "+edns=1", "+noednsneg"), "BADVERS"),
        (("mesos", "AXFR", "+tcp"), "Transfer failed"),
        ((WEB, "+opcode=15", "+header-only"), "NOTIMP"),
    ):
        text = tool("dig", "@127.0.0.1", "-p", str(dns.port), *words)
        assert status in text, text
        assert not {"Warning", "malformed", "extra bytes", "mismatch"} & set(text.split())


def test_frameworks_leaders_and_the_zone_itself(place: Place, dns: DnsDaemon) -> None:
    """What stands in documents is named as well, and the apex has SOA and NS."""
    document = paths.below(paths.MASTER_FRAMEWORKS, "f-1")
    doing(place.url, lambda r: r.write(document, encode(Framework(id="f-1", name="etl", ip="10.0.0.7", port=90))))

    wait_until("the framework is named", lambda: dig(dns.port, "etl.mesos") == ["10.0.0.7"])
    assert ["0 1 90 etl.mesos."] == dig(dns.port, "_framework._tcp.etl.mesos", "SRV")
    assert (["ns1.mesos."], ["127.0.0.1"]) == (dig(dns.port, "mesos", "NS"), dig(dns.port, "ns1.mesos"))
    assert "ns1.mesos. root.ns1.mesos." in dig(dns.port, "mesos", "SOA")[0]


def test_a_hundred_endpoints_work_over_tcp(place: Place, dns: DnsDaemon) -> None:
    """UDP is cut with TC; dig and kdig ask again over TCP by themselves and see all of them."""
    members = [member(n, discovery=Discovery(name="web")) for n in range(100)]
    doing(place.url, lambda r: publish(r, *members))
    wait_until("all are there", lambda: len(dig(dns.port, WEB, "+tcp")) == 100)

    assert "tc" in tool("dig", "@127.0.0.1", "-p", str(dns.port), WEB, "+ignore").split("flags:")[1].split(";")[0]
    for client in (dig, kdig):
        assert (100, 100) == (len(client(dns.port, WEB)), len(client(dns.port, SRV, "SRV")))


def test_what_is_answered_is_explained_measured_and_remembered(place: Place, dns: DnsDaemon) -> None:
    """The zone's version for dig, why and since when over HTTP, and how long it took from the commit."""
    doing(place.url, lambda r: publish(r, member(0)))
    wait_until("it is answered", lambda: dns.answers(WEB))
    revision = doing(place.url, lambda r: publish(r, member(1)))
    wait_until("both are answered", lambda: len(dns.answers(WEB)) == 2)
    serial = wait_until("the serial is its revision", lambda: (s := dns.get("/v2/status")["serial"]) >= revision and s)

    told = tool("dig", "@127.0.0.1", "-p", str(dns.port), WEB, "+ednsopt=19")
    assert f"01 00 {serial.to_bytes(4, 'big').hex(' ')}" in told
    why = dns.get(f"/v2/explain?name={WEB}")
    assert {"web.0", "web.1"} == {given["task"] for given in why["given_by"]}
    wait_until("the change is remembered", lambda: dns.get(f"/v2/history?name={WEB}")["changes"])
    (last,) = dns.get(f"/v2/history?name={WEB}")["changes"][-1:]
    assert (["A 10.0.0.2"], True) == (last["added"], revision <= last["serial"] <= serial)
    wait_until("it is measured", lambda: dns.metric("fairlead_dns_publish_seconds_count") >= 1)
    assert 0 <= dns.metric("fairlead_dns_publish_seconds_sum") < 60


def test_names_live_on_without_the_registry(stopping: None, place: Place, dns: DnsDaemon, short_dir: Path) -> None:
    """Registry gone: the names stay, marked. `kill -9` and a start without it: stale from disk. Back: live again."""
    doing(place.url, lambda r: publish(r, member()))
    document = paths.below(paths.MASTER_FRAMEWORKS, "f-1")
    doing(place.url, lambda r: r.write(document, encode(Framework(id="f-1", name="etl", ip="10.0.0.7"))))
    wait_until("it is answered", lambda: dns.answers(WEB) and dns.answers("etl.mesos"))
    wait_until("both are on disk", lambda: _holds(short_dir / "dns-one.documents", "etl"), within_s=15)
    wait_until("both are on disk", lambda: _holds(short_dir / "dns-one.snapshot", "web"), within_s=15)
    place.stop()
    wait_until("the answers are marked", lambda: ede(dns.ask(WEB, opt=opt())) == 3, within_s=20)
    assert ["10.0.0.1"] == dns.answers(WEB)

    dns.kill()
    dns.start()
    wait_until("it answers from disk", lambda: dns.answers(WEB) == ["10.0.0.1"], within_s=20)
    assert (3, ["10.0.0.7"]) == (ede(dns.ask(WEB, opt=opt())), dns.answers("etl.mesos"))

    place.start()
    wait_until("it is live again", lambda: ede(dns.ask(WEB, opt=opt())) is None, within_s=40)
    doing(place.url, lambda r: publish(r, member(1)))
    wait_until("changes come through", lambda: len(dns.answers(WEB)) == 2)


def _holds(file: Path, word: str) -> bool:
    return file.exists() and word.encode() in file.read_bytes()


def test_before_anything_is_known_nothing_is_denied(short_dir: Path) -> None:
    """A first start without the registry: SERVFAIL, never NXDOMAIN, and not ready."""
    server = DnsDaemon(short_dir, registry=f"local:{short_dir}/none.sock", port=free_port(), http_port=free_port())
    server.start()
    try:
        wait_until("it replies", lambda: server.ask(WEB, opt=opt()))
        reply = server.ask(WEB, opt=opt())

        assert ("SERVFAIL", 14) == (rcode(reply), ede(reply))
        assert server.running()
    finally:
        assert 0 == server.stop()


def test_two_processes_share_one_port(place: Place, dns: DnsDaemon, short_dir: Path) -> None:
    """One is killed, the other answers; each has its own HTTP port and announcement."""
    second = DnsDaemon(short_dir, registry=place.url, port=dns.port, http_port=free_port(), id="two")
    second.start()
    try:
        second.wait_serving()
        doing(place.url, lambda r: publish(r, member()))
        for server in (dns, second):
            wait_until("both know", lambda s=server: s.get(f"/v1/hosts/{WEB}")[0]["ip"] == "10.0.0.1")
        names = wait_until(
            "both are announced", lambda: (n := doing(place.url, _announced)) and len(n) == 2 and n, within_s=5
        )
        assert ["one", "two"] == sorted(name.partition(".")[0] for name in names)
        for _ in range(50):
            assert ["10.0.0.1"] == dns.answers(WEB)
        dns.kill()
        for _ in range(50):
            assert ["10.0.0.1"] == second.answers(WEB)
    finally:
        second.stop()


async def _announced(registry: Registry) -> tuple[str, ...]:
    return await registry.tree.names(paths.NAME_SERVERS)


def test_sigterm_withdraws_and_ends(place: Place, dns: DnsDaemon) -> None:
    """Exit code 0 within seconds, and nobody waits for its answers any more."""
    wait_until("it is announced", lambda: doing(place.url, _announced))

    assert 0 == dns.stop(grace_s=8)
    assert () == doing(place.url, _announced)


def test_sigterm_does_not_wait_for_an_absent_registry(stopping: None, place: Place, dns: DnsDaemon) -> None:
    """The registry is gone and stays away: the daemon still ends in order, within seconds."""
    wait_until("it is announced", lambda: doing(place.url, _announced))
    place.stop()

    assert 0 == dns.stop(grace_s=8)


def test_junk_does_not_stop_it(place: Place, dns: DnsDaemon) -> None:
    """Twenty thousand packets of noise and broken questions: it answers on, in the same process."""
    doing(place.url, lambda r: publish(r, member()))
    wait_until("it is answered", lambda: dns.answers(WEB))
    pid, chance = dns.pid, random.Random(9)
    good = query(WEB, opt=opt())
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        for _ in range(20_000):
            packet = bytearray(good[: chance.randrange(len(good) + 1)] + chance.randbytes(chance.randrange(8)))
            for _ in range(chance.randrange(4)):
                if packet:
                    packet[chance.randrange(len(packet))] = chance.choice((0, 1, 12, 63, 64, 0xC0, 0xFF))
            sock.sendto(packet, ("127.0.0.1", dns.port))

    wait_until("it answers", lambda: dns.answers(WEB) == ["10.0.0.1"])
    assert (True, pid) == (dns.running(), dns.pid)
    assert "Traceback" not in dns.log.read_text()


def test_a_busy_port_is_exit_code_2(short_dir: Path) -> None:
    """The error names port and option, on standard error."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind(("127.0.0.1", 0))
        port = other.getsockname()[1]
        server = DnsDaemon(short_dir, registry=f"local:{short_dir}/r.sock", port=port, http_port=free_port())
        server.start()
        assert server.process is not None

        assert 2 == server.process.wait(20)
    assert f"fairlead dns: listen: cannot listen on 127.0.0.1:{port}: another process holds the port" in server.tail()


@pytest.mark.skipif(os.getuid() != 0, reason="setpriv needs root")
def test_a_port_without_privilege_says_so(short_dir: Path) -> None:
    """Ports under 1024 need root: exit 2 when demanded, a warning when optional."""
    (short_dir / "data").mkdir(mode=0o777)
    (short_dir / "data").chmod(0o777)
    server = DnsDaemon(short_dir, registry=f"local:{short_dir}/r.sock", port=free_port(), http_port=free_port())
    alone = [*server.command, "--set", f"data_dir={json.dumps(str(short_dir / 'data'))}"]
    bare = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups", "--inh-caps=-all"]
    demanded = subprocess.run(
        [*bare, *alone, "--set", 'listen=["127.53.0.1:53"]'], capture_output=True, text=True, timeout=20, check=False
    )
    assert (2, True) == (demanded.returncode, "need root" in demanded.stderr), demanded.stderr

    server.command = [*bare, *alone, "--set", 'listen_optional=["127.53.0.1:53"]']
    server.start()
    try:
        wait_until("it answers on the other", lambda: rcode(server.ask("mesos", "SOA")) == "SERVFAIL")
        assert "not listening on an optional address" in server.tail()
    finally:
        server.stop()


def test_replies_come_from_the_address_that_was_asked(short_dir: Path) -> None:
    """The wildcard on a machine with several addresses: a connected client hears the reply."""
    port = free_port("0.0.0.0")
    server = DnsDaemon(
        short_dir,
        registry=f"local:{short_dir}/r.sock",
        port=port,
        http_port=free_port(),
        listen=[f"0.0.0.0:{port}", f"127.0.53.54:{port}"],
    )
    server.start()
    try:
        wait_until("it replies", lambda: server.ask("mesos", "SOA"))
        for host in ("127.0.0.1", "127.0.53.54"):
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
                sock.settimeout(20)
                sock.connect((host, port))
                sock.send(query(WEB))
                assert "SERVFAIL" == rcode(dnslib.DNSRecord.parse(sock.recv(4096)))
    finally:
        server.stop()


def test_withdrawn_endpoints_are_gone_at_once(place: Place, dns: DnsDaemon) -> None:
    """No answer is served from a cache beyond its withdrawal; the question is repeated all the while."""
    first, second = member(0), member(1)
    doing(place.url, lambda r: publish(r, first, second))
    wait_until("both are answered", lambda: dns.answers(WEB) == ["10.0.0.1", "10.0.0.2"])

    doing(place.url, lambda r: withdraw(r, first))

    wait_until("it is gone", lambda: dns.answers(WEB) == ["10.0.0.2"], within_s=30, every_s=0.001)
    assert ["10.0.0.2"] == data(dnslib.DNSRecord.parse(ask_udp(dns.port, query(WEB, number=9))))


def test_a_paused_server_answers_what_waited(place: Place, dns: DnsDaemon) -> None:
    """Stopped and continued: queries that waited in the socket are answered."""
    doing(place.url, lambda r: publish(r, member()))
    wait_until("it is answered", lambda: dns.answers(WEB))
    dns.pause()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(20)
        sock.sendto(query(WEB), ("127.0.0.1", dns.port))
        os.kill(dns.pid, signal.SIGCONT)

        assert ["10.0.0.1"] == data(dnslib.DNSRecord.parse(sock.recv(4096)))
