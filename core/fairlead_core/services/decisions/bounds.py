"""The least and the most of every number and text in a definition; what lies outside could not be carried out.

A grace of 1e300 s is a number, and no agent can be told it: nanoseconds of it are infinite.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from fairlead_core.services.decisions.app import App
from fairlead_core.services.decisions.problems import Problem

DAY_S = 86_400
WEEK_S = 7 * DAY_S
YEAR_S = 365 * DAY_S
INSTANCES_MOST = 5000
"""Instances of one app: their record is one node, which the registry keeps under 512 KiB."""
TEXT_MOST_BYTES = 128 * 1024 - 1
"""Linux starts no program with a longer argument or environment entry (MAX_ARG_STRLEN, its closing NUL counted)."""
ALL_TEXT_MOST_BYTES = 1024 * 1024
"""Arguments, or environment, in all: together they stay below the 2 MiB that exec takes by default."""


@dataclass(frozen=True, slots=True)
class Bound:
    """`value` None: not given."""

    path: str
    value: float | None
    least: float
    most: float

    def problems(self) -> Iterator[Problem]:
        if self.value is None:
            return
        if not math.isfinite(self.value) or self.value > self.most:
            yield Problem(path=self.path, error=f"error.max: must be at most {self.most}")
        elif self.value < self.least:
            yield Problem(path=self.path, error=f"error.min: must be at least {self.least}")


def number_problems(app: App) -> Iterator[Problem]:
    for make in BOUNDS:
        for bound in make(app):
            yield from bound.problems()


def _resources(app: App) -> Iterator[Bound]:
    yield Bound("/cpus", app.cpus, 0.001, 1_000_000)
    yield Bound("/mem", app.mem, 0, 1_000_000_000)
    yield Bound("/disk", app.disk, 0, 1_000_000_000_000)
    yield Bound("/gpus", app.gpus, 0, 1_000_000)
    yield Bound("/instances", app.instances, 0, INSTANCES_MOST)


def _backoff(app: App) -> Iterator[Bound]:
    yield Bound("/backoffSeconds", app.backoff_seconds, 0, WEEK_S)
    yield Bound("/backoffFactor", app.backoff_factor, 1, 1000)
    yield Bound("/maxLaunchDelaySeconds", app.max_launch_delay_seconds, 0, WEEK_S)
    yield Bound("/taskKillGracePeriodSeconds", app.task_kill_grace_period_seconds, 0, DAY_S)


def _unreachable(app: App) -> Iterator[Bound]:
    patience = app.unreachable_strategy
    if patience != "disabled":
        yield Bound("/unreachableStrategy/inactiveAfterSeconds", patience.inactive_after_seconds, 0, 10 * YEAR_S)
        yield Bound("/unreachableStrategy/expungeAfterSeconds", patience.expunge_after_seconds, 0, 10 * YEAR_S)


def _health(app: App) -> Iterator[Bound]:
    for position, one in enumerate(app.health_checks):
        where = f"/healthChecks({position})"
        yield Bound(f"{where}/gracePeriodSeconds", one.grace_period_seconds, 0, WEEK_S)
        yield Bound(f"{where}/intervalSeconds", one.interval_seconds, 1, DAY_S)
        yield Bound(f"{where}/timeoutSeconds", one.timeout_seconds, 1, DAY_S)
        yield Bound(f"{where}/maxConsecutiveFailures", one.max_consecutive_failures, 0, 1_000_000)
        yield Bound(f"{where}/delaySeconds", one.delay_seconds, 0, DAY_S)


BOUNDS: Sequence[Callable[[App], Iterator[Bound]]] = (_resources, _backoff, _unreachable, _health)


# --- texts -----------------------------------------------------------------------------------------------------------


def text_problems(app: App) -> Iterator[Problem]:
    """What exec would refuse: each argument and environment entry, and all of them together."""
    texts = [("/cmd", app.cmd or ""), *((f"/args({i})", text) for i, text in enumerate(app.args or ()))]
    texts += [
        (f"/healthChecks({i})/command/value", one.command.value)
        for i, one in enumerate(app.health_checks)
        if one.command is not None
    ]
    entries = [(f"/env/{name}", f"{name}={text}") for name, text in app.env.items()]
    for path, text in (*texts, *entries):
        if _size_bytes(text) > TEXT_MOST_BYTES:
            yield Problem(path=path, error=f"must not be longer than {TEXT_MOST_BYTES} bytes: exec takes no more")
    for path, found in (("/args", app.args or ()), ("/env", [text for _, text in entries])):
        if sum(_size_bytes(text) + 1 for text in found) > ALL_TEXT_MOST_BYTES:
            yield Problem(path=path, error=f"must not be longer than {ALL_TEXT_MOST_BYTES} bytes in all")


def _size_bytes(text: str) -> int:
    return len(text.encode("utf-8", "surrogatepass"))
