"""HAProxy's statistics as marathon-lb's own HAProxy gave them: backends and servers under its names, no empty slots.

zdd.py reads them (`/haproxy?stats;csv`): it counts the rows of its group's backend, waits until they are `UP`, and ends
tasks whose rows are `MAINT` without sessions.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from fairlead_discovery.records import Member
from fairlead_lb.decisions import naming, parts
from fairlead_lb.decisions.change import Serving
from fairlead_lb.decisions.routes import Wanted
from fairlead_lb.decisions.values import Key, Slot, Slots

WHOLE = ("BACKEND", "FRONTEND")
MAINT = "MAINT"
_OTHER = re.compile(r"[^A-Za-z0-9-]", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """One backend: `name` as marathon-lb's, `slots` and how their servers are called, `drained` those of its group that
    get no new requests, by task.
    """

    name: str
    slots: Slots
    servers: Mapping[str, str]
    drained: Mapping[str, str] = field(default_factory=dict)


def listed(wanted: Wanted, serving: Serving, hostnames: Mapping[str, str]) -> Mapping[str, Listed]:
    """By HAProxy's own names of backends. `hostnames`: of agents, by id."""
    homes = {part.key: part for service in wanted.parts.values() for part in service.parts}
    found: dict[str, Listed] = {}
    for backend, key in serving.structure.owners.items():
        part = homes.get(key)
        shown = naming.base_name(key, part.app, part.service_port) if part and naming.is_spare(backend) else backend
        members = wanted.parts[key.service].members.values() if key.service in wanted.parts else ()
        gone = wanted.groups.drained.get(key.service, {}).values()
        port = _port_of(wanted, key)
        found[backend] = Listed(
            name=shown,
            slots=serving.slots.get(backend, {}),
            servers={one.task.id: server_name(_host(one, hostnames), *port(one)) for one in members},
            drained={one.task.id: server_name(_host(one, hostnames), *port(one)) for one in gone},
        )
    return found


def _port_of(wanted: Wanted, key: Key) -> "parts.AddressOf":
    route = wanted.parts[key.service].route if key.service in wanted.parts else None
    port = next((p for p in route.ports if p.index == key.index), None) if route is not None else None
    return lambda member: (parts.address(member, port) if port is not None else None) or ("", 0)


def _host(member: Member, hostnames: Mapping[str, str]) -> str:
    """As Marathon's API tells of the task."""
    return hostnames.get(member.task.agent) or member.serviceEndpoint.host


def server_name(host: str, address: str, port: int) -> str:
    """`agent1_10_0_0_7_31005`; `10_0_0_7_31005` where the host is the address."""
    return _OTHER.sub("_", f"{host}_{port}" if host == address else f"{host}_{address}_{port}")


def as_marathon_lb(csv: str, backends: Mapping[str, Listed]) -> str:
    """Spare backends that nobody has are left out. Every line ends with a comma and a newline, as HAProxy's do."""
    head, *rows = [line for line in csv.splitlines() if line]
    columns = head.removeprefix("# ").rstrip(",").split(",")
    state = columns.index("status")
    return "".join(f"{line}\n" for line in (head, *_rows(rows, columns, state, backends)))


def _rows(rows: list[str], columns: list[str], state: int, backends: Mapping[str, Listed]) -> Iterator[str]:
    for row in rows:
        cells = row.split(",")
        backend = backends.get(cells[0])
        if backend is None:
            if not naming.is_spare(cells[0]):
                yield row
            continue
        place, cells[0] = cells[1], backend.name
        if place == WHOLE[0]:
            yield from _drained_rows(backend, columns)
        elif place not in WHOLE:
            slot = backend.slots.get(place, Slot())
            if slot.empty or not (name := _name(slot, backend)):
                continue
            cells[1] = name
            cells[state] = MAINT if slot.task in backend.drained else cells[state]
        yield ",".join(cells)


def _name(slot: Slot, backend: Listed) -> str:
    """Empty for one that is leaving: marathon-lb does not know it any more."""
    return backend.servers.get(slot.task) or backend.drained.get(slot.task, "")


def _drained_rows(backend: Listed, columns: list[str]) -> Iterator[str]:
    """Of those that have left their slots already."""
    there = {slot.task for slot in backend.slots.values() if not slot.empty}
    for task, name in backend.drained.items():
        if task not in there:
            known = {"pxname": backend.name, "svname": name, "status": MAINT, "qcur": "0", "scur": "0", "type": "2"}
            yield ",".join(known.get(column, "") for column in columns) + ","
