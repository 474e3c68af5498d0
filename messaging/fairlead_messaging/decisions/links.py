"""Federation links: which must be there (policies x matching objects x upstreams), which the broker lists, and how they are.

A link that never started, or gave up, is absent from the broker's list: only the expected ones tell.
"""

import enum
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from fairlead_messaging.decisions.policies import Target, target_of, winner
from fairlead_messaging.decisions.things import Kind, Thing, Things, uris_of
from fairlead_messaging.decisions.words import reason_in_words

INTERNAL_TYPE = "x-federation-upstream"
PURPOSE = "x-internal-purpose"
UPSTREAM_KINDS = frozenset({Kind.EXCHANGE, Kind.QUEUE})


class State(enum.StrEnum):
    RUNNING = "running"
    STARTING = "starting"
    ERROR = "error"
    MISSING = "missing"
    """Expected and not listed."""
    STRAY = "stray"
    """Listed and not expected."""
    UNKNOWN = "unknown"
    """The broker that would list it does not answer."""


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Link:
    """The identity of a link on one broker. `kind` is "exchange" or "queue"."""

    vhost: str
    kind: str
    name: str
    upstream: str

    def __str__(self) -> str:
        where = f" in {self.vhost}" if self.vhost != "/" else ""
        return f"{self.kind} {self.name}{where} from {self.upstream}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """One row of the broker's list."""

    link: Link
    status: str
    error: str = ""
    node: str = ""
    id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """What is said of one link. `why` is "" when it runs."""

    broker: str
    link: Link
    state: State
    why: str = ""

    def as_json(self) -> dict[str, str]:
        return {
            "broker": self.broker,
            "vhost": self.link.vhost,
            "kind": self.link.kind,
            "name": self.link.name,
            "upstream": self.link.upstream,
            "state": self.state.value,
            "why": self.why,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Expectation:
    """Why a link must be there: the policy, and what the policy names."""

    policy: Thing
    object: Thing
    named: tuple[tuple[Kind, str], ...] = field(default=())
    """Parameters it needs: (UPSTREAM_SET, name), (UPSTREAM, name)."""


def read_listed(rows: Iterable[Mapping[str, Any]]) -> tuple[Listed, ...]:
    """Of `GET /api/federation-links`."""
    return tuple(_read_row(row) for row in rows)


def _read_row(row: Mapping[str, Any]) -> Listed:
    kind = str(row.get("type", "exchange"))
    link = Link(
        vhost=str(row.get("vhost", "/")), kind=kind, name=str(row.get(kind, "")), upstream=str(row.get("upstream", ""))
    )
    return Listed(
        link=link,
        status=str(row.get("status", "")),
        error=str(row.get("error", "")),
        node=str(row.get("node", "")),
        id=str(row.get("id", "")),
    )


# --- expected


def expected(things: Things) -> dict[Link, Expectation]:
    """Every link that what stands on the broker calls for, whoever made it."""
    policies = [thing for key, thing in things.items() if key[0] is Kind.POLICY]
    out: dict[Link, Expectation] = {}
    for thing in things.values():
        if _may_federate(thing):
            target = target_of(thing)
            policy = winner(policies, target)
            if policy is not None:
                out |= dict(_links(thing, target, policy, things))
    return out


def _may_federate(thing: Thing) -> bool:
    if thing.kind not in UPSTREAM_KINDS or not thing.name:
        return False
    body = thing.body
    internal = body.get("internal", False) or body.get("type") == INTERNAL_TYPE or body.get("exclusive", False)
    return not internal and PURPOSE not in body.get("arguments", {})


def _links(thing: Thing, target: Target, policy: Thing, things: Things) -> Iterator[tuple[Link, Expectation]]:
    definition, vhost = policy.body["definition"], thing.vhost
    upstreams = sorted(key[2] for key in things if key[:2] == (Kind.UPSTREAM, vhost))
    named: tuple[tuple[Kind, str], ...] = ()
    wanted: list[str] = []
    if name := definition.get("federation-upstream-set"):
        members = things.get((Kind.UPSTREAM_SET, vhost, name))
        if name == "all" and members is None:
            wanted = upstreams
        else:
            named = ((Kind.UPSTREAM_SET, name),)
            wanted = [str(m.get("upstream")) for m in members.body] if members is not None else []
    elif name := definition.get("federation-upstream"):
        wanted = [name]
    elif pattern := definition.get("federation-upstream-pattern"):
        wanted = [one for one in upstreams if _found(pattern, one)]
    for upstream in wanted:
        link = Link(vhost=vhost, kind=str(target.kind), name=thing.name, upstream=upstream)
        yield link, Expectation(policy=policy, object=thing, named=(*named, (Kind.UPSTREAM, upstream)))


def _found(pattern: str, name: str) -> bool:
    try:
        return re.search(pattern, name) is not None
    except re.error:
        return False


# --- told apart


def judge(
    broker: str, wanted: Mapping[Link, Expectation], actual: Things, listed: Iterable[Listed]
) -> tuple[Judged, ...]:
    """Every expected and every listed link once, in order of their names.

    `wanted` may be ahead of `actual`: what is declared and not applied yet is missing for that reason.
    """
    rows = _worst_first(listed)
    found = [_judge_row(broker, wanted, actual, row) for row in rows.values()]
    missing = [
        Judged(broker=broker, link=link, state=State.MISSING, why=_why_missing(why, actual))
        for link, why in wanted.items()
        if link not in rows
    ]
    return tuple(sorted((*found, *missing), key=lambda judged: judged.link))


def unanswered(broker: str, wanted: Iterable[Link], why: str) -> tuple[Judged, ...]:
    """The links of a broker that does not answer."""
    return tuple(Judged(broker=broker, link=link, state=State.UNKNOWN, why=why) for link in sorted(wanted))


STATES: Mapping[str, State] = {"running": State.RUNNING, "starting": State.STARTING}
RANK = (State.ERROR, State.STARTING, State.RUNNING)


def _worst_first(listed: Iterable[Listed]) -> dict[Link, Listed]:
    """A link may be listed by several nodes (rabbitmq-server 3260): the worst row speaks for it."""
    ordered = sorted(listed, key=lambda row: RANK.index(STATES.get(row.status, State.ERROR)), reverse=True)
    return {row.link: row for row in ordered}


def _judge_row(broker: str, wanted: Mapping[Link, Expectation], actual: Things, row: Listed) -> Judged:
    state = STATES.get(row.status, State.ERROR)
    upstream = actual.get((Kind.UPSTREAM, row.link.vhost, row.link.upstream))
    why = ""
    if state is State.ERROR:
        said = reason_in_words(row.error) if row.error else row.status or "no reason given"
        why = f"{said} at {_address(upstream)}" if upstream is not None else said
    if row.link not in wanted:
        state, why = State.STRAY, "no policy calls for it" + (f"; {why}" if why else "")
    return Judged(broker=broker, link=row.link, state=state, why=why)


def _address(upstream: Thing) -> str:
    """Hosts and ports alone: `127.0.0.1:5672`."""
    hosts = [uri.partition("://")[2].partition("/")[0].rpartition("@")[2] for uri in uris_of(upstream.body)]
    return ", ".join(hosts) or "no address"


def _why_missing(expectation: Expectation, actual: Things) -> str:
    vhost = expectation.policy.vhost
    if expectation.object.key not in actual:
        return f"{expectation.object} is not on the broker"
    for kind, name in expectation.named:
        if (kind, vhost, name) not in actual:
            return f"{kind} {name} is not on the broker"
    if expectation.policy.key not in actual:
        return f"{expectation.policy} is not on the broker"
    return "the broker does not list it: it never started, or gave up"
