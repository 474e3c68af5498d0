"""What `up` does about processes: which of a predecessor's to replace or end, and when to start one that died."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from fairlead_daemon.backoff import Backoff

CALM_S = 60.0
"""A process that ran this long died for a new reason: its next start is at once again."""
BAD_SETTINGS = 2
RESTARTS = Backoff(first_s=0.5, factor=2.0, most_s=30.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Takeover:
    """`replace` in order, one at a time, each ready before the next; `end` are wanted no more; `fresh` do not run."""

    replace: Sequence[str] = ()
    end: Sequence[str] = ()
    fresh: Sequence[str] = ()


def takeover(wanted: Sequence[str], alive: Iterable[str]) -> Takeover:
    """`wanted` in starting order; `alive` are names of a predecessor's processes that still run."""
    running = set(alive)
    return Takeover(
        replace=tuple(name for name in wanted if name in running),
        end=tuple(sorted(running.difference(wanted))),
        fresh=tuple(name for name in wanted if name not in running),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Deaths:
    """How often in a row a process died soon after its start."""

    in_a_row: int = 0

    def after(self, *, ran_s: float) -> "Deaths":
        return Deaths(in_a_row=1 if ran_s >= CALM_S else self.in_a_row + 1)

    def wait_s(self, *, code: int, chance: float) -> float:
        """Seconds before the next start; the first one is at once. `chance` is uniform in [0, 1]."""
        if code == BAD_SETTINGS:
            return RESTARTS.most_s  # they do not mend themselves; a port may become free
        return 0.0 if self.in_a_row <= 1 else RESTARTS.delay_s(self.in_a_row - 2, chance=chance)
