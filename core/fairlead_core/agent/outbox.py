"""Status updates on their way to the master: one a task at a time, again until it is acknowledged."""

import asyncio
from dataclasses import dataclass

from fairlead_core.agent import metrics
from fairlead_core.agent.decisions.updates import retry_s
from fairlead_core.agent_protocol import Report, Update

BATCH_MOST = 500


@dataclass(slots=True)
class _Item:
    update: Update
    due_s: float = 0.0
    sent: int = 0


class Outbox:
    """Owns what is to be sent. Times are the event loop's."""

    def __init__(self) -> None:
        self.wake = asyncio.Event()
        self._heads: dict[str, _Item] = {}
        self._once: list[Report] = []
        self._taken: list[str] = []

    def offer(self, key: str, update: Update) -> None:
        """The task's next update; sent now, then again until `settle`."""
        self._heads[key] = _Item(update)
        self._changed()

    def settle(self, key: str) -> None:
        self._heads.pop(key, None)
        self._changed()

    def once(self, report: Report) -> None:
        """Sent at most once: nobody acknowledges it."""
        self._once.append(report)
        self._changed()

    def _changed(self) -> None:
        metrics.UNACKNOWLEDGED.set(len(self._heads))
        self.wake.set()

    def take(self, *, now_s: float) -> list[Report]:
        """What is due. `failed()` puts the updates of the last take back."""
        self.wake.clear()
        once, self._once = self._once, []
        due = [key for key, item in self._heads.items() if item.due_s <= now_s][:BATCH_MOST]
        for key in due:
            item = self._heads[key]
            item.sent += 1
            item.due_s = now_s + retry_s(item.sent)
            if item.sent > 1:
                metrics.RESENT.inc()
        self._taken = due
        if len(due) == BATCH_MOST:
            self.wake.set()
        return [*once, *(self._heads[key].update for key in due)]

    def failed(self) -> None:
        for key in self._taken:
            if key in self._heads:
                self._heads[key].due_s = 0.0
        self._taken = []

    def again(self) -> None:
        """A new stream: every unacknowledged update is sent at once."""
        for item in self._heads.values():
            item.due_s, item.sent = 0.0, 0
        self.wake.set()
