"""Which services have the same names, and which names were too long for a label: what a person must be told.

Mesos-DNS gave `/a.b` and `/b/a` one name, and `Web_1` and `web-1` of one framework too. Such a name goes on meaning all of
them; beside it each has one of its own, with a digest of its key: `web-1-1a2b3c4d.marathon.mesos`.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple

from fairlead_discovery.decisions import dns_labels as labels
from fairlead_discovery.records import Member, Portless
from fairlead_dns.decisions import dialects, naming, wire
from fairlead_dns.decisions.hosts import Hosts
from fairlead_dns.decisions.naming import Rules

DIGEST = 8


@dataclass(slots=True)
class Claims:
    """Owned by one task. A change costs the names of the tasks that changed."""

    rules: Rules
    counts: dict[str, dict[str, int]] = field(default_factory=dict)
    """Service -> shared name (`web.marathon`, `web.shop.svc`) -> how many of its tasks have it."""
    holders: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Shared name -> the services that have it."""
    shared: set[str] = field(default_factory=set)
    """Of these, the names that more than one service has."""
    cut: dict[str, dict[str, int]] = field(default_factory=dict)
    """Service -> name that was too long, or is not published as it is written -> how many of its tasks have it."""
    hosts: dict[str, Hosts] = field(default_factory=dict)
    """The same of frameworks and agents, by kind."""

    def host(self, kind: str, found: Hosts) -> frozenset[str]:
        """Takes what there is of one kind, and returns those that are told apart."""
        self.hosts[kind] = found
        return found.rivals

    def take(
        self, service: str, *, added: Iterable[Member | Portless] = (), removed: Iterable[Member | Portless] = ()
    ) -> set[str]:
        """Returns the services whose `rival` may be another now."""
        moved: set[str] = set()
        for task in added:
            for name in called(task, self.rules):
                if _count(self.counts, service, name, 1):
                    moved |= self._hold(name, (*self.holders.get(name, ()), service))
            for name in too_long(task, self.rules):
                _count(self.cut, service, name, 1)
        for task in removed:
            for name in called(task, self.rules):
                if _count(self.counts, service, name, -1):
                    moved |= self._hold(name, tuple(s for s in self.holders[name] if s != service))
            for name in too_long(task, self.rules):
                _count(self.cut, service, name, -1)
        return moved

    def rival(self, service: str) -> str:
        """Not "" when another service has one of its names: the digest that tells this one apart."""
        if self.shared and any(name in self.shared for name in self.counts.get(service, ())):
            return digest(service)
        return ""

    def collisions(self) -> Mapping[str, tuple[str, ...]]:
        """Shared name -> its services, of those that have more than one; frameworks and agents too."""
        found = {name: tuple(sorted(self.holders[name])) for name in sorted(self.shared)}
        for hosts in self.hosts.values():
            found.update(hosts.shared)
        return found

    def shortened(self) -> Mapping[str, tuple[str, ...]]:
        """Service, `framework F` or `agent box` -> what of it is not published as it is written."""
        found = {service: tuple(names) for service, names in self.cut.items()}
        for hosts in self.hosts.values():
            found.update(hosts.cut)
        return found

    @property
    def shared_count(self) -> int:
        return len(self.shared) + sum(len(hosts.shared) for hosts in self.hosts.values())

    @property
    def cut_count(self) -> int:
        return len(self.cut) + sum(len(hosts.cut) for hosts in self.hosts.values())

    def _hold(self, name: str, services: tuple[str, ...]) -> set[str]:
        before = self.holders.pop(name, ())
        if services:
            self.holders[name] = services
        if len(services) > 1:
            self.shared.add(name)
        else:
            self.shared.discard(name)
        return {*before, *services} if len(before) > 1 or len(services) > 1 else set()


def digest(service: str) -> str:
    return hashlib.sha256(service.encode("utf-8", "surrogatepass")).hexdigest()[:DIGEST]


def called(task: Member | Portless, rules: Rules) -> tuple[str, ...]:
    """The names that all tasks of a service have in common, one for each place where others may have it too."""
    names = _mesos(task.task.name, task.discovery.name, task.task.framework, rules.rfc952)
    return (*names, *_foreign(task, rules)) if rules.dialects else names


