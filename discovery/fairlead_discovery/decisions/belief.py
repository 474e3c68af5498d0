"""What a reader believes, sight by sight. Pure: times come as arguments."""

from collections import deque
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from itertools import takewhile

from fairlead_discovery.decisions.decoding import Contents, Decoder
from fairlead_discovery.decisions.trust import (
    ANCHOR_S,
    RECORD_MEMORY_S,
    Cause,
    Comparison,
    Confirmed,
    Doubt,
    Reading,
    judge,
    settles,
)
from fairlead_discovery.records import Leaving
from fairlead_discovery.registry import Sight

RECORD_MARK_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Now:
    """`steady_s` never jumps, `wall_s` is seconds since 1970."""

    steady_s: float
    wall_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Good:
    """A state that was believed. `known_s`: wall clock, when it was last known to be true. `step` counts all states,
    `losses` the tasks that were ever lost until then.
    """

    reading: Reading
    contents: Contents
    sight: Sight
    known_s: float
    step: int = 0
    losses: int = 0


class Belief:
    """`good` is what to serve (None: nothing was ever seen), `doubt` why the newest sight is not it."""

    def __init__(self) -> None:
        self.good: Good | None = None
        self.doubt: Doubt | None = None
        self.in_sight = False
        self._decoder = Decoder()
        self._anchors: deque[tuple[float, Good]] = deque()
        self._recorded: dict[str, float] = {}
        self._recorded_s = 0.0
        self._leaving: Mapping[str, Leaving] = {}
        self._steps = self._losses = 0
        self._lost: dict[str, int] = {}
        """The step in which a service lost a task last, the latest at the end."""
        self._contents = Contents()

    def remember(self, sight: Sight, *, known_s: float, now: Now) -> None:
        """Begins with a state of an earlier run."""
        contents = self._decoded(sight)
        self.good = self._good(sight, contents, known_s=known_s)
        self._recorded = dict.fromkeys(contents.leaving, now.steady_s)

    def see(self, sight: Sight, *, now: Now, word: Confirmed | None = None) -> None:
        """Takes a sight in; `word` is what a person has confirmed, if anything."""
        was_in_sight, self.in_sight = self.in_sight, sight.in_sight
        if self.good is not None and was_in_sight and self.doubt is None:
            self.good = replace(self.good, known_s=now.wall_s)
        if sight.in_sight:
            self._judge(sight, now, word)

    def age_s(self, *, now: Now) -> float:
        """Seconds since what is served was last known to be true."""
        if self.good is None or (self.in_sight and self.doubt is None):
            return 0.0
        return max(0.0, now.wall_s - self.good.known_s)

    def _judge(self, sight: Sight, now: Now, word: Confirmed | None) -> None:
        contents = self._decoded(sight)
        new = self._good(sight, contents, known_s=now.wall_s)
        self._remember_records(contents, now.steady_s)
        if self.good is not None:
            anchor = self._anchor(self.good, now.steady_s)
            doubted_before = self.doubt is not None
            self.doubt = self._doubted(anchor, new, now, word)
            if self.doubt is not None:
                self.good = anchor if self.doubt.cause in {Cause.MASS, Cause.EMPTY} else self.good
                self._anchors.clear()
                return
            if not doubted_before:  # else the state before is settled: by a person's word, or by what came back
                self._anchors.append((now.steady_s, self.good))
        self.good = new

    def _doubted(self, anchor: Good, new: Good, now: Now, word: Confirmed | None) -> Doubt | None:
        """Tasks are compared with the anchor's; the clock with the newest good state's."""
        good = self.good
        assert good is not None
        comparison = Comparison(
            good=replace(good.reading, tasks=anchor.reading.tasks, count=anchor.reading.count),
            new=new.reading,
            recorded=self._recorded.keys(),
            gap_s=now.wall_s - good.known_s,
            held=self.doubt.cause if self.doubt is not None else None,
            touched=self._lost_since(anchor.step),
            lost_most=self._losses_since(anchor),
        )
        doubt = judge(comparison)
        if doubt is not None and settles(word, doubt, new.reading, good_s=good.known_s):
            return None
        return doubt

    def _anchor(self, good: Good, steady_s: float) -> Good:
        """The oldest good state of the last seconds."""
        while self._anchors and steady_s - self._anchors[0][0] > ANCHOR_S:
            self._anchors.popleft()
        return self._anchors[0][1] if self._anchors else good

    def _decoded(self, sight: Sight) -> Contents:
        before = self._contents
        contents = self._contents = self._decoder.contents(sight.folders, sight.delta)
        self._steps += 1
        if contents is not before and contents.delta is not None:
            for service in contents.delta.keys:
                had, has = before.tasks.get(service, {}).keys(), contents.tasks.get(service, {}).keys()
                if not had <= has:
                    self._losses += len(had - has)
                    self._lost.pop(service, None)
                    self._lost[service] = self._steps
        return contents

    def _good(self, sight: Sight, contents: Contents, *, known_s: float) -> Good:
        return Good(
            reading=reading(sight, contents),
            contents=contents,
            sight=sight,
            known_s=known_s,
            step=self._steps,
            losses=self._losses,
        )

    def _losses_since(self, good: Good) -> int | None:
        return self._losses - good.losses

    def _lost_since(self, step: int) -> Collection[str]:
        """Services that lost a task after that step: no others can miss one of its."""
        return [service for service, _ in takewhile(lambda item: item[1] > step, reversed(self._lost.items()))]

    def _remember_records(self, contents: Contents, steady_s: float) -> None:
        """What is still there is marked as seen once in a while: there may be many, and looks are often."""
        if contents.leaving is self._leaving and steady_s - self._recorded_s < RECORD_MARK_S:
            return
        self._leaving, self._recorded_s = contents.leaving, steady_s
        for task in contents.leaving:
            self._recorded.pop(task, None)
            self._recorded[task] = steady_s
        while self._recorded and steady_s - next(iter(self._recorded.values())) > RECORD_MEMORY_S:
            del self._recorded[next(iter(self._recorded))]


def reading(sight: Sight, contents: Contents) -> Reading:
    return Reading(
        cluster=sight.cluster,
        revision=sight.revision,
        tasks=contents.tasks,
        bare=not any(sight.folders.values()),
        count=contents.count,
    )
