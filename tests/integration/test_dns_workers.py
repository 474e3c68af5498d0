"""`fairlead dns` with worker processes: one reading of the registry, several that answer, none of which may be missed."""

import asyncio
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fairlead_daemon.processes import command_line, pids
from fairlead_discovery.backends import open_registry
from fairlead_discovery.records import Ips
from fairlead_discovery.registry import Registry
from harness.certificates import self_signed
from harness.dns_clients import run
from harness.names import DnsDaemon, ede, member, opt, publish, rcode
from harness.ports import free_port
from harness.waiting import wait_until
from harness.zookeeper import ZooKeeper

pytestmark = [pytest.mark.needs("dig", "kdig")]

SECRET = "c2VjcmV0IG9mIHNpeHRlZW4hIQ=="
KEY = f'key "xfr" {{ algorithm hmac-sha256; secret "{SECRET}"; }};\n'
SIGNED = ("-y", f"hmac-sha256:xfr:{SECRET}")
TLS = free_port()
WEB = "web.marathon.mesos"
ZONE = """\
$ORIGIN example.
@ 60 SOA ns1 host 7 60 60 60 60
@ 60 NS ns1
ns1 60 A 10.9.9.9
www 60 A 10.9.9.8
""" + "".join(f"h{n} 60 A 10.8.{n >> 8}.{n & 255}\n" for n in range(2500))


def doing(url: str, body: Callable[[Registry], Any]) -> None:
    """With a registry of its own."""

    async def run() -> None:
        registry = await open_registry(url)
        try:
            await body(registry)
        finally:
            await registry.close()

    asyncio.run(run())


def dig(port: int, *words: str) -> list[str]:
    command = ["dig", "@127.0.0.1", "-p", str(port), "+tries=1", "+time=15", "+short", *words]
    text = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout
    return [line for line in text.splitlines() if line and not line.startswith(";")]


@pytest.fixture(scope="module")
def url(zookeeper: ZooKeeper) -> str:
    return f"{zookeeper.url}/workers"


