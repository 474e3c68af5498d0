"""How soon a reader may look at the registry again."""

from dataclasses import dataclass

REST_S = 0.05
"""The longest rest: twenty looks a second is what a registry with many readers can bear."""
SWIFT_S = 0.01
"""A look that took so long is followed by a rest as long. Measured, 100 changes/s: with a fifth of it a reader on a busy
machine rested through one change in ten, and 200 readers put no less on the registry."""


def rest_s(look_s: float, before_s: float) -> float:
    """The rest after a look that took `look_s`, and the one before it `before_s`. It grows with the square: looks that
    take twice as long because all readers came at once are four times as far apart, so that readers alone never fill
    a registry to the brim. The swifter of the two counts: a single slow look is a hiccup of ours, or of the machine.

    1 ms -> 0.1 ms; 5 ms -> 2.5 ms; 10 ms -> 10 ms; from 22 ms on the longest.
    """
    swift_s = min(look_s, before_s)
    return min(REST_S, swift_s * swift_s / SWIFT_S)


TURNS = 3
"""Round trips of a look, one after another: the revision and names; new nodes; names again where they vanished."""


@dataclass(frozen=True, slots=True)
class Answers:
    """What came of a registry in some time: how many answers, and what they took in all."""

    count: int
    took_s: float


def of_registry_s(look_s: float, answers: Answers) -> float:
    """What of a look is the registry's doing. The rest is our own: a name server under load comes back to its registry
    only every few milliseconds, and looks that seem slow for that are no reason to rest.
    """
    return min(look_s, TURNS * answers.took_s / answers.count) if answers.count else look_s
