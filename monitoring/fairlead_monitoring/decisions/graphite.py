"""Graphite: paths and lines. Every path is made here.

    fairlead_service_instances{service="marathon:/shop/web", state="healthy"}
    -> fairlead.service_instances.marathon_shop_web-4b1c9e.healthy

A label's value stands in the path in the order of the labels' names. What a path cannot hold becomes `_`, and six hex
digits of the value's digest follow, so that two values never share a path.
"""

import hashlib
import math
import re
from collections.abc import Iterable
from functools import lru_cache

from fairlead_monitoring.decisions.samples import Sample, Series

LONGEST_PART = 150
"""Whisper makes a file name of it, which takes 255."""
_UNFIT = re.compile(r"[^A-Za-z0-9_-]+")


@lru_cache(maxsize=50_000)
def path(prefix: str, one: Series) -> str:
    """`prefix` stands as it is; a metric of ours gives its own `fairlead_` up for it."""
    name = one.name.removeprefix("fairlead_") if prefix else one.name
    parts = [prefix, part(name), *(part(value) for _, value in one.labels)]
    return ".".join(p for p in parts if p)


def part(text: str) -> str:
    """One segment of a path. Empty becomes `none`."""
    if not text:
        return "none"
    fit = _UNFIT.sub("_", text).strip("_") if _UNFIT.search(text) else text
    if fit == text and len(text) <= LONGEST_PART:
        return text
    return f"{fit[:LONGEST_PART]}-{hashlib.sha256(text.encode()).hexdigest()[:6]}".lstrip("-")


def lines(samples: Iterable[Sample], *, prefix: str, now_s: int) -> bytes:
    """Carbon's plain text, every sample at `now_s`. What is no number is left out: carbon drops it silently."""
    return "".join(
        f"{path(prefix, sample.series)} {_number(sample.value)} {now_s}\n"
        for sample in samples
        if math.isfinite(sample.value)
    ).encode("ascii")


def _number(value: float) -> str:
    return str(int(value)) if value.is_integer() and abs(value) < 2**53 else repr(value)
