"""How much longer than its query a reply of `fairlead dns` over UDP can be: what an attacker with a forged address gains.

    python benchmarks/amplification.py

Bytes of UDP payload, reply over query, the worst over every name of a zone and many types, for each kind of query; then
what comes back of a flood of the worst query, 1,000 a second for 30 seconds, under the rate limit. No socket and no
clock: the front is asked as the UDP loop asks it, so that the figures are the same on every machine.
"""

import random
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from fairlead_discovery.records import Discovery, Ips, Member
from fairlead_dns.decisions import wire
from fairlead_dns.decisions.asked import Came, Transport
from fairlead_dns.decisions.cookies import Cookies
from fairlead_dns.decisions.front import Front
from fairlead_dns.decisions.rate import Kind, Limiter, Rates
from harness.names import TYPES, member, names, opt, option, query

SERVICES, ENDPOINTS = 50, 60
KINDS = ("A", "AAAA", "SRV", "TXT", "NS", "SOA", "PTR", "ANY", "DNSKEY", "HTTPS")
FLOOD_PER_S, FLOOD_S = 1000, 30
RATE = 5
VICTIM = "192.0.2.1"
ASKED = {
    "no EDNS": b"",
    "EDNS 1232": opt(1232),
    "EDNS 4096, DO": opt(4096, flags=0x8000),
    "EDNS 4096, a new cookie, NSID": opt(4096, options=option(10, b"abcdefgh") + option(3)),
}


@dataclass(frozen=True, slots=True, order=True)
class Worst:
    ratio: float
    query_bytes: int
    reply_bytes: int
    what: str
    packet: bytes


def endpoint(service: int, number: int) -> Member:
    ips = Ips(host=(f"10.{service}.0.{number + 1}",))
    return member(number, name=f"w{service}", discovery=Discovery(name=f"w{service}", given=True), ips=ips)


def served(clock: list[float]) -> tuple[Front, list[str]]:
    """A front over a zone of ours, and the zone's names."""
    made = names(*(endpoint(s, n) for s in range(SERVICES) for n in range(1 + s * ENDPOINTS // SERVICES)))
    made.front.clock = lambda: clock[0]
    made.front.cookies = Cookies((random.Random(1).randbytes(16),))
    return made.front, [wire.text(owner) for owner in made.zone.names]


def measured(front: Front, packet: bytes, what: str) -> Iterator[Worst]:
    reply = front.reply(packet, Came(Transport.UDP, VICTIM))
    if isinstance(reply, bytes):
        yield Worst(len(reply) / len(packet), len(packet), len(reply), what, packet)


def worst(front: Front, owners: list[str], extra: bytes) -> Worst:
    """Of all names with records, names above them, the apex and names that are not there or not ours."""
    others = ["mesos", "marathon.mesos", "nope.mesos", "x", "example.com"]
    found = (
        each
        for name in [*owners, *others]
        for kind in KINDS
        for each in measured(front, query(name, TYPES.get(kind, 65), opt=extra), f"{name} {kind}")
    )
    return max(found)


def flooded(front: Front, packet: bytes, clock: list[float], rates: Rates) -> float:
    """Bytes that come back to the victim for each byte sent."""
    front.limiter = Limiter(rates)
    back = 0
    for _ in range(FLOOD_PER_S * FLOOD_S):
        clock[0] += 1 / FLOOD_PER_S
        reply = front.reply(packet, Came(Transport.UDP, VICTIM))
        back += len(reply) if isinstance(reply, bytes) else 0
    front.limiter = None
    return back / (FLOOD_PER_S * FLOOD_S * len(packet))


def main() -> None:
    clock = [1_700_000_000.0]
    front, owners = served(clock)
    print(f"worst reply / query, UDP payload, {len(owners):,} names x {len(KINDS)} types, up to {ENDPOINTS} endpoints")
    found = {kind: worst(front, owners, extra) for kind, extra in ASKED.items()}
    for kind, each in found.items():
        print(f"  {kind:30} {each.ratio:5.1f}  {each.query_bytes:4} -> {each.reply_bytes:4} bytes  {each.what}")
    heaviest = max(found.values())
    print(f"\na flood of the worst, {FLOOD_PER_S:,}/s for {FLOOD_S} s, all from one network")
    limits = dict.fromkeys(Kind, RATE)
    for slip in (2, 0):
        ratio = flooded(front, heaviest.packet, clock, Rates(per_second=limits, slip=slip))
        print(f"  rate_answers={RATE}, rate_slip={slip}         {ratio:5.2f}  (without a limit {heaviest.ratio:.1f})")


if __name__ == "__main__":
    main()
