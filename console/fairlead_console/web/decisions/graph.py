"""Requests per second as a line: rates from counters, and the points of a drawing that needs no script."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

WIDTH, HEIGHT = 600.0, 120.0
MOST_POINTS = 300
STRETCH_S = 5.0
STEPS = (1.0, 2.0, 2.5, 5.0, 10.0)


@dataclass(frozen=True, slots=True)
class Point:
    """`time_s` since 1970, requests per second."""

    time_s: float
    value: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Graph:
    """`line` are the coordinates of an SVG polyline in WIDTH x HEIGHT; `top` is the value at its upper edge."""

    line: str
    top: float
    now: float
    begin_s: float
    end_s: float
    times: tuple[int, ...]
    values: tuple[float, ...]


def rate(before: Mapping[str, float], after: Mapping[str, float], *, seconds: float) -> float:
    """Requests per second between two readings of counters by name. One that went back was started anew at 0."""
    grown = sum(now - old if now >= (old := before.get(name, 0.0)) else now for name, now in after.items())
    return grown / seconds


def requests(statistics: str) -> dict[str, float]:
    """HTTP requests by backend from HAProxy's CSV statistics; the balancer's own backends do not count."""
    lines = statistics.lstrip("# ").splitlines()
    columns = lines[0].split(",") if lines else []
    if not {"pxname", "svname", "req_tot"} <= set(columns):
        return {}
    name, kind, total = (columns.index(column) for column in ("pxname", "svname", "req_tot"))
    rows = (line.split(",") for line in lines[1:])
    return {
        row[name]: float(row[total])
        for row in rows
        if len(row) > total and row[kind] == "BACKEND" and row[total] and not row[name].startswith("fairlead_")
    }


def graph(points: Sequence[Point]) -> Graph | None:
    """None when there is nothing to draw a line through."""
    if len(points) < 2:
        return None
    thinned = thin(points)
    begin_s, end_s = thinned[0].time_s, thinned[-1].time_s
    top = ceiling(max(point.value for point in thinned))
    span_s = max(end_s - begin_s, 1.0)
    line = " ".join(
        f"{(p.time_s - begin_s) / span_s * WIDTH:.1f},{HEIGHT - p.value / top * HEIGHT:.1f}" for p in thinned
    )
    return Graph(
        line=line,
        top=top,
        now=thinned[-1].value,
        begin_s=begin_s,
        end_s=end_s,
        times=tuple(round(point.time_s) for point in thinned),
        values=tuple(round(point.value, 2) for point in thinned),
    )


def thin(points: Sequence[Point]) -> tuple[Point, ...]:
    """At most about MOST_POINTS: the mean of each stretch of time. Stretches stay where they are as time goes on."""
    span_s = points[-1].time_s - points[0].time_s
    if len(points) <= MOST_POINTS or not span_s:
        return tuple(points)
    width_s = -(-span_s // MOST_POINTS)
    return tuple(_mean(list(group)) for _, group in groupby(points, lambda point: point.time_s // width_s))


def _mean(points: Sequence[Point]) -> Point:
    return Point(points[-1].time_s, sum(point.value for point in points) / len(points))


def ceiling(value: float) -> float:
    """The next round number: 1, 2, 2.5, 5 times a power of ten, and at least 1."""
    power = 1.0
    while power * 10 < value:
        power *= 10
    return next(step * power for step in STEPS if step * power >= value)


def summed(series: Iterable[Sequence[Point]]) -> tuple[Point, ...]:
    """Several lines as one. They are measured at different moments, so means over STRETCH_S are added.

    The newest stretch is left out: not every line may have a point in it yet.
    """
    out: dict[float, float] = {}
    for points in series:
        for stretch, group in groupby(points, lambda point: point.time_s // STRETCH_S):
            out[stretch] = out.get(stretch, 0.0) + _mean(list(group)).value
    return tuple(Point(stretch * STRETCH_S, out[stretch]) for stretch in sorted(out)[:-1])
