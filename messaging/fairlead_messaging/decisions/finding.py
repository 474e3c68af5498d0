"""Where a broker is: by the addresses of its declaration, or wherever its service stands in the registry now."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

from fairlead_discovery.paths import split_service_key
from fairlead_discovery.records import Member
from fairlead_messaging.decisions.declared import Broker
from fairlead_messaging.decisions.wanted import Place

Members = Mapping[str, Mapping[str, Member]]
"""As in a snapshot: by service key, then by node name."""


def place(broker: Broker, login: tuple[str, str], members: Members) -> Place:
    """`login` is user and password. A broker that is not found has a `why` and no addresses."""
    user, password = login
    if not broker.service:
        return Place(management=broker.management, amqp=tuple(sorted(broker.amqp)), user=user, password=password)
    found = members_of(broker.service, members)
    management = addresses(found, broker.management_port)
    amqp = addresses(found, broker.amqp_port)
    return Place(
        management=f"http://{management[0]}" if management else "",
        amqp=tuple(f"amqp://{address}" for address in amqp),
        user=user,
        password=password,
        why=_why(broker, found, management, amqp),
    )


def _why(broker: Broker, found: Sequence[Member], management: Sequence[str], amqp: Sequence[str]) -> str:
    if not found:
        return f"service {broker.service} has no endpoint in the registry"
    for port, addresses_ in ((broker.management_port, management), (broker.amqp_port, amqp)):
        if not addresses_:
            return f"service {broker.service} has no port {port}"
    return ""


def members_of(service: str, members: Members) -> tuple[Member, ...]:
    """Of `marathon:/shop/broker`, `/shop/broker`, or `broker-shop.marathon.mesos`; in the order of their names."""
    for key, nodes in members.items():
        if service in {key, split_service_key(key)[1]} or _called(service, nodes.values()):
            return tuple(nodes[name] for name in sorted(nodes))
    return ()


def addresses(members: Iterable[Member], port: str) -> tuple[str, ...]:
    """`host:port` of the port with that name or index."""
    return tuple(
        f"{member.serviceEndpoint.host}:{one.host_port}"
        for member in members
        for one in member.ports
        if port in {one.name, str(one.index)}
    )


def _called(name: str, members: Iterable[Member]) -> bool:
    """Whether a DNS name is one of theirs, whatever the domain: `broker-shop.marathon.` and anything."""
    return any(f"{name.rstrip('.').lower()}.".startswith(own) for member in members for own in _dns_names(member))


def _dns_names(member: Member) -> Iterator[str]:
    framework = ".".join(filter(None, map(_label, member.task.framework.split("."))))
    for name in dict.fromkeys((member.discovery.name or member.task.name, member.task.name)):
        if label := _label(name):
            yield f"{label}.{framework}."


def _label(text: str) -> str:
    """The usual part of the name servers' rule for labels: `Web_Shop.2` -> `web-shop-2`."""
    return re.sub(r"[^a-z0-9-]", "", re.sub(r"[._]", "-", text.lower()))[:63].strip("-")
