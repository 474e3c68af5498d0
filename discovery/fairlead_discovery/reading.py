"""Snapshots from sights: decoding, trust, the last good state on disk. Decided once, here, for every reader.

The API below is fixed; the body is being written.
"""

from collections.abc import AsyncIterator
from pathlib import Path

from fairlead_discovery.registry import Registry
from fairlead_discovery.snapshots import Snapshot


def snapshots(registry: Registry, *, keep: Path | None = None) -> AsyncIterator[Snapshot]:
    """Snapshots for ever: at once (from `keep`, stale, when the registry is out of sight), then at every change of
    content or trust. `keep` is where the last good state lies across restarts. Cancel or aclose to stop.
    """
    raise NotImplementedError(registry, keep)
