"""What a program may call a service: its key, an app id, or any Mesos-DNS name of it, with or without a port's name.

marathon:/shop/web    /shop/web    web-shop.marathon.mesos    _web-shop._tcp.marathon.mesos
_http._web-shop._tcp.marathon.mesos  (the port called http)
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache

from fairlead_daemon.errors import Refused
from fairlead_discovery.decisions import dns_labels
from fairlead_discovery.records import Member

APPS = "marathon"
"""The framework that a bare app id is of."""
PROTOCOLS = ("_tcp", "_udp")


@dataclass(frozen=True, slots=True)
class Wanted:
    """A service key, or else labels as text (`web-shop.marathon`), and which port ("": the first)."""

    service: str = ""
    dns: str = ""
    port: str = ""


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

    def take(self, members: Members) -> None:
        for service in self._seen.keys() | members.keys():
            now = members.get(service, {})
            if self._seen.get(service) is not now:
                self._put(service, frozenset(self._of(now)))
        self._seen = members

    def services(self, dns: str) -> frozenset[str]:
        return frozenset(self._services.get(dns, ()))

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
