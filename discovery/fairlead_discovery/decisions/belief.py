"""What a reader believes, sight by sight. Pure: times come as arguments."""

from collections import deque
from dataclasses import dataclass, replace

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
from fairlead_discovery.registry import Sight


@dataclass(frozen=True, slots=True, kw_only=True)
class Now:
    """`steady_s` never jumps, `wall_s` is seconds since 1970."""

    steady_s: float
    wall_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Good:
    """A state that was believed. `known_s`: wall clock, when it was last known to be true."""

    reading: Reading
    contents: Contents
    sight: Sight
    known_s: float


class Belief:
    """`good` is what to serve (None: nothing was ever seen), `doubt` why the newest sight is not it."""

    def __init__(self) -> None:
        self.good: Good | None = None
        self.doubt: Doubt | None = None
        self.in_sight = False
        self._decoder = Decoder()
        self._anchors: deque[tuple[float, Good]] = deque()
        self._recorded: dict[str, float] = {}

    def remember(self, sight: Sight, *, known_s: float, now: Now) -> None:
        """Begins with a state of an earlier run."""
        contents = self._decoder.contents(sight.folders)
        self.good = Good(reading=reading(sight, contents), contents=contents, sight=sight, known_s=known_s)
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
        contents = self._decoder.contents(sight.folders)
        new = Good(reading=reading(sight, contents), contents=contents, sight=sight, known_s=now.wall_s)
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
            good=replace(good.reading, tasks=anchor.reading.tasks),
            new=new.reading,
            recorded=self._recorded.keys(),
            gap_s=now.wall_s - good.known_s,
            held=self.doubt.cause if self.doubt is not None else None,
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

    def _remember_records(self, contents: Contents, steady_s: float) -> None:
        self._recorded.update(dict.fromkeys(contents.leaving, steady_s))
        old = [task for task, seen_s in self._recorded.items() if steady_s - seen_s > RECORD_MEMORY_S]
        for task in old:
            del self._recorded[task]


def reading(sight: Sight, contents: Contents) -> Reading:
    return Reading(
        cluster=sight.cluster, revision=sight.revision, tasks=contents.tasks, bare=not any(sight.folders.values())
    )