@lru_cache(maxsize=16384)
def _mesos(name: str, discovery: str, framework: str, rfc952: bool) -> tuple[str, ...]:  # a cache's key
    spec = labels.rfc952 if rfc952 else labels.rfc1123
    fragment = naming.framework_labels(framework, spec)
    spoken = labels.spoken_names(name, discovery, spec) if fragment else ()
    return tuple(".".join((*parts, fragment)) for parts in spoken if parts[-1])


def _foreign(task: Member | Portless, rules: Rules) -> Iterator[str]:
    one = naming.instance(task, rules)
    for dialect in rules.dialects:
        if dialect.kind == "consul":
            yield from (f"{label}.service" for label in dialects.consul_services(one, rules))
        if dialect.kind == "kubernetes":
            yield from (f"{label}.{namespace}.svc" for label, namespace in dialects.kubernetes_services(one, rules))


def too_long(task: Member | Portless, rules: Rules) -> tuple[str, ...]:
    """What was cut: the task's name, also at its ends (`_x` -> `x`) or down to nothing, its name with hash and agent, a
    port's name, a whole name over 255 bytes; and a raw discovery name that is left out.
    """
    ports = tuple(port.name for port in task.ports) if isinstance(task, Member) else ()
    tail = labels.HASH_LENGTH + len(labels.agent_tail(task.task.agent)) + 2
    discovery = task.discovery.name
    found = _too_long(discovery or task.task.name, tail, ports, rules.rfc952)
    called_ = discovery or task.task.name
    if called_ and called_ not in found and not _is_as_written(called_, raw=bool(discovery), spec=rules.spec):
        found = (*found, called_)
    most = max((min(len(port), labels.LABEL_LIMIT - 1) + 2 for port in ports), default=0)
    names = _Names(task.task.name, discovery, task.task.framework, rules.domain, rules.rfc952, tail, most)
    return (*found, *_over_limit(names))


@lru_cache(maxsize=16384)
def _is_as_written(name: str, *, raw: bool, spec: labels.Spec) -> bool:
    """But for case, and `-` in place of what may not stand in a label."""
    return labels.is_speakable(name) if raw else bool(spec(name)) and spec(name) == labels.legal(name)


class _Names(NamedTuple):
    """What a task is called by. `tail`: of an instance's label; `port`: of the longest port's label, with its dot."""

    task: str
    discovery: str
    framework: str
    domain: str
    rfc952: bool
    tail: int
    port: int


@lru_cache(maxsize=16384)
def _over_limit(names: _Names) -> tuple[str, ...]:
    """Those of the shared names below which something is over 255 bytes."""
    spec = labels.rfc952 if names.rfc952 else labels.rfc1123
    fragment = naming.framework_labels(names.framework, spec)
    found = []
    for parts in labels.spoken_names(names.task, names.discovery, spec) if fragment else ():
        shared = ".".join((*parts, fragment))
        instance = min(labels.LABEL_LIMIT - len(parts[-1]), names.tail)
        ports = len("_") + len("._tcp") + names.port
        if len(f"{shared}.slave.{names.domain}.") + 1 + max(instance, ports) > wire.NAME_LIMIT:
            found.append(shared)
    return tuple(found)


@lru_cache(maxsize=16384)
def _too_long(name: str, tail: int, ports: tuple[str, ...], rfc952: bool) -> tuple[str, ...]:  # see above
    spec, limit = (labels.rfc952, labels.RFC952_LIMIT) if rfc952 else (labels.rfc1123, labels.LABEL_LIMIT)
    found = [text for text in (name, *ports) if len(text) > limit and len(labels.legal(text).strip("-")) > limit]
    if not found and len(spec(name)) + tail > labels.LABEL_LIMIT:
        found.append(name)
    return tuple(found)


def _count(counts: dict[str, dict[str, int]], service: str, name: str, change: int) -> bool:
    """Whether that was the first or the last."""
    of_service = counts.setdefault(service, {})
    before = of_service.get(name, 0)
    of_service[name] = before + change
    if not of_service[name]:
        del of_service[name]
    if not of_service:
        del counts[service]
    return not before or before + change == 0
