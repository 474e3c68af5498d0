"""Policies that an operator writes: `[[split]]`, `[[failover]]`, `[[router]]`, `[[resolver]]` and `[[intention]]` in TOML, or in options of
a verb.
"""

import re
import tomllib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from fairlead_daemon.errors import Refused
from fairlead_discovery import paths
from fairlead_discovery.decisions import words
from fairlead_discovery.policies import (
    AnyPolicy,
    Canary,
    Failover,
    Intentions,
    Resolver,
    Router,
    Share,
    Split,
    Target,
    name_of,
)
from fairlead_lb.decisions import canary as canaries
from fairlead_lb.decisions import intention_files, resolver_files, router_files
from fairlead_lb.decisions.intention_files import IntentionEntry
from fairlead_lb.decisions.splits import checked, checked_failover

_PERCENT = re.compile(r"(\d{1,3}(?:\.\d{1,2})?) ?%?", re.ASCII)
_INDEX = re.compile(r"(.*)#(\d{1,3})", re.DOTALL)


class SplitEntry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """One `[[split]]`. `to`: service, or `service#index` for another port than its first -> percent."""

    service: str
    index: int = 0
    to: Mapping[str, float] = {}
    sticky: str = ""


class FailoverEntry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """One `[[failover]]`. `to`: in their order, as in `[[split]]`."""

    service: str
    index: int = 0
    to: tuple[str, ...] = ()
    min_ready: int = 1
    back_after: str = "10s"


