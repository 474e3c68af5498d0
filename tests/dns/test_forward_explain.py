"""How a name that is not ours is explained."""

from pathlib import Path

import pytest

from fairlead_dns.adapters.forward import Forwarder
from fairlead_dns.decisions import wire
from fairlead_dns.decisions.acl import Acl, parse_networks
from fairlead_dns.decisions.forward import SILENT, Forwarding
from fairlead_dns.decisions.forward_explain import Forwarded, forwarded
from fairlead_dns.decisions.forward_upstreams import Circuit, Place
from harness.dns_api import api
from harness.forwarding import UP, asked, fly, forwarding, replied

CORP = Place("10.0.0.3", 53, "tls", "dns.corp")


def explained(made: Forwarding, name: str = "www.example", *, recursion: bool = True, now_s: float = 10.0) -> Forwarded:
    return forwarded(made, wire.parse_text(name) or b"", wire.A, recursion=recursion, now_s=now_s)


def test_the_longest_zones_upstreams_are_told() -> None:
    """Those that would be asked, and no others."""
    made = forwarding(corp=CORP)
    found = [explained(made, name) for name in ("a.corp", "www.example")]

    assert [("corp", [str(CORP)]), (".", [str(UP)])] == [(f.zone, [row.upstream for row in f.upstreams]) for f in found]
    assert ["forwarded", "forwarded"] == [f.verdict for f in found]


@pytest.mark.parametrize(
    ("name", "recursion", "verdict", "says"),
    [
        ("www.example", False, "refused", "`recursion`"),
        ("1.0.168.192.in-addr.arpa", True, "answered", "168.192.in-addr.arpa is a local zone"),
        ("elsewhere", True, "refused", "`resolvers`"),
    ],
)
def test_what_is_not_sent_on_says_why(name: str, recursion: bool, verdict: str, says: str) -> None:
    """By whom it may be asked, where it ends, that nobody is there to be asked."""
    made = forwarding(corp=CORP, example=UP)
    made.zones = type(made.zones)({zone: group for zone, group in made.zones.groups.items() if zone != b"\0"})
    found = explained(made, name, recursion=recursion)

    assert (verdict, ()) == (found.verdict, found.upstreams)
    assert says in found.says[0]


def test_the_cache_is_told() -> None:
    """Nothing, an answer while it counts, and past its time; looking changes nothing."""
    made = forwarding()
    before = explained(made)
    fly(made, asked(), replied("192.0.2.1"))
    (entry,) = made.cache.entries.values()
    after = [explained(made, now_s=now_s) for now_s in (1.0, entry.keep_s + 1.0)]

    assert ["", "fresh", "stale"] == [f.cached for f in (before, *after)]
    assert [entry.keep_s - 1.0, 1.0] == [f.seconds for f in after]
    assert 0 == entry.hits


def test_failures_and_circuits_are_told() -> None:
    """The reason that clients get, and that nobody is asked any more."""
    made = forwarding()
    fly(made, asked(), SILENT)
    (upstream,) = made.zones.upstreams()
    upstream.probe_failed(0.0)
    upstream.trip_s = 0.012
    found = explained(made, now_s=1.0)

    assert ("failure", "open", 12.0) == (found.cached, found.upstreams[0].circuit, found.upstreams[0].trip_ms)
    assert any(SILENT.text in sentence for sentence in found.says)
    assert any("every upstream is out of order" in sentence for sentence in found.says)


async def test_the_pages_tell_of_forwarding(tmp_path: Path) -> None:
    """`/v2/explain` for a name that is sent on and for a client that may not; `/v2/status` of every upstream."""
    served = await api(tmp_path)
    try:
        nothing = await served.page("status")
        made = forwarding(corp=CORP)
        front = served.names.front
        front.views.recursion = Acl(parse_networks(("10.0.0.0/8",)))
        for zone in made.zones.groups:
            front.serve(zone, Forwarder(made), recursive=True)
        made.zones.upstreams()[0].circuit = Circuit.SUSPECT
        ours, theirs = [await served.page("explain", name="www.example", client=ip) for ip in ("10.1.1.1", "192.0.2.1")]
        status = await served.page("status")
    finally:
        await served.client.close()

    assert None is nothing["forwarding"]
    assert ("forwarded", "refused") == (ours["verdict"], theirs["verdict"])
    assert "suspect" == ours["forwarded"]["upstreams"][0]["circuit"]
    assert [(".", str(UP), "suspect"), ("corp", str(CORP), "closed")] == [
        (row["zone"], row["upstream"], row["circuit"]) for row in status["forwarding"]["upstreams"]
    ]
