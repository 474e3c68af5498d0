"""What a program may call a service: its key, an app id, or any Mesos-DNS name of it, with or without a port's name.

marathon:/shop/web    /shop/web    web-shop.marathon.mesos    _web-shop._tcp.marathon.mesos
_http._web-shop._tcp.marathon.mesos  (the port called http)
web-shop-iffe9-s0.marathon.mesos     (one instance: its task's hash, its agent's tail)
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache

from fairlead_daemon.errors import Refused
from fairlead_discovery.decisions import dns_labels
from fairlead_discovery.records import Member

APPS = "marathon"
"""The framework that a bare app id is of."""
PROTOCOLS = ("_tcp", "_udp")
_SUFFIX = re.compile(rf"(.+)-([{dns_labels.ZBASE32}]{{{dns_labels.HASH_LENGTH}}})-([^-]*)\Z")


@dataclass(frozen=True, slots=True, kw_only=True)
class Naming:
    """How DNS names are made: as the name servers' settings `domain` and `enforce_rfc952` say."""

    domain: str = "mesos"
    rfc952: bool = False

    @property
    def spec(self) -> dns_labels.Spec:
        return dns_labels.rfc952 if self.rfc952 else dns_labels.rfc1123


@dataclass(frozen=True, slots=True)
class Wanted:
    """A service key, or else labels as text (`web-shop.marathon`), and which port ("": the first)."""

    service: str = ""
    dns: str = ""
    port: str = ""


@dataclass(frozen=True, slots=True)
class Instance:
    """What tells one instance in a name of Mesos-DNS: `web-iffe9-s0`."""

    hash: str
    tail: str

    def fits(self, member: Member) -> bool:
        tail = dns_labels.agent_tail(member.task.agent)
        return self.tail == tail and self.hash == dns_labels.task_hash(member.task.id)


@dataclass(frozen=True, slots=True)
class Meant:
    """A service, or one instance of it."""

    service: str
    instance: Instance | None = None

    def of(self, members: Iterable[Member]) -> Iterator[Member]:
        return (member for member in members if self.instance is None or self.instance.fits(member))


def instances(dns: str) -> Iterator[tuple[str, Instance]]:
    """Each way to read a name as one of an instance: the service's name, and which. Any label may bear the suffix, for
    names and frameworks have dots.
    """
    labels = dns.split(".")
    for at, label in enumerate(labels):
        found = _SUFFIX.match(label)
        if found is not None:
            yield ".".join((*labels[:at], found[1], *labels[at + 1 :])), Instance(found[2], found[3])


def parse(name: str, *, domain: str) -> Wanted:
    """Raises Refused for what is no name of a service."""
    if ":" in name:
        return Wanted(service=name)
    if name.startswith("/"):
        return Wanted(service=f"{APPS}:{name}")
    labels = name.lower().rstrip(".").removesuffix(f".{domain}")
    if not labels or labels == name.lower().rstrip("."):
        raise Refused(f"{name!r} names no service: expected a key (marathon:/web), an app id or a name below {domain}")
    return _srv(labels.split(".")) if labels.startswith("_") else Wanted(dns=labels.removesuffix(".slave"))


def _srv(labels: list[str]) -> Wanted:
    at = next((i for i, label in enumerate(labels) if label in PROTOCOLS), len(labels))
    task, rest = labels[:at], labels[at + 1 :]
    port = ""
    if len(task) > 1 and task[1].startswith("_"):
        port, task = task[0][1:], task[1:]
    dns = ".".join([task[0].removeprefix("_"), *task[1:], *rest])
    return Wanted(dns=dns.removesuffix(".slave"), port=port)


@lru_cache(maxsize=16384)
def dns_names(task: str, discovery: str, framework: str, spec: dns_labels.Spec) -> frozenset[str]:
    """All that Mesos-DNS calls a task, without the domain: `web-shop.marathon`. Kept: a service's tasks share them."""
    fragment = dns_labels.domain_fragment(framework, spec)
    spoken = dns_labels.spoken_names(task, discovery, spec) if fragment else ()
    return frozenset(".".join((*labels, fragment)) for labels in spoken if labels[-1])


Members = Mapping[str, Mapping[str, Member]]


@dataclass(slots=True)
class NameIndex:
    """Services by DNS name, brought up to date by what changed. Names that two services share mean both, as in DNS."""

    spec: dns_labels.Spec
    _names: dict[str, frozenset[str]] = field(default_factory=dict)
    _services: dict[str, set[str]] = field(default_factory=dict)
    _seen: Members = field(default_factory=dict)

    def take(self, members: Members, changed: Iterable[str] | None = None) -> None:
        """`changed`: services that may be others than at the last time; None: all of them."""
        for service in self._seen.keys() | members.keys() if changed is None else changed:
            now = members.get(service, {})
            if self._seen.get(service) is not now:
                self._put(service, frozenset(self._of(now)))
        self._seen = members

    def services(self, dns: str) -> frozenset[str]:
        return frozenset(self._services.get(dns, ()))

    def names(self, service: str) -> frozenset[str]:
        """Without the domain."""
        return self._names.get(service, frozenset())

    def meant(self, wanted: Wanted) -> frozenset[Meant]:
        """A key means its service, though there may be none."""
        if wanted.service:
            return frozenset({Meant(wanted.service)})
        whole = {Meant(service) for service in self.services(wanted.dns)}
        parts = {Meant(service, one) for dns, one in instances(wanted.dns) for service in self.services(dns)}
        return frozenset(whole | parts)

    def _of(self, members: Mapping[str, Member]) -> Iterator[str]:
        for member in members.values():
            yield from dns_names(member.task.name, member.discovery.name, member.task.framework, self.spec)

    def _put(self, service: str, names: frozenset[str]) -> None:
        before = self._names.pop(service, frozenset())
        if names:
            self._names[service] = names
        for gone in before - names:
            self._services[gone].discard(service)
            if not self._services[gone]:
                del self._services[gone]
        for new in names - before:
            self._services.setdefault(new, set()).add(service)
