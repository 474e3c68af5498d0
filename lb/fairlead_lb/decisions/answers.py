"""What HAProxy says on its sockets, as values. Raises Unavailable when it is not what 2.6 and later say."""

import re
from collections.abc import Iterable, Iterator, Mapping
from csv import DictReader
from dataclasses import dataclass
from functools import lru_cache
from operator import itemgetter

from fairlead_daemon.errors import Unavailable
from fairlead_lb.decisions.values import Admin, Slot

MAINT_FLAGS = 0x01 | 0x02 | 0x20 | 0x40  # forced, inherited, by DNS, by hostname; 0x04 only says the file had it
DRAIN_FLAGS = 0x08 | 0x10
RUNNING = 2
_TOLD = re.compile(r"\[(\d)\]: (.*)", re.DOTALL)
WARNING = 4
CHECK_FLAGS = 0x02 | 0x04  # configured, enabled
CHECK_STOPPED = 0x02
SLOTS_KEPT = 50_000  # of kinds of slots; each place, with another state, is one


@dataclass(frozen=True, slots=True, kw_only=True)
class Processes:
    """`show proc`: the master, the serving worker (0: none yet), workers that finish old sessions, the oldest first."""

    master: int
    worker: int = 0
    old: tuple[int, ...] = ()
    reloads: int = 0
    failed: int = 0


def split(text: str) -> list[str]:
    """One answer a command: each ends with an empty line."""
    answers: list[str] = []
    lines: list[str] = []
    for line in text.removesuffix("\n").split("\n") if text else ():
        if line:
            lines.append(line)
        else:
            answers.append("\n".join(lines))
            lines = []
    if lines:
        answers.append("\n".join(lines))
    return answers


def objection(said: str) -> str:
    """What HAProxy has against a command, "" when nothing: it told with the severity as a number in front. Some of its
    warnings are facts (`no need to change the addr`), others refusals (`Invalid addr`).
    """
    match = _TOLD.match(said)
    if match is None:
        return said
    severity, text = int(match[1]), match[2]
    if severity > WARNING:
        return text if text.startswith("Unknown command") else ""
    return "" if severity == WARNING and "chang" in text else text


def processes(text: str) -> Processes:
    """`10809 master 1 [failed: 0] 0d00h00m49s 2.6.12`, `# workers`, `11465 worker 0 …`, `# old workers` …

    From 3.1 on a worker is listed before it serves, and one that serves on after a reload that failed is called old: it
    is the one with the fewest reloads behind it.
    """
    section, found, current = "", None, 0
    old: list[tuple[int, int]] = []
    for line in text.splitlines():
        fields = line.split()
        if line.startswith("#"):
            section = line.strip("# ")
        elif len(fields) >= 3 and fields[1] == "master":
            failed = line.partition("[failed:")[2].partition("]")[0].strip()
            found = (int(fields[0]), int(fields[2]), int(failed or 0))
        elif len(fields) >= 3 and fields[1] == "worker" and section == "workers":
            current = int(fields[0])
        elif len(fields) >= 3 and fields[1] == "worker":
            old.append((int(fields[2]), int(fields[0])))
    if found is None:
        raise Unavailable(f"haproxy: no master in the answer to show proc: {text[:80]!r}")
    if not current and old:
        current = min(old)[1]
    finishing = tuple(pid for _, pid in sorted(old, reverse=True) if pid != current)
    return Processes(master=found[0], worker=current, old=finishing, reloads=found[1], failed=found[2])


def too_many(old: tuple[int, ...], most: int) -> tuple[int, ...]:
    """Those of the old workers, the oldest first, that are one too many; `most` 0: none is."""
    return old[: max(0, len(old) - most)] if most else ()


_STATE = ("srv_addr", "srv_port", "srv_admin_state", "srv_uweight", "srv_op_state", "srv_check_state")


def mended(text: str, connections: int) -> Mapping[str, tuple[str, ...]]:
    """`show stat -1 1 -1`: frontend -> commands that undo what was done to it by hand. One that was shut down has none:
    its ports come back with a reload.
    """
    found: dict[str, tuple[str, ...]] = {}
    for row in DictReader(text.removeprefix("# ").splitlines()):
        name, limit = row["pxname"], row["slim"]
        commands = (
            *((f"enable frontend {name}",) if row["status"] == "PAUSED" else ()),
            *((f"set maxconn frontend {name} {connections}",) if limit.isdigit() and int(limit) < connections else ()),
        )
        if commands:
            found[name] = commands
    return found


