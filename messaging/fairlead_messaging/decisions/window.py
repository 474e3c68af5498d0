"""Which messages are on their way: sent and not confirmed, or waiting to be sent. Nothing is forgotten until the broker
has confirmed or refused it, whatever connections do meanwhile.

A broker closes the whole channel for one bad message and does not say which. All unconfirmed ones are then sent again
one at a time (*carefully*), so that the one in flight when the channel closes again is the bad one.
"""

from collections import deque
from collections.abc import Iterator
from typing import Generic, TypeVar

from fairlead_messaging.decisions.messages import Limits

T = TypeVar("T")


class Window(Generic[T]):
    """Of items of type T with a size. Tags count from 1 in each session, as AMQP's delivery tags do."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._waiting: deque[tuple[T, int]] = deque()
        self._sent: dict[int, tuple[T, int]] = {}
        self._tag = 0
        self._size_bytes = 0
        self._careful = 0

    def __len__(self) -> int:
        return len(self._waiting) + len(self._sent)

    @property
    def full(self) -> bool:
        return len(self) >= self._limits.messages or self._size_bytes >= self._limits.size_bytes

    @property
    def in_flight(self) -> int:
        return len(self._sent)

    @property
    def careful(self) -> bool:
        return self._careful > 0

    def accept(self, item: T, size_bytes: int) -> None:
        """It waits until `send` hands it out."""
        self._waiting.append((item, size_bytes))
        self._size_bytes += size_bytes

    def send(self) -> T | None:
        """The next to be sent now, None when there is none: it has the next tag of this session."""
        if not self._waiting or (self._careful and self._sent):
            return None
        entry = self._waiting.popleft()
        self._tag += 1
        self._sent[self._tag] = entry
        return entry[0]

    def withdraw(self) -> T:
        """The one that `send` gave last was not sent after all, and never will be: it has no tag."""
        item = self._forget(self._tag)
        self._tag -= 1
        return item

    def settle(self, tag: int, *, multiple: bool) -> list[T]:
        """What the broker's answer for `tag` (and, with `multiple`, all before it) is about, in order of sending."""
        if not multiple:
            return [self._forget(tag)] if tag in self._sent else []
        tags = []
        for sent in self._sent:  # in order of tags
            if sent > tag:
                break
            tags.append(sent)
        return [self._forget(one) for one in tags]

    def _forget(self, tag: int) -> T:
        item, size_bytes = self._sent.pop(tag)
        self._size_bytes -= size_bytes
        self._careful = max(0, self._careful - 1)
        return item

    def lost(self, *, suspicious: bool) -> T | None:
        """The session ended: what was sent waits again, first, in its order. Tags start anew.

        `suspicious`: the broker closed the channel over some message. Returns that one, once it is known; it is
        forgotten then.
        """
        culprit = self._culprit() if suspicious else None
        if suspicious and culprit is None:
            self._careful = len(self._sent)
        self._waiting.extendleft(reversed(self._sent.values()))
        self._sent.clear()
        self._tag = 0
        return culprit

    def _culprit(self) -> T | None:
        if len(self._sent) != 1:
            return None
        return self._forget(next(iter(self._sent)))

    def unsettled(self) -> Iterator[T]:
        yield from (item for item, _ in self._sent.values())
        yield from (item for item, _ in self._waiting)


class Acks:
    """Acknowledgements of one channel, many in one frame where they follow one another. Tags count from 1."""

    def __init__(self) -> None:
        self._upto = 0
        self._due: dict[int, bool] = {}
        """Settled tags above `_upto`; True when the broker has to be told still."""

    def acknowledge(self, tag: int) -> None:
        self._due[tag] = True

    def rejected(self, tag: int) -> None:
        """The broker was told on its own; later acknowledgements may pass it, and never name it."""
        self._due[tag] = False

    def flush(self) -> list[tuple[int, bool]]:
        """Tags to acknowledge now, each with whether it covers all before it."""
        last = 0
        while self._upto + 1 in self._due:
            self._upto += 1
            if self._due.pop(self._upto):
                last = self._upto
        apart = [tag for tag, due in self._due.items() if due]
        self._due.update(dict.fromkeys(apart, False))
        return ([(last, True)] if last else []) + [(tag, False) for tag in apart]
