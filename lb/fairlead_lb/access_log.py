"""HAProxy's log lines into a file, without ever holding HAProxy up: it keeps them in a ring, and what does not fit is lost.

They come over a loopback connection, which every local process could make: the kernel says who does, and only workers
of our HAProxy are believed. Datagrams would be lost beyond ten at a time (measured: 30 % at 2,400 a second). A unix
socket that nobody listens on is refused at once, and HAProxy 2.6 asks again at once: while we were away it spent a core
on that. After a refused TCP connection it waits a second.
"""

import asyncio
import contextlib
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import msgspec
from prometheus_client import REGISTRY, Counter
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from fairlead_daemon.errors import Refused
from fairlead_daemon.logs import Log
from fairlead_lb.adapters import peers
from fairlead_lb.decisions.access_lines import BUCKETS_S, Durations, Golden, Raw, line, parse
from fairlead_lb.decisions.change import Serving
from fairlead_lb.decisions.values import Key
from fairlead_lb.mesh_settings import MeshSettings

log = Log("lb.access")
L = TypeVar("L", bound=tuple[str, ...])
READ_BYTES = 128 * 1024
"""Some hundred lines a turn: the daemon has other things to do too."""
LINE_BYTES = 16 * 1024
RETRY_S = 5.0
BEGUN_S = 0.5
"""A worker that has just been started may call before we know its master."""
STDOUT = "stdout"

LINES = Counter("fairlead_lb_access_lines_total", "Lines of HAProxy's log by what became of them", ["result"])
_encoder = msgspec.json.Encoder()


@dataclass(frozen=True, slots=True, kw_only=True)
class Around:
    """Whom to ask what the lines do not say."""

    serving: Callable[[], Serving | None]
    former: Callable[[], Mapping[str, Key]]
    master: Callable[[], int]
    """HAProxy's master: its children are believed."""


@dataclass(slots=True)
class Sink:
    """The file, put aside and begun anew when it is big. A full disk costs lines, nothing else."""

    path: Path | None
    most_bytes: int
    keep: int
    _failing: bool = False

    def write(self, data: bytes) -> bool:
        """Whether it was written."""
        try:
            if self.path is None:
                sys.stdout.buffer.write(data)
                sys.stdout.buffer.flush()
            else:
                self._turn(self.path, len(data))
                with self.path.open("ab") as stream:
                    stream.write(data)
            self._failing = False
        except OSError as error:
            if not self._failing:
                log.warning("access log is not written", reason=str(error))
            self._failing = True
        return not self._failing

    def _turn(self, path: Path, coming: int) -> None:
        try:
            if path.stat().st_size + coming <= self.most_bytes:
                return
        except FileNotFoundError:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch(mode=0o640)
            return
        for number in range(self.keep - 1, 0, -1):
            with contextlib.suppress(FileNotFoundError):
                path.with_name(f"{path.name}.{number}").replace(path.with_name(f"{path.name}.{number + 1}"))
        path.replace(path.with_name(f"{path.name}.1"))
        path.touch(mode=0o640)


