"""How long to wait before the next try. Chance is an argument."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Backoff:
    """Exponential, capped, with full jitter below the last half: `delay_s(0, chance=1.0) == first_s`."""

    first_s: float = 0.1
    factor: float = 2.0
    most_s: float = 10.0

    def delay_s(self, attempt: int, *, chance: float) -> float:
        """Seconds before try number `attempt` (0 is the first retry); `chance` is uniform in [0, 1]."""
        exponent = min(attempt, 64)  # beyond it any factor has reached its cap, and floats would overflow
        whole = min(self.most_s, self.first_s * self.factor**exponent)
        return whole * (0.5 + 0.5 * chance)
