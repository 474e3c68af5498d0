"""What the settings of transports and access make of the server, and what they refuse."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from fairlead_daemon.errors import BadSettings
from fairlead_daemon.settings import convert
from fairlead_dns.adapters.files import Followed, certificate, text_file, tls_context
from fairlead_dns.decisions.asked import Came, Transport
from fairlead_dns.decisions.front import Front
from fairlead_dns.decisions.rate import Kind, Limiter, Rates
from fairlead_dns.metrics import Counts
from fairlead_dns.settings import DnsSettings
from fairlead_dns.transports import prepare, serving
from harness.certificates import self_signed
from harness.dns_sockets import WEB, receive, udp_client
from harness.dns_sockets import serving as serving_names
from harness.names import member, names, opt, option, query


def told(**values: Any) -> DnsSettings:
    listed = {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
    return convert(DnsSettings, {"listen": ("127.0.0.1:0",), "registry": "memory:x", **listed}, where="test")


async def opened(**values: Any) -> Front:
    """A front as the daemon makes it; opened and closed again."""
    settings, front = told(**values), Front(lambda: 0.0)
    followed = prepare(settings, front, "1", "one")
    async with serving(settings, front, Counts(), followed):
        return front


@pytest.mark.parametrize(
    ("key", "values"),
    [
        ("allow_query", {"allow_query": ["10.0.0.0/33"]}),
        ("proxied_by", {"proxied_by": ["proxy.example"]}),
        ("rate_exempt", {"rate_exempt": ["10.0.0.1/8"]}),
        ("zone_access", {"zone_access": {"corp.mesos": ["10.0.0.0/33"]}}),
        ("zone_access", {"zone_access": {"": ["private"]}}),
        ("require_cookies", {"require_cookies": "tcp-or-cookie"}),
        ("rate_answers", {"rate_answers": -1}),
        ("rate_slip", {"rate_slip": 11}),
        ("rate_window_s", {"rate_window_s": 0}),
        ("rate_v4_bits", {"rate_v4_bits": 33}),
        ("rate_v6_bits", {"rate_v6_bits": 0}),
        ("tcp_queries", {"tcp_queries": 0}),
        ("nsid", {"nsid": "n" * 65}),
        ("https_path", {"https_path": "dns-query"}),
        ("certificate", {"listen_tls": ["127.0.0.1:0"]}),
        ("certificate", {"listen_https": ["127.0.0.1:0"], "certificate": "/nowhere/cert.pem"}),
        ("cookie_secrets", {"cookie_secrets": "/nowhere/secrets"}),
        ("proxied", {"proxied": ["127.0.0.1:5353"]}),
        ("listen_tls", {"listen_tls": ["localhost:853"], "certificate": "CERT"}),
        ("listen_https", {"listen_https": ["192.0.2.1:443"], "certificate": "CERT"}),
    ],
)
async def test_what_cannot_be_is_named(tmp_path: Path, key: str, values: dict[str, Any]) -> None:
    """BadSettings with the key, and nothing stays open."""
    if values.get("certificate") == "CERT":
        cert, key_file = self_signed(tmp_path)
        values = {**values, "certificate": str(cert), "certificate_key": str(key_file)}

    with pytest.raises(BadSettings, match=f"^{key}: "):
        await opened(**values)


async def test_a_key_may_stand_in_the_certificates_file(tmp_path: Path) -> None:
    """As HAProxy wants it."""
    cert, key = self_signed(tmp_path)
    both = tmp_path / "both.pem"
    both.write_text(cert.read_text() + key.read_text())

    await opened(listen_tls=["127.0.0.1:0"], listen_https=["127.0.0.1:0"], certificate=str(both))


async def test_without_settings_nothing_is_limited_told_or_refused() -> None:
    """The defaults: everyone may ask, no cookies, no names of the server, no rate."""
    front = await opened()

    assert (True, None, None) == (front.views.query.everyone, front.cookies, front.limiter)
    assert (b"", ()) == (front.identity.nsid, front.identity.chaos)


async def test_rates_are_those_of_the_settings(tmp_path: Path) -> None:
    """Each kind its own; CHAOS names and NSID when they are wanted."""
    secrets = tmp_path / "secrets"
    secrets.write_text("ab" * 16)
    front = await opened(
        rate_answers=5, rate_errors=2, rate_slip=0, chaos=True, nsid="dns-1", cookie_secrets=str(secrets)
    )

    assert front.limiter is not None
    assert {Kind.ANSWER: 5, Kind.NODATA: 0, Kind.NXDOMAIN: 0, Kind.ERROR: 2} == front.limiter.rates.per_second
    assert (0, b"dns-1", 4) == (front.limiter.rates.slip, front.identity.nsid, len(front.identity.chaos))
    assert front.cookies is not None
    assert (bytes.fromhex("ab" * 16),) == front.cookies.secrets


async def test_a_broken_file_leaves_what_was_read(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The new text is not taken and the log says why; the next good one is."""
    file, taken = tmp_path / "numbers", []
    file.write_text("1")
    followed = text_file("numbers", file, lambda text: taken.append(int(text)))
    followed.first()
    for text in ("x", "22", ""):
        file.write_text(text)
        await followed.look()
    file.unlink()
    await followed.look()

    assert [1, 22] == taken
    assert 2 == caplog.text.count("changed files not taken")


def test_a_key_of_another_certificate_is_not_taken(tmp_path: Path) -> None:
    """Half of a renewal: both files are tried on a context of their own first."""
    cert, key = self_signed(tmp_path)
    context = tls_context(("dot",))
    followed: Followed = certificate(cert, key, (context,))
    followed.first()
    (tmp_path / "new").mkdir()
    new_cert, new_key = self_signed(tmp_path / "new")
    cert.write_bytes(new_cert.read_bytes())

    with pytest.raises(BadSettings, match="certificate: cannot use"):
        followed.load()
    key.write_bytes(new_key.read_bytes())
    followed.load()


async def test_a_flood_is_limited_on_the_wire() -> None:
    """Fifty equal questions at once: five answers, half of the others cut; with a cookie all are answered."""
    made = names(member())
    made.front.limiter = Limiter(Rates(per_second=dict.fromkeys(Kind, 5)))
    made.front.clock = lambda: 1000.0
    async with serving_names(made) as served:
        client = await udp_client(served.port)
        for number in range(50):
            client.send(query(WEB, number=number))
        replies = [await receive(client) for _ in range(5 + 22)]
        await asyncio.sleep(0.05)
        with pytest.raises(BlockingIOError):
            client.recv(512)
        client.close()

    assert [False] * 5 + [True] * 22 == [bool(reply[2] & 2) for reply in replies]
    assert 23 == served.counts.silences


def test_a_prebuilt_packet_is_limited_too() -> None:
    """The UDP loop does not look into the tables while there is a limit."""
    made = names(member())
    made.front.limiter = Limiter(Rates(per_second=dict.fromkeys(Kind, 1), slip=0))
    made.front.clock = lambda: 1000.0
    plain, other = query(WEB, opt=opt()), query(WEB, opt=opt(options=option(100)))
    found = [made.front.reply(packet, Came(Transport.UDP, "10.0.0.1")) for packet in (plain, plain, other)]

    assert [True, False, False] == [reply is not None for reply in found]
