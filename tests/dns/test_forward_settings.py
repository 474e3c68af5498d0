"""What can be told about forwarding, and what the daemon makes of it."""

import asyncio
import os
from pathlib import Path
from typing import Any

import dnslib
import pytest

from fairlead_daemon.errors import BadSettings
from fairlead_daemon.settings import convert, load
from fairlead_dns.adapters import forward_setup
from fairlead_dns.adapters.forward_setup import forwarding, install
from fairlead_dns.decisions.asked import Came, Transport
from fairlead_dns.decisions.front import Front, Waiting
from fairlead_dns.settings import DnsSettings
from harness.names import data, ede, names, opt, query, rcode
from harness.upstreams import always, lying
from harness.waiting import eventually

HERE = ("127.0.0.53:53",)


def told(**settings: Any) -> DnsSettings:
    return convert(DnsSettings, settings, where="test")


def front() -> Front:
    return names().front


async def ask(at: Front, name: str, *, client: str = "127.0.0.1") -> Any:
    replied = at.reply(query(name, opt=opt()), Came(Transport.UDP, client))
    if isinstance(replied, Waiting):
        async with asyncio.timeout(10):
            replied = replied.finish(await replied.awaitable)
    assert isinstance(replied, bytes)
    return dnslib.DNSRecord.parse(replied)


async def test_nothing_is_forwarded_unless_told() -> None:
    """Other names are refused, so that libc asks its next server; no RA."""
    at = front()
    async with forwarding(at, told(), HERE) as running:
        reply = await ask(at, "www.example")

        assert (None, "REFUSED", 20, 0) == (running.forwarder, rcode(reply), ede(reply), reply.header.ra)


async def test_zone_resolvers_alone_forward_their_zone_only() -> None:
    """The rest is refused as ever, local names too."""
    async with lying(always("192.0.2.1")) as up:
        at = front()
        async with forwarding(at, told(zone_resolvers={"example": [f"127.0.0.1:{up.place.port}"]}), HERE):
            replies = [await ask(at, name) for name in ("www.example", "www.other", "localhost")]

            assert ["NOERROR", "REFUSED", "REFUSED"] == [rcode(r) for r in replies]
            assert ["192.0.2.1"] == data(replies[0])


async def test_recursion_is_for_private_networks_by_default() -> None:
    """A public address is refused with the reason; `recursion` opens it."""
    async with lying(always("192.0.2.1")) as up:
        for networks, expected in ((("private",), ("REFUSED", 18)), (("198.51.100.0/24",), ("NOERROR", None))):
            at = front()
            async with forwarding(at, told(resolvers=[f"127.0.0.1:{up.place.port}"], recursion=networks), HERE):
                reply = await ask(at, "www.example", client="198.51.100.7")

                assert expected == (rcode(reply), ede(reply))


async def test_own_answers_say_whether_recursion_is_open_to_the_client() -> None:
    """RA for one, not for the other."""
    at = front()
    async with forwarding(at, told(resolvers=["10.255.255.1"]), HERE):
        replies = [await ask(at, "ns1.mesos", client=client) for client in ("127.0.0.1", "198.51.100.7")]

        assert [("NOERROR", 1), ("NOERROR", 0)] == [(rcode(r), r.header.ra) for r in replies]


async def test_upstreams_come_from_resolv_conf_and_follow_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Never ourselves; another file content, other upstreams; an empty one changes nothing."""
    monkeypatch.setattr(forward_setup, "LOOK_S", 0.05)
    file = tmp_path / "resolv.conf"
    file.write_text("nameserver 127.0.0.53\nnameserver 10.255.255.1\n")
    settings = told(resolvers=[], resolv_conf=str(file))
    async with forwarding(front(), settings, HERE) as running:
        assert running.forwarder is not None
        following = asyncio.ensure_future(running.run())

        async def places() -> list[str]:
            assert running.forwarder is not None
            return [u.place.ip for u in running.forwarder.forwarding.zones.upstreams()]

        async def are(expected: list[str]) -> bool:
            return await places() == expected

        assert ["10.255.255.1"] == await places()
        file.write_text("")
        await asyncio.sleep(0.2)
        assert ["10.255.255.1"] == await places()
        kept = running.forwarder.forwarding.zones.upstreams()[0]
        file.write_text("nameserver 10.255.255.2\nnameserver 10.255.255.1\n")
        await eventually("the new ones are taken", lambda: are(["10.255.255.2", "10.255.255.1"]))
        assert running.forwarder.forwarding.zones.upstreams()[1] is kept
        following.cancel()


@pytest.mark.parametrize("file", ["none", "pipe"])
async def test_without_a_readable_resolv_conf_other_names_are_refused(tmp_path: Path, file: str) -> None:
    """The daemon serves its own names all the same."""
    os.mkfifo(tmp_path / "pipe")
    at = front()
    async with forwarding(at, told(resolvers=[], resolv_conf=str(tmp_path / file)), HERE):
        replies = [await ask(at, name) for name in ("www.example", "ns1.mesos", "localhost")]

        assert ["REFUSED", "NOERROR", "NOERROR"] == [rcode(r) for r in replies]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"resolvers": ["dns.example"]}, r"resolvers: 'dns.example' is no upstream"),
        ({"resolvers": ["127.0.0.53"]}, r"resolvers: 127.0.0.53:53 is this server itself"),
        ({"resolvers": [f"10.0.0.{n}" for n in range(16)]}, r"resolvers: more than 15 upstreams"),
        ({"zone_resolvers": {"mesos": ["10.0.0.1"]}}, r"zone_resolvers.mesos: this server answers that zone itself"),
        ({"zone_resolvers": {"a..b": ["10.0.0.1"]}}, r"zone_resolvers.a..b: no zone's name"),
        ({"zone_resolvers": {"a": []}}, r"zone_resolvers.a: no upstream"),
        ({"zone_resolvers": {"a": ["x"]}}, r"zone_resolvers.a: 'x' is no upstream"),
        ({"recursion": ["10.0.0.0/33"]}, r"recursion: '10.0.0.0/33' is no network"),
        ({"forward_failure_s": 301}, r"forward_failure_s: 301 is not between 1 and 300"),
        ({"forward_in_flight": 0}, r"forward_in_flight: 0 is not between"),
        (
            {"resolvers": ["tls://10.0.0.1"], "forward_ca_file": "/nowhere.pem"},
            r"forward_ca_file: /nowhere.pem: No such",
        ),
    ],
)
async def test_bad_settings_name_the_key(settings: dict[str, Any], message: str) -> None:
    """And nothing is installed."""
    at = front()
    with pytest.raises(BadSettings, match=message):
        install(at, told(**settings), (("127.0.0.53", 53),))

    assert "REFUSED" == rcode(await ask(at, "www.example"))


def test_settings_from_a_file(tmp_path: Path) -> None:
    """As in the README."""
    file = tmp_path / "dns.toml"
    file.write_text(
        'resolvers = ["10.0.0.2", "tls://9.9.9.9#dns.quad9.net"]\n[zone_resolvers]\n"corp.example" = ["10.0.0.3"]\n'
    )
    settings = load(DnsSettings, file=file)

    assert (("10.0.0.2", "tls://9.9.9.9#dns.quad9.net"), {"corp.example": ("10.0.0.3",)}) == (
        settings.resolvers,
        settings.zone_resolvers,
    )
