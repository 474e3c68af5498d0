"""What is to be told the master, in two stages: first recorded, then sent.

An intent (a launch, a kill) is sent only after the record that names it is durable; an acknowledgement only after
what the update said is.
"""

import asyncio
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from fairlead_core.services import metrics
from fairlead_core.services.adapters.mesos import Subscription
from fairlead_core.services.adapters.store import Store
from fairlead_core.services.fleet import Fleet
from fairlead_daemon.backoff import Backoff
from fairlead_daemon.errors import Refused, Unavailable
from fairlead_daemon.logs import Log

log = Log("services.delivery")
ACCEPT = "ACCEPT"
KILL = "KILL"
IN_ORDER = frozenset({"REVIVE", "SUPPRESS"})
"""Calls that must not overtake one another; of several only the last matters."""
SENT_AT_ONCE = 64
BACKOFF = Backoff(first_s=0.05, most_s=2.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One scheduler call of one subscription. `tasks`: whose launch it is."""

    kind: str
    payload: dict[str, Any]
    subscription: Subscription | None
    tasks: tuple[str, ...] = ()


class Delivery:
    """`unlaunched` hears of tasks that the master never will; `unanswered` of calls whose outcome is unknown."""

    def __init__(
        self,
        store: Store,
        fleet: Fleet,
        *,
        unlaunched: Callable[[Sequence[str]], None],
        unanswered: Callable[[], None],
    ) -> None:
        self.subscription: Subscription | None = None
        self._store = store
        self._fleet = fleet
        self._unlaunched = unlaunched
        self._unanswered = unanswered
        self._dirty: dict[str, None] = {}
        self._waiting: list[Call] = []
        self._wake = asyncio.Event()
        self._recorded: asyncio.Queue[list[Call]] = asyncio.Queue()

    def dirty(self, app_id: str) -> None:
        """The app's record is to be written, before what is queued from now on is sent."""
        self._dirty[app_id] = None
        self._wake.set()

    def forget(self, app_id: str) -> None:
        """The app's record is gone: it is not to be written any more."""
        self._dirty.pop(app_id, None)

    def queue(self, kind: str, tasks: tuple[str, ...] = (), **payload: Any) -> None:
        """To be sent on the present subscription, after all that is dirty now is recorded."""
        self._waiting.append(Call(kind=kind, payload=payload, subscription=self.subscription, tasks=tasks))
        self._wake.set()

    async def record(self) -> None:
        """For ever. Raises Conflict when another leads; waits while the registry is away."""
        attempt = 0
        while True:
            await self._wake.wait()
            self._wake.clear()
            await asyncio.sleep(0)  # what the present turn of the loop still adds goes along
            dirty, calls = list(self._dirty), self._waiting
            self._dirty, self._waiting = {}, []
            try:
                with metrics.record_seconds.time():
                    await self._write(dirty)
            except Unavailable as error:
                log.warning("not recorded yet", apps=len(dirty), why=str(error))
                self._dirty = dict.fromkeys(dirty) | self._dirty
                self._waiting = calls + self._waiting
                self._wake.set()
                await asyncio.sleep(BACKOFF.delay_s(attempt, chance=random.random()))  # noqa: S311  # jitter
                attempt += 1
                continue
            attempt = 0
            if calls:
                self._recorded.put_nowait(calls)

    async def _write(self, dirty: Sequence[str]) -> None:
        records = [self._fleet.apps[app_id].record() for app_id in dirty if app_id in self._fleet.apps]
        results = await asyncio.gather(*(self._store.record(r) for r in records), return_exceptions=True)
        for result in results:
            if isinstance(result, Refused):
                log.error("record refused", why=str(result))
            elif isinstance(result, BaseException):
                raise result

    async def send(self) -> None:
        """For ever: what has been recorded, many at once."""
        while True:
            calls = await self._recorded.get()
            while not self._recorded.empty():
                calls += self._recorded.get_nowait()
            free = [c for c in calls if c.kind not in IN_ORDER]
            for start in range(0, len(free), SENT_AT_ONCE):
                await asyncio.gather(*(self._send(c) for c in free[start : start + SENT_AT_ONCE]))
            for call in [c for c in calls if c.kind in IN_ORDER][-1:]:
                await self._send(call)

    async def _send(self, call: Call) -> None:
        subscription = self.subscription
        if subscription is None or call.subscription is not subscription:
            self._unlaunched(call.tasks)
            return
        try:
            await subscription.call(call.kind, **call.payload)
        except Refused as error:
            log.warning("call refused", kind=call.kind, why=str(error))
            self._unlaunched(call.tasks)
        except Unavailable as error:
            log.warning("call unanswered", kind=call.kind, why=str(error))
            self._unanswered()
        else:
            metrics.launches.inc(len(call.tasks))
