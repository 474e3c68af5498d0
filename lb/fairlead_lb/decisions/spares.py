"""Spare backends: rendered empty, so that a new service needs no reload. HAProxy has no `add backend` before 3.4."""

from collections import Counter
from collections.abc import Iterator, Mapping
from functools import lru_cache

from fairlead_discovery import paths
from fairlead_discovery.decisions import words
from fairlead_discovery.records import Check, Traffic, encode
from fairlead_lb.decisions.dials import casing
from fairlead_lb.decisions.naming import is_spare, spare_name
from fairlead_lb.decisions.routes import Wanted
from fairlead_lb.decisions.values import Shape, Structure

USUAL = tuple(
    casing(Shape(mode=mode, check=check, balance=balance))
    for balance in ("roundrobin", "leastconn")
    for mode, check in (
        ("http", None),
        ("http", Check()),
        ("http", Check(path="/")),
        ("http", Check(path="/", interval_s=60.0, timeout_s=20.0)),
        ("tcp", None),
        ("tcp", Check()),
    )
)
"""What most services are: with and without a health check, by HTTP (ours, or as Marathon's defaults have it) or by connecting;
the six of `leastconn` cost HAProxy 4 MB and 8 ms of a start.
"""
KINDS = 18
MOST = 250
"""Of a casing, when no setting asks for more: each is read whenever HAProxy starts, and nobody is served until then."""
LOW = 4
"""One part of so many left: more are made, in time."""


def fresh(wanted: Wanted, least: int, generation: int) -> Mapping[str, Shape]:
    """Spares of a new generation by name: as many of each casing as have it now, within `least`
    and MOST; a `least` of 0 is none.
    """
    if not least:
        return {}
    shapes = [shape for shape, count in _targets(wanted, least) for _ in range(count)]
    return {spare_name(generation, number): shape for number, shape in enumerate(shapes, 1)}


def free(structure: Structure) -> Mapping[str, Shape]:
    return {n: s for n, s in structure.shapes.items() if is_spare(n) and n not in structure.owners}


def low(structure: Structure, wanted: Wanted, least: int) -> tuple[str, ...]:
    """Reasons for a reload that has time: so few spares of a casing are left that the next services may need one."""
    if not least:
        return ()
    left = Counter(map(kind, free(structure).values()))
    return tuple(
        f"{left[kind(shape)]} of {count} spare backends are left for {kind(shape)}"
        for shape, count in _targets(wanted, least)
        if left[kind(shape)] * LOW < count
    )


def _targets(wanted: Wanted, least: int) -> Iterator[tuple[Shape, int]]:
    """Doubling the services takes one reload, up to MOST new ones of a casing."""
    used = Counter(kind(casing(b.shape)) for b in wanted.backends.values())
    shapes = {kind(s): s for s in (*USUAL, *(casing(b.shape) for b in wanted.backends.values()))}
    kinds = sorted(shapes, key=lambda text: (shapes[text] not in USUAL, -used[text], text))[:KINDS]
    yield from ((shapes[text], max(least, min(used[text], MOST))) for text in kinds)


@lru_cache(maxsize=4096)
def kind(shape: Shape) -> str:
    """`http, checked by http, leastconn` of a casing; another one has another."""
    flags = [name for name in ("sticky", "reuse", "retry_non_idempotent", "mtls", "between") if getattr(shape, name)]
    other = [f"{shape.balance}", *flags] if shape.balance != "roundrobin" or flags else []
    timeout = [f"timeout {shape.timeout_server_s:g} s"] if shape.mode == "tcp" and shape.timeout_server_s != 60 else []
    rules = [_rules(shape.traffic)] if shape.traffic != Traffic() else []
    return ", ".join([shape.mode, _checked(shape.check), *other, *timeout, *rules])


def _checked(check: Check | None) -> str:
    if check is None:
        return "unchecked"
    usual = Check(path=check.path) == check
    often = "" if usual else f" every {check.interval_s:g} s, {check.timeout_s:g} s long, {check.fall} times"
    return f"checked by {'http' if check.path else 'connecting'}{often}"


def _rules(traffic: Traffic) -> str:
    """Which there are, and a digest: what they say (passwords) is nobody's who reads reasons for a reload."""
    told = [name for name, word in words.TRAFFIC.items() if word.write(traffic)]
    return f"with {' '.join(told)} ({paths.digest(encode(traffic))})"