class _File(msgspec.Struct, frozen=True):
    split: tuple[object, ...] = ()
    failover: tuple[object, ...] = ()
    router: tuple[object, ...] = ()
    resolver: tuple[object, ...] = ()
    intention: tuple[object, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyPlan:
    """By the names of nodes (`split~erp:db`)."""

    added: Mapping[str, AnyPolicy]
    changed: Mapping[str, AnyPolicy]
    removed: Mapping[str, AnyPolicy]

    @property
    def empty(self) -> bool:
        return not (self.added or self.changed or self.removed)


def parse(text: str, place: str) -> Mapping[str, AnyPolicy]:
    """Raises Refused naming the file, the entry and the field."""
    try:
        found = msgspec.convert(tomllib.loads(text), _File)
    except (tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        raise Refused(f"{place}: {error}") from error
    made: dict[str, AnyPolicy] = {}
    for kind in ("split", "failover", "router", "resolver"):
        entries = getattr(found, kind)
        for number, entry in enumerate(entries, 1):
            policy = _policy(kind, entry, f"{place}: {kind} {number}")
            if name_of(policy) in made:
                raise Refused(f"{place}: {kind} {number}: {policy.service} is there twice")
            made[name_of(policy)] = policy
    return {**made, **{name_of(i): i for i in intention_files.from_file(found.intention, place).values()}}


def plan(now: Collection[AnyPolicy], wanted: Mapping[str, AnyPolicy], *, prune: bool) -> PolicyPlan:
    """`prune` removes splits, failovers, routers and resolvers that the file does not have; intentions only when it has some, for a file of
    routes alone must not let everybody in. Raises Refused where a canary decides.
    """
    there = {name_of(p): p for p in now if isinstance(p, _WRITTEN | Intentions)}
    pruned = _WRITTEN | Intentions if any(isinstance(p, Intentions) for p in wanted.values()) else _WRITTEN
    going = {p.service for p in now if isinstance(p, Canary)}
    for policy in wanted.values():
        if isinstance(policy, Split) and policy.service in going:
            raise Refused(f"{policy.service}: its canary decides; `fairlead route canary remove` ends that")
    return PolicyPlan(
        added={n: p for n, p in wanted.items() if n not in there},
        changed={n: p for n, p in wanted.items() if n in there and _plain(there[n]) != _plain(p)},
        removed={n: p for n, p in there.items() if n not in wanted and isinstance(p, pruned)} if prune else {},
    )


_WRITTEN = Split | Failover | Router | Resolver
"""What a file has one entry of for each service."""


def entries_of(
    policies: Collection[AnyPolicy],
) -> Iterator[tuple[str, SplitEntry | FailoverEntry | IntentionEntry | dict[str, Any]]]:
    """The other way: the table's name and the entry, as `route show` prints them."""
    for policy in policies:
        if isinstance(policy, Split):
            to = {_named(s.service, s.index): s.percent for s in policy.shares}
            yield "split", SplitEntry(service=policy.service, index=policy.index, to=to, sticky=policy.sticky)
        elif isinstance(policy, Failover):
            yield (
                "failover",
                FailoverEntry(
                    service=policy.service,
                    index=policy.index,
                    to=tuple(_named(t.service, t.index) for t in policy.to),
                    min_ready=policy.min_ready,
                    back_after=words.duration(policy.back_after_s),
                ),
            )
        elif isinstance(policy, Router):
            yield "router", router_files.entry_of(policy)
        elif isinstance(policy, Resolver):
            yield "resolver", resolver_files.entry_of(policy)
        elif isinstance(policy, Intentions):
            yield from (("intention", entry) for entry in intention_files.entries_of(policy))


def _plain(policy: AnyPolicy) -> AnyPolicy:
    return intention_files.ordered(policy) if isinstance(policy, Intentions) else policy


def split_of(entry: SplitEntry, place: str) -> Split:
    """Raises Refused."""
    targets = [(target(to, place), percent) for to, percent in entry.to.items()]
    shares = tuple(Share(service=t.service, index=t.index, percent=percent) for t, percent in targets)
    made = Split(service=_key(entry.service, place), index=entry.index, shares=shares, sticky=entry.sticky)
    try:
        checked(made, "http")
    except Refused as error:
        raise Refused(f"{place}: {error}") from error
    if not shares:
        raise Refused(f"{place}: needs somebody to share with")
    return made


def failover_of(entry: FailoverEntry, place: str) -> Failover:
    """Raises Refused."""
    made = Failover(
        service=_key(entry.service, place),
        index=entry.index,
        to=tuple(target(to, place) for to in entry.to),
        min_ready=entry.min_ready,
        back_after_s=seconds(entry.back_after, f"{place}: back_after"),
    )
    try:
        checked_failover(made)
    except Refused as error:
        raise Refused(f"{place}: {error}") from error
    return made


def canary_of(made: Canary, place: str) -> Canary:
    """The same, if it makes sense. Raises Refused."""
    try:
        canaries.checked(made)
        share = Share(service=made.to.service, index=made.to.index, percent=made.steps[0])
        checked(Split(service=made.service, index=made.index, shares=(share,), sticky=made.sticky), "http")
    except Refused as error:
        raise Refused(f"{place}: {error}") from error
    return made


def target(text: str, place: str) -> Target:
    """`erp:db`, or `erp:db#1` for its port of index 1. Raises Refused."""
    found = _INDEX.fullmatch(text)
    service, index = (found[1], int(found[2])) if found is not None else (text, 0)
    return Target(service=_key(service, place), index=index)


def percent(text: str, place: str) -> float:
    """`5`, `0.5%`, `12.34 %`. Raises Refused."""
    found = _PERCENT.fullmatch(text.strip())
    if found is None:
        raise Refused(f"{place}: {text!r} is no percentage, as 5, 0.25 or 12.5%")
    return float(found[1])


def seconds(text: str, place: str) -> float:
    """`10s`, `1m`. Raises Refused."""
    try:
        return words.seconds(text)
    except words.BadLabel as error:
        raise Refused(f"{place}: {error}") from error


def _policy(kind: str, entry: object, place: str) -> AnyPolicy:
    try:
        if kind == "router":
            return router_files.router_of(entry, place)
        if kind == "resolver":
            return resolver_files.resolver_of(entry, place)
        if kind == "split":
            return split_of(msgspec.convert(entry, SplitEntry), place)
        return failover_of(msgspec.convert(entry, FailoverEntry), place)
    except msgspec.ValidationError as error:
        raise Refused(f"{place}: {error}") from error


def _key(service: str, place: str) -> str:
    framework, name = paths.split_service_key(service)
    if not framework or not name:
        raise Refused(f"{place}: {service}: no service key, as marathon:/shop/web or erp:db")
    return service


def _named(service: str, index: int) -> str:
    return f"{service}#{index}" if index else service
