"""More records beside Mesos-DNS' own names, each by setting, in the same domain.

numbered_ports   _port0._T._tcp.F.domain   SRV of one port by its number in the definition
svcb             _http.T.F.domain          SVCB (RFC 9460) of a named port: target and port in one answer
                 T.F.domain                HTTPS, for the port called `https`: browsers find it without a port in the URL
dns_sd           _http._tcp.domain         DNS-SD (RFC 6763): PTR -> C-F._http._tcp.domain, which has SRV and TXT
"""

import re
import struct
from collections.abc import Iterator

from fairlead_discovery.decisions import dns_labels as labels
from fairlead_discovery.records import Port
from fairlead_dns.decisions import naming, wire
from fairlead_dns.decisions.dialects import TXT, consul_services, reached, served
from fairlead_dns.decisions.naming import Dialect, Instance, Record, Rules, instance_label, is_port, slave_labels, wired

SVCB, HTTPS = 64, 65
PORT_KEY = 3
SVCB_PRIORITY = 1
STRING_LIMIT = 255
SERVICE_TYPE = re.compile(r"(?=.{1,15}$)(?=.*[a-z])[a-z0-9]+(-[a-z0-9]+)*")
"""RFC 6335: at most 15 characters, one of them a letter."""


def numbered_ports(one: Instance, _dialect: Dialect, rules: Rules) -> Iterator[Record]:
    """For tcp and udp alike: what a port is for is not known from its number."""
    for name in _shared(one, rules):
        for port in one.ports:
            for protocol in ("_tcp", "_udp"):
                owner = (f"_port{port.index}", labels.fit(f"_{name[0]}"), protocol, *name[1:])
                yield from served(owner, target(one, rules), (0, rules.srv_weight, number(one, port)))


def svcb(one: Instance, _dialect: Dialect, rules: Rules) -> Iterator[Record]:
    to = wired(target(one, rules))
    for name in _shared(one, rules) if to is not None else ():
        for port in filter(lambda port: is_port(number(one, port)), one.ports):
            scheme = rules.spec(port.name)
            assert to is not None
            rdata = struct.pack("!H", SVCB_PRIORITY) + to + struct.pack("!HHH", PORT_KEY, 2, number(one, port))
            owner, plain = wired((labels.fit(f"_{scheme}"), *name)), wired(name)
            if scheme and owner is not None:
                yield Record(owner, SVCB, rdata)
            if scheme == "https" and plain is not None:
                yield Record(plain, HTTPS, rdata)


def dns_sd(one: Instance, _dialect: Dialect, rules: Rules) -> Iterator[Record]:
    browse = wired(("_services", "_dns-sd", "_udp", rules.domain))
    nowhere = not reached(one).addresses or not naming.framework_labels(one.framework, rules.spec)
    for port in () if nowhere else one.ports:
        kind = rules.spec(port.name)
        for protocol in port.protocols or ("tcp",):
            service = (f"_{kind}", "_udp" if protocol == "udp" else "_tcp", rules.domain)
            if browse is not None and SERVICE_TYPE.fullmatch(kind):
                yield from _found_by(browse, one, port, service, rules)


def _found_by(browse: bytes, one: Instance, port: Port, service: tuple[str, ...], rules: Rules) -> Iterator[Record]:
    fragment = naming.framework_labels(one.framework, rules.spec).replace(".", "-")
    alone = (labels.fit(f"{instance_label(one, rules)}-{fragment}"), *service)
    owner, listed = wired(alone), wired(service)
    if owner is not None and listed is not None:
        yield Record(browse, wire.PTR, listed)
        yield Record(listed, wire.PTR, owner)
        yield from served(alone, target(one, rules), (0, rules.srv_weight, number(one, port)))
        yield Record(owner, TXT, txt("txtvers=1", f"task={one.task.id}", f"framework={one.framework}"))


def dns_sd_itself(rules: Rules) -> Iterator[Record]:
    """Where clients are told to browse."""
    to = wired((rules.domain,))
    for kind in ("b", "lb"):
        owner = wired((kind, "_dns-sd", "_udp", rules.domain))
        if owner is not None and to is not None:
            yield Record(owner, wire.PTR, to)


def target(one: Instance, rules: Rules) -> tuple[str, ...]:
    """The instance's name, under `slave` when it is reached at its agent's address."""
    here = (instance_label(one, rules), *naming.framework_labels(one.framework, rules.spec).split("."))
    return (*here, rules.domain) if reached(one).own else slave_labels(here, rules.domain)


def number(one: Instance, port: Port) -> int:
    return reached(one).port(port)


def txt(*strings: str) -> bytes:
    """Character strings, each cut at 255 bytes."""
    raw = [text.encode("utf-8", "replace")[:STRING_LIMIT] for text in strings]
    return b"".join(bytes((len(part),)) + part for part in raw)


def _shared(one: Instance, rules: Rules) -> Iterator[tuple[str, ...]]:
    fragment = naming.framework_labels(one.framework, rules.spec)
    if fragment and reached(one).addresses:
        for task in consul_services(one, rules):
            yield (task, *fragment.split("."), rules.domain)