@pytest.fixture(scope="module")
def dns(url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[DnsDaemon]:
    """Two workers."""
    folder = tmp_path_factory.mktemp("workers")
    (folder / "zones").mkdir()
    (folder / "zones" / "example.zone").write_text(ZONE)
    (folder / "keys").write_text(KEY)
    (folder / "keys").chmod(0o600)
    self_signed(folder)
    doing(url, lambda r: publish(r, member()))
    made = server(folder, url, free_port())
    made.start()
    try:
        made.wait_ready("dns", lambda: made.get("/ready")["ready"], within_s=60)
        yield made
    finally:
        made.stop()
    assert [] == workers_of(made)


def server(folder: Path, url: str, port: int, *, workers: int = 2) -> DnsDaemon:
    return DnsDaemon(
        folder,
        registry=url,
        port=port,
        http_port=free_port(),
        workers=workers,
        zones_dir=str(folder / "zones"),
        transfers=["127.0.0.1 key:xfr"],
        keys_file=str(folder / "keys"),
        listen_tls=[f"127.0.0.1:{TLS}"],
        certificate=str(folder / "cert.pem"),
        certificate_key=str(folder / "key.pem"),
        resolvers=[f"127.0.0.1:{free_port()}"],
        forward_failure_s=1,
        zone_access={"secret.mesos": ["10.0.0.0/8"]},
    )


def workers_of(server: DnsDaemon) -> list[int]:
    """Those that answer at its port; also when they have lost their parent."""
    return [pid for pid in pids() if b"fairlead_dns.worker" in command_line(pid) and _serves(pid, server.port)]


def _serves(pid: int, port: int) -> bool:
    """Whether it holds a socket of this port."""
    try:
        handles = {os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")}
    except OSError:
        return False
    lines = Path("/proc/net/udp").read_text().splitlines()[1:]
    return any(f":{port:04X} " in line and f"socket:[{line.split()[9]}]" in handles for line in lines)


def answered(server: DnsDaemon) -> float:
    return server.metric('fairlead_dns_queries_total{rcode="NOERROR",transport="udp"')


def test_required_cookies_are_got_by_real_clients(url: str, tmp_path: Path) -> None:
    """Whichever worker answers: dig and kdig with cookies get one by BADCOOKIE and come again with it, which every worker
    takes; without any they come over TCP, and get nothing over UDP.
    """
    (tmp_path / "cookies").write_text("445536bcd2513298075a5d379663c962\n")
    doing(url, lambda r: publish(r, member(7, name="biscuit")))
    name = "biscuit.marathon.mesos"
    made = DnsDaemon(
        tmp_path,
        registry=url,
        port=free_port(),
        http_port=free_port(),
        id="cookies",
        workers=2,
        cookie_secrets=str(tmp_path / "cookies"),
        require_cookies="tcp-or-cookie",
    )
    try:
        made.start().wait_ready("dns", lambda: made.get("/ready")["ready"], within_s=60)
        at = (f"-p{made.port}", "@127.0.0.1", name)
        wait_until("it is there", lambda: "10.0.0.8" in run("kdig", *at, "+tcp", "+short"), within_s=30)
        for _ in range(6):
            for client in (("dig", "+cookie"), ("kdig", "+cookie"), ("dig", "+nocookie"), ("kdig", "+nocookie")):
                assert "10.0.0.8" in run(*client, *at, "+short"), client
        cut = run("dig", *at, "+nocookie", "+ignore")
        asked_again = run("dig", *at, "+cookie", "+nobadcookie")
        assert (True, False) == (" tc " in cut.replace(";", " "), "10.0.0.8" in cut)
        assert ("BADCOOKIE" in asked_again, "10.0.0.8" in asked_again) == (True, False)
        given = asked_again.partition("COOKIE: ")[2].split()[0]
        texts = [run("dig", *at, f"+cookie={given}", "+nobadcookie", "+notcp") for _ in range(10)]
        assert all("NOERROR" in text and "10.0.0.8" in text for text in texts)
    finally:
        made.stop()


def test_workers_answer_what_one_process_reads(url: str, dns: DnsDaemon) -> None:
    """Both answer, a change reaches both, other zones and transfers work, and the metrics are of all together."""
    assert 2 == len(workers_of(dns)) == dns.metric("fairlead_dns_workers")
    before = answered(dns)
    for _ in range(40):
        assert ["10.0.0.1"] == dns.answers(WEB)
    wait_until("they are counted", lambda: answered(dns) >= before + 40)
    doing(url, lambda r: publish(r, member(1, name="api", ips=Ips(host=("10.0.0.2",), netinfo=("172.16.0.2",)))))
    wait_until("a change comes through", lambda: all(dns.answers("api.marathon.mesos") for _ in range(20)))

    assert ["10.9.9.8"] == dig(dns.port, "www.example", "A")
    assert all(["10.8.9.195"] == dig(dns.port, "h2499.example", "A") for _ in range(4))
    assert ["10.9.9.8"] == dig(dns.port, "www.example", "A", "+tcp")
    assert ["10.0.0.1"] == dig(TLS, WEB, "A", "+tls")
    assert ["10.0.0.1"] == dig(dns.port, WEB, "A", *SIGNED)
    for port, how in ((dns.port, ()), (TLS, ("+tls",))):
        assert "10.9.9.8" in "".join(dig(port, "example", "AXFR", *how, *SIGNED))
        assert "10.0.0.2" in "".join(dig(port, "mesos", "AXFR", *how, *SIGNED))
        assert [] == dig(port, "mesos", "AXFR", *how)
    assert 1 == len(dig(dns.port, "mesos", "IXFR=1", "+notcp", *SIGNED))
    assert all(1 == len(dns.answers("2.0.16.172.in-addr.arpa", "PTR")) for _ in range(20))
    assert {"REFUSED"} == {rcode(dns.ask("a.secret.mesos", "A")) for _ in range(10)}
    assert {"SERVFAIL"} == {rcode(dns.ask("www.example.org")) for _ in range(4)}


def test_nobody_misses_a_worker(dns: DnsDaemon) -> None:
    """One is killed: every question is answered meanwhile, and another one takes its place. One hangs: it is stood in
    for after a few seconds, until it goes on.
    """
    first, second = workers_of(dns)
    os.kill(first, signal.SIGKILL)
    for _ in range(100):
        assert ["10.0.0.1"] == dns.answers(WEB)
    wait_until("another one is there", lambda: len(workers_of(dns)) == 2 and dns.metric("fairlead_dns_workers") == 2)
    assert first not in workers_of(dns)

    os.kill(second, signal.SIGSTOP)
    try:
        wait_until("all is answered", lambda: all(["10.0.0.1"] == dns.answers(WEB) for _ in range(20)), within_s=40)
    finally:
        os.kill(second, signal.SIGCONT)
    wait_until("both answer", lambda: dns.metric("fairlead_dns_workers") == 2)
    assert all(["10.0.0.1"] == dns.answers(WEB) for _ in range(20))
    assert 1 <= dns.metric("fairlead_dns_worker_restarts_total")


def test_workers_outlive_their_name_server(url: str, dns: DnsDaemon) -> None:
    """It hangs: they say so. It is killed: the last good answers go on, marked stale, until the next one has taken over."""
    left = workers_of(dns)
    os.kill(dns.pid, signal.SIGSTOP)
    try:
        wait_until("they doubt", lambda: all(ede(dns.ask(WEB, opt=opt())) == 3 for _ in range(10)), within_s=40)
    finally:
        os.kill(dns.pid, signal.SIGCONT)
    wait_until("it is back", lambda: all(ede(dns.ask(WEB, opt=opt())) is None for _ in range(10)), within_s=40)
    dns.kill()
    wait_until("they say so", lambda: ede(dns.ask(WEB, opt=opt())) == 3)
    assert all(["10.0.0.1"] == dns.answers(WEB) for _ in range(20))
    assert 2 == len(workers_of(dns))

    dns.start()
    wait_until("it has workers of its own", lambda: len(set(workers_of(dns)) - set(left)) == 2, within_s=40)
    wait_until("the old ones are gone", lambda: not set(workers_of(dns)) & set(left), within_s=40)
    wait_until("answers are true", lambda: all(ede(dns.ask(WEB, opt=opt())) is None for _ in range(10)), within_s=40)
    doing(url, lambda r: publish(r, member(1)))
    wait_until("changes come through", lambda: all(len(dns.answers(WEB)) == 2 for _ in range(20)))


def crash_at_start(dns: DnsDaemon) -> None:
    """As soon as it has a worker of its own that nobody has heard of yet."""
    before = set(workers_of(dns))
    dns.start()
    wait_until("it begins one", lambda: set(workers_of(dns)) - before, within_s=40)
    dns.kill()


def test_no_crash_leaves_a_worker_behind(url: str, dns: DnsDaemon) -> None:
    """However many name servers died before they stood, the one that does ends the workers of all; and whoever is ended
    by SIGTERM before it stands, and whoever has no workers itself.
    """
    dns.kill()
    left = workers_of(dns)
    assert 2 == len(left)
    crash_at_start(dns)
    alone = server(dns.log.parent, url, dns.port, workers=1)
    alone.start()
    try:
        alone.wait_serving()
        wait_until("those of both are gone", lambda: [] == workers_of(dns), within_s=40)
        assert dns.answers(WEB)
        assert "10.9.9.8" in "".join(dig(dns.port, "example", "AXFR", *SIGNED))
    finally:
        alone.stop()

    crash_at_start(dns)
    before = set(workers_of(dns))
    dns.start()
    wait_until("it begins one", lambda: set(workers_of(dns)) - before, within_s=40)
    dns.stop()
    wait_until("SIGTERM ends them too", lambda: [] == workers_of(dns), within_s=40)
    dns.start()
    dns.wait_ready("dns", lambda: dns.get("/ready")["ready"], within_s=60)