def servers_state(text: str) -> Mapping[str, Mapping[str, Slot]]:
    """`show servers state [B]`, without `used` and `task`: backend -> slot name -> slot.

    Read for thousands of slots every few seconds, most of them alike: equal ones are the same object.
    """
    found: dict[str, dict[str, Slot]] = {}
    named = told = None
    for line in text.splitlines():
        if line.startswith("# "):
            columns = {name: place for place, name in enumerate(line[2:].split())}
            named = itemgetter(columns["be_name"], columns["srv_name"])
            told = itemgetter(*(columns[name] for name in _STATE))
            least = max(columns[name] for name in _STATE)
        elif named is not None and told is not None and len(fields := line.split(" ")) > least:
            backend, slot = named(fields)
            there = found.get(backend)
            if there is None:
                there = found[backend] = {}
            there[slot] = _slot(*told(fields))
    return found


@lru_cache(maxsize=SLOTS_KEPT)
def _slot(host: str, port: str, flags: str, weight: str, running: str, check: str) -> Slot:
    return Slot(
        host=host,
        port=int(port),
        admin=_admin(int(flags)),
        weight=int(weight),
        up=int(running) == RUNNING,
        unchecked=int(check) & CHECK_FLAGS == CHECK_STOPPED,
    )


def _admin(flags: int) -> Admin:
    if flags & MAINT_FLAGS:
        return Admin.MAINT
    return Admin.DRAIN if flags & DRAIN_FLAGS else Admin.READY


def connections(texts: Iterable[str]) -> Mapping[tuple[str, str], int]:
    """(backend, slot name) -> connections in use now, the larger of what several answers say of it."""
    found: dict[tuple[str, str], int] = {}
    for text in texts:
        for place, count in (sessions(text) if text.startswith("# pxname") else servers_conn(text)).items():
            found[place] = max(count, found.get(place, 0))
    return found


def sessions(text: str) -> Mapping[tuple[str, str], int]:
    """`show stat B 4 -1`: `# pxname,svname,qcur,qmax,scur,…`."""
    head, *lines = text[2:].splitlines()
    place = head.split(",").index("scur")
    rows = (line.split(",") for line in lines if line)
    return {(row[0], row[1]): int(row[place] or 0) for row in rows if len(row) > place}


def servers_conn(text: str) -> Mapping[tuple[str, str], int]:
    """`show servers conn [B]`."""
    return {place: int(count) for place, count in _in_use(text) if count.isdigit()}


def busy(texts: Iterable[str]) -> Mapping[tuple[str, str], int]:
    """As `connections`, without slots that have none."""
    found: dict[tuple[str, str], int] = {}
    for text in texts:
        there = sessions(text).items() if text.startswith("# pxname") else _some_in_use(text)
        for place, count in there:
            if count:
                found[place] = max(count, found.get(place, 0))
    return found


def _some_in_use(text: str) -> Iterator[tuple[tuple[str, str], int]]:
    return ((place, int(count)) for place, count in _in_use(text, but="0") if count.isdigit())


def _in_use(text: str, *, but: str = "") -> Iterator[tuple[tuple[str, str], str]]:
    """Slots and what stands in `used_cur`, where that is not `but`."""
    place = 6
    for line in text.splitlines():
        if line.startswith("#"):
            place = line.split().index("used_cur") - 1  # the header has its `#` apart
            continue
        fields = line.split(" ", place + 1)
        if len(fields) > place and fields[place] != but and "/" in fields[0]:
            backend, _, slot = fields[0].partition("/")
            yield (backend, slot), fields[place]


def map_entries(text: str) -> Mapping[str, str]:
    """`show map F`: key -> value; of duplicates the first, which is the one HAProxy takes."""
    found: dict[str, str] = {}
    for line in text.splitlines():
        fields = line.split(" ", 2)
        if len(fields) == 3 and fields[0].startswith("0x"):
            found.setdefault(fields[1], fields[2])
    return found


def new_map_version(text: str) -> int:
    head, _, number = text.partition("New version created:")
    if head or not number.strip().isdigit():
        raise Unavailable(f"haproxy: prepare map: {text[:80]}")
    return int(number)
