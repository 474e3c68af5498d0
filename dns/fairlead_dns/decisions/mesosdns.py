"""Mesos-DNS' HTTP answers, with exactly its shapes and quirks: a list of one empty object where nothing is found."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any

from fairlead_dns.decisions import wire
from fairlead_dns.decisions.asked import View
from fairlead_dns.decisions.naming import Record, Rules, of_task
from fairlead_dns.decisions.sources import Task
from fairlead_dns.decisions.zone import Zone

URL = "https://github.com/mesosphere/mesos-dns"
SECTIONS = {wire.A: "As", wire.AAAA: "AAAAs", wire.SRV: "SRVs"}
EVERYTHING = View().closed
"""Of a reader who may have all."""
NO_HOST = {"host": "", "ip": ""}
NO_SERVICE = {"service": "", "host": "", "ip": "", "port": ""}


def asked(text: str) -> bytes | None:
    """The path's name: `.*` labels are taken out, case and a last dot do not matter."""
    return wire.parse_text(text.replace(".*", "").lower())


def hosts(zone: Zone, text: str) -> list[dict[str, str]]:
    name = asked(text)
    rows = [{"host": dotted(name), "ip": ip} for ip in _addresses(zone, name)] if name is not None else []
    return rows or [NO_HOST]


def services(zone: Zone, text: str, closed: Callable[[bytes], bytes] = EVERYTHING) -> list[dict[str, str]]:
    """One row for the first A, one for the first AAAA of each target that is not `closed` (as View.closed); `service` is
    the text as given.
    """
    name = asked(text)
    every = sorted(zone.sets(name).get(wire.SRV, ())) if name is not None else []
    data = [rdata for rdata in every if not closed(wire.srv_target(rdata))]
    return list(chain.from_iterable(_service_rows(zone, text, rdata) for rdata in data)) or [NO_SERVICE]


def _service_rows(zone: Zone, text: str, rdata: bytes) -> Iterator[dict[str, str]]:
    target = wire.srv_target(rdata)
    for kind in (wire.A, wire.AAAA):
        ips = sorted(zone.sets(target).get(kind, ()))
        if ips:
            ip, port = wire.address_text(ips[0]), str(wire.srv_port(rdata))
            yield {"service": text, "host": dotted(target), "ip": ip, "port": port}


def _addresses(zone: Zone, name: bytes) -> Iterator[str]:
    sets = zone.sets(name)
    for kind in (wire.A, wire.AAAA):
        yield from map(wire.address_text, sorted(sets.get(kind, ())))


def axfr(zone: Zone, names: Iterable[bytes]) -> dict[str, dict[str, list[str]]]:
    """The `Records` of /v1/axfr for some names, dotted; what has gone meanwhile is left out."""
    found: dict[str, dict[str, list[str]]] = {section: {} for section in SECTIONS.values()}
    for name in names:
        for kind, data in zone.sets(name).items():
            if kind in SECTIONS:
                found[SECTIONS[kind]][dotted(name)] = [shown(Record(name, kind, rdata)) for rdata in sorted(data)]
    return found


def enumerate_tasks(tasks: Iterable[Task], rules: Rules) -> dict[str, list[dict[str, Any]]]:
    """Framework -> its tasks, with the records each gives, as /v1/enumerate shows them."""
    frameworks: dict[str, list[dict[str, Any]]] = {}
    for task in tasks:
        records = [_enumerated(record) for record in of_task(task, rules) if record.kind in SECTIONS]
        row = {"name": task.task.name, "id": task.task.id, "records": records}
        frameworks.setdefault(task.task.framework, []).append(row)
    return frameworks


def _enumerated(record: Record) -> dict[str, str]:
    return {"name": dotted(record.owner), "host": shown(record), "rtype": wire.TYPE_NAMES[record.kind]}


def shown(record: Record) -> str:
    """An address, or `host.:port` for SRV."""
    if record.kind == wire.SRV:
        return f"{dotted(wire.srv_target(record.rdata))}:{wire.srv_port(record.rdata)}"
    return wire.address_text(record.rdata)


def dotted(name: bytes) -> str:
    return f"{wire.text(name)}."


def config(known: Mapping[str, Any], masters: Sequence[str]) -> dict[str, Any]:
    """/v1/config: Mesos-DNS' keys, with what stands for each of them here. No credentials, whoever asks."""
    fixed = {"ZkDetectionTimeout": 0, "DnsOn": True, "HttpOn": True, "SetTruncateBit": True}
    return {**fixed, "Masters": list(masters), **known}
