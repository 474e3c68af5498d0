"""Endpoints that come and go: held down after `most` disorderly departures within a window, longer each time."""

from collections.abc import Iterator
from dataclasses import dataclass, field

Place = tuple[str, str, int]
"""Service, host, port: by it an endpoint that comes again is known, whatever its task is called."""
FORGIVEN = 10
"""So many windows without a departure, and the earlier ones are forgotten."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FlapLimits:
    """`most` 0: nothing is held down."""

    most: int = 5
    window_s: float = 60.0
    hold_s: float = 10.0
    longest_s: float = 300.0


@dataclass(slots=True)
class _Place:
    departures_s: list[float] = field(default_factory=list)
    last_s: float = 0.0
    until_s: float = 0.0
    holds: int = 0


class Damper:
    """Told of departures and arrivals in the order of time."""

    def __init__(self, limits: FlapLimits) -> None:
        self.limits = limits
        self._places: dict[Place, _Place] = {}

    def departed(self, place: Place, *, now_s: float) -> None:
        """Without an order: unhealthy, dead, or without a word."""
        if not self.limits.most:
            return
        self._forget(now_s)
        there = self._places.setdefault(place, _Place())
        there.departures_s = [t for t in there.departures_s if now_s - t < self.limits.window_s] + [now_s]
        there.last_s = now_s

    def arrived(self, place: Place, *, now_s: float) -> None:
        there = self._places.get(place)
        if there is None or len(there.departures_s) < self.limits.most or there.until_s > now_s:
            return
        there.until_s = now_s + min(self.limits.longest_s, self.limits.hold_s * 2**there.holds)
        there.holds += 1
        there.departures_s = []

    def until_s(self, place: Place, *, now_s: float) -> float:
        """When it may be served again; 0: now."""
        there = self._places.get(place)
        return there.until_s if there is not None and there.until_s > now_s else 0.0

    def _forget(self, now_s: float) -> None:
        for place in list(self._forgiven(now_s)):
            del self._places[place]

    def _forgiven(self, now_s: float) -> Iterator[Place]:
        """The longest silent stand first only by chance; there are few."""
        for place, there in self._places.items():
            if now_s - max(there.last_s, there.until_s) > FORGIVEN * self.limits.window_s:
                yield place
