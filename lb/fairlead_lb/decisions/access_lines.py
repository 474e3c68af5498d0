"""A request as HAProxy logs it, and as fairlead writes it: with service and task, one line of JSON."""

from bisect import bisect_left
from dataclasses import dataclass, field
from typing import TypeVar

import msgspec

from fairlead_daemon.errors import Refused
from fairlead_discovery.decisions.identity import ANONYMOUS, unword

NO_SERVER = "<NOSRV>"
UNSAID = "-"
"""HAProxy's word for a value that is not there."""
_SAID = ("id", "trace", "caller", "refused", "split", "method", "host", "path")
K = TypeVar("K")


class Raw(msgspec.Struct, frozen=True):
    """What `access_log.cfg.j2` makes. Times are milliseconds, -1 where it did not come to that."""

    t: float
    id: str = ""
    trace: str = ""
    caller: str = ""
    refused: str = ""
    fe: str = ""
    be: str = ""
    slot: str = ""
    addr: str = ""
    split: str = ""
    method: str = ""
    host: str = ""
    path: str = ""
    status: int = -1
    tq: int = -1
    tw: int = -1
    tc: int = -1
    tr: int = -1
    ta: int = -1
    tt: int = -1
    bytes_in: int = msgspec.field(default=0, name="in")
    bytes_out: int = msgspec.field(default=0, name="out")
    term: str = ""
    rc: str = "0"
    client: str = ""


class Times(msgspec.Struct, frozen=True, omit_defaults=True):
    """Milliseconds: until the request was whole, in the queue, connecting, until the answer, in all."""

    request: int = -1
    queue: int = -1
    connect: int = -1
    answer: int = -1
    all: int = -1


class Line(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """What is written. `end` is HAProxy's termination state; `refused`: by an intention."""

    time: str
    id: str = ""
    trace: str = ""
    caller: str = ""
    service: str = ""
    backend: str = ""
    server: str = ""
    task: str = ""
    address: str = ""
    share: bool = False
    method: str = ""
    host: str = ""
    path: str = ""
    status: int = 0
    ms: Times = Times()
    bytes_in: int = 0
    bytes_out: int = 0
    end: str = ""
    retries: int = 0
    redispatched: bool = False
    refused: bool = False
    client: str = ""
    frontend: str = ""


_decoder = msgspec.json.Decoder(Raw)


def parse(data: bytes) -> Raw:
    """Raises Refused."""
    try:
        found = _decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Refused(f"not a line of the access log: {error}") from error
    return msgspec.structs.replace(found, **{n: "" for n in _SAID if getattr(found, n) == UNSAID})


def caller_of(raw: Raw) -> str:
    return unword(raw.caller) or ANONYMOUS


def line(raw: Raw, service: str, task: str, clock: str) -> Line:
    """`clock`: the whole seconds of `raw.t` in words, as `2026-11-20T16:09:08`."""
    served = raw.slot != NO_SERVER
    return Line(
        time=f"{clock}.{round(raw.t * 1000) % 1000:03d}Z",
        id=raw.id,
        trace=raw.trace,
        caller=caller_of(raw),
        service=service or unword(raw.refused),
        backend=raw.be,
        server=raw.slot if served else "",
        task=task,
        address=raw.addr if served else "",
        share=bool(raw.split),
        method=raw.method,
        host=raw.host,
        path=raw.path,
        status=max(0, raw.status),
        ms=Times(raw.tq, raw.tw, raw.tc, raw.tr, raw.ta if raw.ta >= 0 else raw.tt),
        bytes_in=raw.bytes_in,
        bytes_out=raw.bytes_out,
        end=raw.term,
        retries=int(raw.rc.lstrip("+") or 0),
        redispatched=raw.rc.startswith("+"),
        refused=bool(raw.refused),
        client=raw.client,
        frontend=raw.fe,
    )


BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
MOST_CALLERS = 200
MOST_SERVICES = 5_000
OTHER = "(other)"


@dataclass(slots=True)
class Durations:
    """How many requests took at most each of BUCKETS_S, and longer than the last; the sum of all, in seconds."""

    counts: list[int] = field(default_factory=lambda: [0] * (len(BUCKETS_S) + 1))
    sum_s: float = 0.0

    def add(self, took_s: float) -> None:
        self.counts[bisect_left(BUCKETS_S, took_s)] += 1
        self.sum_s += took_s


class Golden:
    """Requests, errors and durations by service and by caller, bounded: what is beyond counts as `(other)`."""

    def __init__(self) -> None:
        self.codes: dict[tuple[str, str], int] = {}
        """(service, `2xx`) -> requests."""
        self.took: dict[str, Durations] = {}
        """By service."""
        self.callers_took: dict[tuple[str, str], Durations] = {}
        """By (service, caller)."""
        self.callers: dict[tuple[str, str, str], int] = {}
        """(service, caller, `2xx`) -> requests."""
        self.refused: dict[tuple[str, str], int] = {}
        """(service, caller) -> what intentions refused."""
        self._known_callers: set[str] = set()

    def count_refused(self, raw: Raw) -> None:
        if raw.refused:
            _one_more(self.refused, (unword(raw.refused), self._bounded(caller_of(raw))))

    def count(self, raw: Raw, service: str) -> None:
        caller = self._bounded(caller_of(raw))
        if not service or (service not in self.took and len(self.took) >= MOST_SERVICES):
            service = OTHER
        code = f"{raw.status // 100}xx" if raw.status >= 100 else "none"
        _one_more(self.codes, (service, code))
        called = service if len(self.callers) < MOST_SERVICES else OTHER
        _one_more(self.callers, (called, caller, code))
        took_s = max(0, raw.ta if raw.ta >= 0 else raw.tt) / 1000
        self.took.setdefault(service, Durations()).add(took_s)
        self.callers_took.setdefault((called, caller), Durations()).add(took_s)

    def _bounded(self, caller: str) -> str:
        if caller in self._known_callers:
            return caller
        if len(self._known_callers) >= MOST_CALLERS:
            return OTHER
        self._known_callers.add(caller)
        return caller


def _one_more(counts: dict[K, int], key: K) -> None:
    counts[key] = counts.get(key, 0) + 1
