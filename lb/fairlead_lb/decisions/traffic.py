"""Traffic rules of a route as HAProxy takes them: what they may be, what of them a map turns while it runs.

Whoever wrote the record may not have read it from `words`: every text is read once more, by the same rules.
"""

from collections.abc import Iterable, Iterator, Mapping

import msgspec

from fairlead_daemon.errors import Refused
from fairlead_discovery.decisions import words
from fairlead_discovery.records import Traffic
from fairlead_lb.decisions.values import Backend

HTTP_ONLY = (
    "auth",
    "https_only",
    "hsts",
    "retry_on",
    "retry_budget",
    "abort",
    "delay",
    "strip_path",
    "location_prefix",
    "deadlines",
    "protocol",
)
_LIMITS: Mapping[str, tuple[float, float]] = {
    "server_connections": (0, 100_000),
    "server_queue": (0, 100_000),
    "queue_timeout_s": (0.01, 3_600),
    "connect_timeout_s": (0.01, 60),
    "tunnel_timeout_s": (1, 604_800),
    "retries": (0, 10),
    "eject_after": (0, 1_000),
    "eject_least": (1, 100_000),
    "eject_s": (1, 3_600),
    "max_connections": (0, 1_000_000),
    "max_pending": (0, 1_000_000),
    "break_s": (1, 3_600),
    "break_least": (1, 1_000_000),
}
EJECTING = tuple(name for name in Traffic.__struct_fields__ if name.startswith("eject_"))
"""Fields that nothing of HAProxy's configuration is made of: see `judging`."""
CEILINGS = ("max_connections", "max_pending")
PARTS = 100
"""Of a percent: shares are told to HAProxy in ten-thousandths."""


def checked_traffic(traffic: Traffic, mode: str) -> Traffic:
    """In its canonical form. Raises Refused naming the rule."""
    if traffic == _PLAIN:
        return _PLAIN
    found: dict[str, object] = {}
    for name, word in words.TRAFFIC.items():
        if not (text := word.write(traffic)):
            continue
        if mode != "http" and name in HTTP_ONLY:
            raise Refused(f"{name}: needs mode http, not {mode}")
        try:
            found.update(word.read(text))
        except words.BadLabel as error:
            raise Refused(f"{name}: {error}") from error
    made = Traffic(**found)  # type: ignore[arg-type]  # each value comes from its field's reader
    for problem in _problems(made):
        raise Refused(problem)
    return made


_PLAIN = Traffic()


def _problems(traffic: Traffic) -> Iterator[str]:
    for name, (least, most) in _LIMITS.items():
        if not least <= (value := getattr(traffic, name)) <= most:
            yield f"{name} {value:g}: not between {least:g} and {most:g}"
    if traffic.delay is not None and not 0.001 <= traffic.delay.delay_s <= 60:
        yield f"delay {traffic.delay.delay_s:g} s: not between 1 ms and 60 s"


def cast(traffic: Traffic) -> Traffic:
    """With what maps turn at its default; which rules there are stays."""
    if traffic == _PLAIN:
        return traffic
    changes: dict[str, object] = {}
    for name in ("rate", "client_rate"):
        if (rate := getattr(traffic, name)) is not None:
            changes[name] = msgspec.structs.replace(rate, count=1)
    if traffic.eject_after:
        changes |= {name: getattr(_PLAIN, name) for name in EJECTING}
    changes |= {name: 1 for name in CEILINGS if getattr(traffic, name)}
    changes |= {"break_s": _PLAIN.break_s, "break_least": _PLAIN.break_least}
    if traffic.break_at_percent:
        changes["break_at_percent"] = 100.0
    if traffic.retry_budget_percent:
        changes["retry_budget_percent"] = 100.0
    for name in ("abort", "delay"):
        if (fault := getattr(traffic, name)) is not None:
            changes[name] = msgspec.structs.replace(fault, percent=0.0)
    return msgspec.structs.replace(traffic, **changes)


def rates(backends: Iterable[Backend], name: str) -> Mapping[str, str]:
    """`rate` or `client_rate` of whoever has one: backend -> requests in its period."""
    asked = ((b.name, getattr(b.shape.traffic, name)) for b in backends)
    return {backend: str(rate.count) for backend, rate in asked if rate is not None}


def ceilings(backends: Iterable[Backend], name: str) -> Mapping[str, str]:
    """`max_connections` or `max_pending` of whoever has one."""
    asked = ((b.name, getattr(b.shape.traffic, name)) for b in backends)
    return {backend: str(most) for backend, most in asked if most}


def faults(backends: Iterable[Backend], name: str) -> Mapping[str, str]:
    """`abort` or `delay` of whoever has one: backend -> requests of 10,000."""
    asked = ((b.name, getattr(b.shape.traffic, name)) for b in backends)
    return {backend: str(round(fault.percent * PARTS)) for backend, fault in asked if fault is not None}
