"""Which ports stay fallen over. HAProxy falls over by itself, request by request; coming back is what is damped."""

from collections.abc import Mapping
from dataclasses import dataclass

from fairlead_lb.decisions.splits import Ways
from fairlead_lb.decisions.values import Key


@dataclass(frozen=True, slots=True)
class Pin:
    """Requests of a port stay with its fallbacks. `enough_since_s`: since when it could take them back; None: not yet."""

    enough_since_s: float | None = None


Pins = Mapping[Key, Pin]


def pins(ways: Ways, ready: Mapping[Key, int], before: Pins, now_s: float) -> Pins:
    """`ready`: servers of each port. Without any fallback there is nothing to stay with."""
    found: dict[Key, Pin] = {}
    for key, way in ways.items():
        if not way.falls:
            continue
        if ready.get(key, 0) < way.min_ready:
            found[key] = Pin()
        elif (pin := before.get(key)) is not None:
            since_s = now_s if pin.enough_since_s is None else pin.enough_since_s
            if now_s - since_s < way.back_after_s:
                found[key] = Pin(since_s)
    return found