@dataclass(slots=True)
class AccessLog:
    """`run()` for ever."""

    name: str
    sink: Sink
    around: Around
    only_refused: bool
    golden: Golden = field(default_factory=Golden)
    _second: tuple[int, str] = (0, "")

    async def run(self) -> None:
        """Somebody else may have taken the name: then it is tried again, and HAProxy's ring goes round meanwhile."""
        said = False
        while True:
            try:
                server = await asyncio.start_server(self.take, *self.address, limit=READ_BYTES)
            except OSError as error:
                if not said:
                    log.warning("access log cannot be taken", reason=str(error))
                said = True
                await asyncio.sleep(RETRY_S)
                continue
            async with server:
                await server.serve_forever()

    @property
    def address(self) -> tuple[str, int]:
        host, _, port = self.name.rpartition(":")
        return host, int(port)

    async def take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One worker's lines, until it ends."""
        try:
            theirs = writer.get_extra_info("peername")
            if not await self._is_ours(theirs):
                LINES.labels("foreign").inc()
                return
            rest = b""
            while data := await reader.read(READ_BYTES):
                *whole, rest = (rest + data).split(b"\n")
                self.take_lines(whole)
                rest = rest if len(rest) < LINE_BYTES else b""
        except OSError as error:
            log.debug("a worker's log ended", reason=str(error))
        finally:
            writer.close()

    def take_lines(self, whole: list[bytes]) -> None:
        lines = [made for data in whole if data and (made := self._line(data))]
        if lines:
            written = self.sink.write(b"".join(lines))
            LINES.labels("written" if written else "lost").inc(len(lines))

    async def _is_ours(self, theirs: peers.Address) -> bool:
        """A child of our master."""
        for wait_s in (0.0, BEGUN_S):
            await asyncio.sleep(wait_s)
            master = self.around.master()
            if master and await asyncio.to_thread(peers.is_child, master, theirs, self.address):
                return True
        return False

    def _line(self, data: bytes) -> bytes:
        if not data.startswith(b"{"):  # what HAProxy says of itself: a server is down, a worker ends
            LINES.labels("haproxy").inc()
            return b""
        try:
            raw = parse(data)
        except Refused as error:
            LINES.labels("unreadable").inc()
            log.debug("line is not taken", reason=str(error))
            return b""
        if self.only_refused and not raw.refused:
            return b""
        service, task = self._whose(raw)
        self.golden.count_refused(raw)
        if not self.only_refused:
            self.golden.count(raw, service)
        return _encoder.encode(line(raw, service, task, self._clock(int(raw.t)))) + b"\n"

    def _whose(self, raw: Raw) -> tuple[str, str]:
        """Service and task; "" where nobody knows any more."""
        serving = self.around.serving()
        owners = serving.structure.owners if serving is not None else {}
        key = owners.get(raw.be) or self.around.former().get(raw.be)
        slot = serving.slots.get(raw.be, {}).get(raw.slot) if serving is not None else None
        same = slot is not None and raw.addr == f"{slot.host}:{slot.port}"
        return (key.service if key is not None else ""), (slot.task if slot is not None and same else "")

    def _clock(self, second: int) -> str:
        if second != self._second[0]:
            self._second = second, time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
        return self._second[1]


class GoldenMetrics(Collector):
    """`golden` of the daemon's one access log."""

    golden: Golden | None = None

    def describe(self) -> Iterable[Metric]:
        return ()

    def collect(self) -> Iterable[Metric]:
        if self.golden is None:
            return
        requests = CounterMetricFamily("fairlead_lb_route_requests", "Requests", labels=["service", "code"])
        for (service, code), count in self.golden.codes.items():
            requests.add_metric([service, code], count)
        yield requests
        calls = CounterMetricFamily("fairlead_lb_caller_requests", "Requests", labels=["service", "caller", "code"])
        for labels, count in self.golden.callers.items():
            calls.add_metric(list(labels), count)
        yield calls
        refused = CounterMetricFamily("fairlead_lb_refused_calls", "By intentions", labels=["service", "caller"])
        for (service, caller), count in self.golden.refused.items():
            refused.add_metric([service, caller], count)
        yield refused
        yield _histogram("route", ["service"], {(s,): took for s, took in self.golden.took.items()})
        yield _histogram("caller", ["service", "caller"], self.golden.callers_took)


def _histogram(name: str, labels: list[str], found: Mapping[L, Durations]) -> Metric:
    made = HistogramMetricFamily(f"fairlead_lb_{name}_duration_seconds", "From the request on", labels=labels)
    for values, took in found.items():
        made.add_metric(list(values), _cumulative(took.counts), took.sum_s)
    return made


def _cumulative(counts: list[int]) -> list[tuple[str, float]]:
    found, so_far = [], 0
    for most, count in zip((*BUCKETS_S, "+Inf"), counts, strict=True):
        so_far += count
        found.append((str(most), float(so_far)))
    return found


METRICS = GoldenMetrics()
REGISTRY.register(METRICS)


def access_log(settings: MeshSettings, folder: Path, name: str, around: Around) -> AccessLog | None:
    """None when it is off. `folder`: the balancer's."""
    if not name:
        return None
    file = settings.access_log_file
    path = None if file == STDOUT else Path(file) if file else folder / "access.log"
    sink = Sink(path=path, most_bytes=settings.access_log_mb * 1024 * 1024, keep=settings.access_log_keep)
    made = AccessLog(name=name, sink=sink, around=around, only_refused=settings.access_log == "denied")
    METRICS.golden = made.golden
    return made
