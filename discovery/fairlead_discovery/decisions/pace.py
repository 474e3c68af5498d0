"""How soon a reader may look at the registry again."""

REST_S = 0.05
"""The longest rest: twenty looks a second is what a registry with many readers can bear."""
SWIFT_S = 0.002
"""A look that took so long is followed by a rest as long."""


def rest_s(look_s: float) -> float:
    """The rest after a look that took `look_s`. It grows with the square: looks that take twice as long because all
    readers came at once are four times as far apart, so that readers alone never fill a registry to the brim.

    1 ms -> 0.5 ms; 2 ms -> 2 ms; 5 ms -> 12.5 ms; from 10 ms on the longest.
    """
    return min(REST_S, look_s * look_s / SWIFT_S)
