"""Why a name that is not ours is answered as it is: local zone, cache, which upstreams and how they are doing."""

from collections.abc import Iterator

import msgspec

from fairlead_dns.decisions import wire
from fairlead_dns.decisions.forward import Forwarding
from fairlead_dns.decisions.forward_cache import Entry, Key
from fairlead_dns.decisions.forward_local import Local
from fairlead_dns.decisions.forward_upstreams import Circuit, Group


class UpstreamRow(msgspec.Struct, frozen=True, kw_only=True):
    """`circuit`: closed (asked), suspect (asked when no other can be) or open (not asked). `trip_ms` None: unknown."""

    zone: str
    upstream: str
    circuit: str
    trip_ms: float | None
    looping: bool


class Forwarded(msgspec.Struct, frozen=True, kw_only=True):
    """`cached`: "" for nothing, `fresh`, `stale` or `failure`, which counts for `seconds` more (stale: since when)."""

    verdict: str
    """`forwarded`, `answered` (a local zone) or `refused`."""
    says: tuple[str, ...]
    zone: str = ""
    upstreams: tuple[UpstreamRow, ...] = ()
    cached: str = ""
    seconds: float = 0.0


def rows(group: Group) -> tuple[UpstreamRow, ...]:
    zone = "." if group.zone == b"\0" else wire.text(group.zone)
    return tuple(
        UpstreamRow(
            zone=zone,
            upstream=str(each.place),
            circuit=each.circuit.value,
            trip_ms=round(each.trip_s * 1000, 2) if each.trip_s else None,
            looping=each.looping,
        )
        for each in group.upstreams
    )


def forwarded(forwarding: Forwarding, name: bytes, kind: int, *, recursion: bool, now_s: float) -> Forwarded:
    """In the order in which Forwarding.ask decides, for a query without DO and CD. `recursion`: whether the client may."""
    label = f"{wire.text(name)} {wire.TYPE_NAMES.get(kind, f'TYPE{kind}')}"
    if not recursion:
        return Forwarded(
            verdict="refused",
            says=(f"{label}: refused, other names are looked up only for the networks of `recursion`",),
        )
    starts = tuple(_starts(name))
    group = forwarding.zones.find(name, starts)
    here = Local.find(name, starts) if forwarding.local_zones else None
    if here is not None and (group is None or len(group.zone) < len(name) - here.start):
        zone = wire.text(name[here.start :])
        return Forwarded(
            verdict="answered",
            says=(f"{label}: answered here, never sent on: {zone} is a local zone (see `local_zones`)",),
            zone=zone,
        )
    if group is None:
        return Forwarded(verdict="refused", says=(f"{label}: refused, no upstream is set for it (see `resolvers`)",))
    found = rows(group)
    entry = forwarding.cache.entries.get(Key(name, kind, do=False, cd=False))
    cached, seconds, sentence = _cached(entry, now_s)
    zone = "." if group.zone == b"\0" else wire.text(group.zone)
    return Forwarded(
        verdict="forwarded",
        says=(f"{label}: forwarded to the upstreams of {zone}", *_of_upstreams(group, found), sentence),
        zone=zone,
        upstreams=found,
        cached=cached,
        seconds=round(seconds, 1),
    )


def _starts(name: bytes) -> Iterator[int]:
    at = 0
    while name[at]:
        yield at
        at += name[at] + 1


def _cached(entry: Entry | None, now_s: float) -> tuple[str, float, str]:
    """What of the cache counts, for how long, and in words."""
    if entry is None:
        return "", 0.0, "cache: nothing, the next question goes to an upstream"
    left_s = entry.stored_s + entry.keep_s - now_s
    if entry.failure is not None and left_s > 0:
        return "failure", left_s, f"cache: {entry.failure.text}; SERVFAIL for {left_s:.0f} s more"
    if entry.failure is not None:
        return "", 0.0, "cache: the last try failed, the next question goes to an upstream"
    if left_s > 0:
        return "fresh", left_s, f"cache: answered from it for {left_s:.0f} s more"
    return "stale", -left_s, f"cache: {-left_s:.0f} s past its time, given only while no upstream answers"


def _of_upstreams(group: Group, found: tuple[UpstreamRow, ...]) -> Iterator[str]:
    if not found:
        yield "no upstream is known: SERVFAIL"
    for row in found:
        trip = f", {row.trip_ms:g} ms" if row.trip_ms is not None else ""
        loop = ", it leads back to this server" if row.looping else ""
        yield f"upstream {row.upstream}: {row.circuit}{trip}{loop}"
    if found and all(each.circuit is Circuit.OPEN for each in group.upstreams):
        yield "every upstream is out of order: what is past its time is given, else SERVFAIL"
