"""Which pages are read, how often, and under what names: the registry's word, the settings' where it has none."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

Kind = Literal["metrics", "snapshot", "apps", "agents", "balancer", "links"]
"""How a page is read. Only `metrics` is Prometheus' text."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """One page of one peer. `base` is its address, as `http://127.0.0.1:5050`; "" while nobody knows it."""

    name: str
    role: str
    kind: Kind
    base: str
    every_s: float
    path: str = "/metrics"
    optional: bool = False
    """Absent until it has answered once: it is no fault not to run it."""

    @property
    def key(self) -> str:
        return f"{self.name} {self.kind}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """Addresses by name. Empty ones are unknown."""

    master: str = ""
    services: str = ""
    balancers: Mapping[str, str] = field(default_factory=dict)
    agents: Mapping[str, str] = field(default_factory=dict)
    dns: Sequence[str] = ()
    messaging: str = ""
    brokers: Sequence[str] = ()
    others: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """Seconds between two looks: at whole pages, and at the few that rules wait for."""

    page_s: float
    quick_s: float


def sources(known: Known, pace: Pace) -> dict[str, Source]:
    """By key."""
    found = [
        *_master(known, pace),
        *_services(known, pace),
        *(s for name, base in known.balancers.items() for s in _balancer(name, base, pace)),
        *(_page(_numbered("dns", n, known.dns), "dns", base, pace) for n, base in enumerate(known.dns, 1)),
        *(_page(name, "agent", base, pace) for name, base in known.agents.items()),
        *_messaging(known, pace),
        *(_page(_numbered("rabbitmq", n, known.brokers), "rabbitmq", b, pace) for n, b in enumerate(known.brokers, 1)),
        *(_page(name, "other", base, pace) for name, base in known.others.items()),
    ]
    return {source.key: source for source in found}


def _numbered(role: str, number: int, every: Sequence[str]) -> str:
    return role if len(every) == 1 else f"{role}-{number}"


def _page(name: str, role: str, base: str, pace: Pace) -> Source:
    """`base` may end in a path of its own."""
    host, path = split_path(base)
    return Source(name=name, role=role, kind="metrics", base=host, every_s=pace.page_s, path=path or "/metrics")


def split_path(url: str) -> tuple[str, str]:
    """`http://h:1/metrics/per-object` -> (`http://h:1`, `/metrics/per-object`); without a path "" for it."""
    scheme, sign, rest = url.partition("://")
    host, slash, path = rest.partition("/")
    return f"{scheme}{sign}{host}", f"{slash}{path}" if path else ""


def _master(known: Known, pace: Pace) -> list[Source]:
    return [
        _page("master", "master", known.master, pace),
        Source(
            name="master",
            role="master",
            kind="snapshot",
            base=known.master,
            every_s=pace.page_s,
            path="/metrics/snapshot",
        ),
        Source(name="master", role="master", kind="agents", base=known.master, every_s=pace.quick_s, path="/slaves"),
    ]


def _services(known: Known, pace: Pace) -> list[Source]:
    return [
        _page("services", "services", known.services, pace),
        Source(
            name="services",
            role="services",
            kind="apps",
            base=known.services,
            every_s=pace.quick_s,
            path="/v2/apps",
        ),
    ]


def _balancer(name: str, base: str, pace: Pace) -> list[Source]:
    return [
        _page(name, "lb", base, pace),
        Source(name=name, role="lb", kind="balancer", base=base, every_s=pace.quick_s, path="/status"),
    ]


def _messaging(known: Known, pace: Pace) -> list[Source]:
    if not known.messaging:
        return []
    return [
        Source(
            name="messaging",
            role="messaging",
            kind="metrics",
            base=known.messaging,
            every_s=pace.page_s,
            optional=True,
        ),
        Source(
            name="messaging",
            role="messaging",
            kind="links",
            base=known.messaging,
            every_s=pace.quick_s,
            path="/status",
            optional=True,
        ),
    ]
