"""The daemon's answers on the wire, by who asks."""

import asyncio
import socket
from pathlib import Path

import dnslib
import pytest

from fairlead_daemon.main import main
from fairlead_dns.daemon import DAEMON
from harness.names import member, publish, query
from harness.naming import running

WEB = "web.marathon.mesos"


def ask_from(source: str, port: int, packet: bytes) -> dnslib.DNSRecord:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(20)
        sock.bind((source, 0))
        sock.sendto(packet, ("127.0.0.1", port))
        return dnslib.DNSRecord.parse(sock.recv(65535))


async def test_a_client_gets_what_is_near_it(tmp_path: Path) -> None:
    """By its own address, on the wire: the SRV priority, and the first address each time."""
    localities = [{"network": f"127.{n}.0.0/16", "zone": zone, "region": "eu"} for n, zone in ((1, "a"), (2, "b"))]
    async with running(tmp_path, localities=localities) as dns:
        await publish(dns.registry, *(member(n, zone=zone, region="eu") for n, zone in enumerate("ab")))
        await dns.until(WEB, ["10.0.0.1", "10.0.0.2"])

        for source, first, priorities in (
            ("127.1.0.9", {"10.0.0.1"}, {31000: 1, 31001: 2}),
            ("127.2.0.9", {"10.0.0.2"}, {31000: 2, 31001: 1}),
            ("127.3.0.9", {"10.0.0.1", "10.0.0.2"}, {31000: 0, 31001: 0}),
        ):
            replies = [await asyncio.to_thread(ask_from, source, dns.port, query(WEB)) for _ in range(6)]
            srv = await asyncio.to_thread(ask_from, source, dns.port, query("_web._tcp.marathon.mesos", "SRV"))
            assert first == {str(reply.rr[0].rdata) for reply in replies}
            assert priorities == {rr.rdata.port: rr.rdata.priority for rr in srv.rr}


async def test_who_may_not_read_the_api_may_still_ask_for_names(tmp_path: Path) -> None:
    """/v1 and /v2 are refused, /ready is not, DNS answers."""
    async with running(tmp_path, api_networks=["10.0.0.0/8"]) as dns:
        await publish(dns.registry, member())
        await dns.until(WEB, ["10.0.0.1"])

        status = {path: (await dns.text(path))[0] for path in ("/v1/axfr", "/v2/status", "/ready")}
        assert {"/v1/axfr": 403, "/v2/status": 403, "/ready": 200} == status


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("negative_ttl_s=9", "negative_ttl_s: 9 is not between 1 and 5"),
        ('localities=[{network="10.0.0.0/99", zone="a"}]', "localities: '10.0.0.0/99' is no network"),
        ('zone_resolvers={mesos=["10.0.0.1"]}', "zone_resolvers.mesos: this server answers that zone itself"),
        ("rate_slip=99", "rate_slip: 99"),
        ('api_networks=["x"]', "api_networks: 'x' is no network"),
        ('listen=["x:53"]', "listen: 'x:53' is no address"),
        ('mesos={masters=["m:5050"], https=true, ca_file="/nope"}', "mesos: ca_file /nope: "),
        ('zone_resolvers={a=["10.0.0.1"], "a."=["10.0.0.1"]}', "zone_resolvers.a.: that zone is there twice"),
    ],
)
def test_check_finds_what_the_start_would_refuse(
    setting: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit 2 with the key; and nothing is written."""
    code = main(DAEMON, ["--check", "--set", f"data_dir={tmp_path}", "--set", setting])

    assert (2, True) == (code, said in capsys.readouterr().err)
    assert [] == list(tmp_path.iterdir())


def test_check_shows_good_settings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Whole."""
    assert 0 == main(DAEMON, ["--check", "--set", f"data_dir={tmp_path}", "--set", "a_record_limit=3"])
    assert '"a_record_limit": 3' in capsys.readouterr().out
