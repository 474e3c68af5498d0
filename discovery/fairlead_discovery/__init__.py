"""Records, the registry and its backends, leader election, announcing, resolving.

Contract: what two subsystems share is a frozen record of `records.py`, stored under a path of `paths.py`, written
and watched through the `Registry` protocol of `registry.py`. What a reader may believe of it is decided once,
in `reading.py`. Nothing here knows DNS, HAProxy or Mesos' HTTP API.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fairlead_discovery.resolver import Resolver as Resolver


def __getattr__(name: str) -> Any:
    """`fairlead_discovery.Resolver`, loaded when it is asked for: few who read records resolve names."""
    if name == "Resolver":
        from fairlead_discovery.resolver import Resolver  # noqa: PLC0415  # see above

        return Resolver
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
