"""What of a backend maps turn while HAProxy runs, and the casing that only a reload changes."""

from collections.abc import Collection, Iterable, Mapping
from functools import lru_cache

import msgspec

from fairlead_lb.decisions import traffic
from fairlead_lb.decisions.splits import salt
from fairlead_lb.decisions.values import Backend, Shape

CHECK_PATH = "/"
TIMEOUT_S = 60.0
"""What the maps' absence means."""


@lru_cache(maxsize=4096)
def casing(shape: Shape) -> Shape:
    """The shape with every dial at its default. Two services of one casing may have the same backend in turn."""
    if shape.mode != "http":
        return msgspec.structs.replace(shape, traffic=traffic.cast(shape.traffic))
    check = shape.check
    if check is not None and check.path:
        check = msgspec.structs.replace(check, path=CHECK_PATH)
    return msgspec.structs.replace(shape, timeout_server_s=TIMEOUT_S, check=check, traffic=traffic.cast(shape.traffic))


def dials(backends: Collection[Backend]) -> Mapping[str, Mapping[str, str]]:
    """Every one of `values.DIALS` that the backend itself says, by its name."""
    return {
        "checks": checks(backends),
        "timeouts": timeouts(backends),
        "rates": traffic.rates(backends, "rate"),
        "client_rates": traffic.rates(backends, "client_rate"),
        "aborts": traffic.faults(backends, "abort"),
        "delays": traffic.faults(backends, "delay"),
        **{name: traffic.ceilings(backends, name) for name in traffic.CEILINGS},
        "cookies": {b.name: salt(b.key) for b in backends if b.shape.sticky and b.shape.mode == "http"},
    }


def checks(backends: Iterable[Backend]) -> Mapping[str, str]:
    """Backend -> path of its health check, where it is not the default."""
    asked = ((b.name, b.shape.check) for b in backends if b.shape.mode == "http")
    return {name: check.path for name, check in asked if check is not None and check.path not in ("", CHECK_PATH)}


def timeouts(backends: Iterable[Backend]) -> Mapping[str, str]:
    """Backend -> milliseconds a server may take, where it is not the default."""
    return {
        b.name: str(max(1, round(b.shape.timeout_server_s * 1000)))
        for b in backends
        if b.shape.mode == "http" and b.shape.timeout_server_s != TIMEOUT_S
    }
