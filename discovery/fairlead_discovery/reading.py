"""Snapshots from sights: decoding, trust, the last good state on disk. Decided once, here, for every reader."""

from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import TypeVar

from fairlead_daemon.errors import Refused
from fairlead_discovery import paths
from fairlead_discovery.records import Leaving, Member, Portless, Route, decode
from fairlead_discovery.registry import Registry, Sight
from fairlead_discovery.snapshots import Snapshot, Trust

R = TypeVar("R")


async def snapshots(registry: Registry, *, keep: Path | None = None) -> AsyncIterator[Snapshot]:  # noqa: ARG001
    """Snapshots for ever: at once (from `keep`, stale, when the registry is out of sight), then at every change of
    content or trust. `keep` is where the last good state lies across restarts. Cancel or aclose to stop.
    """
    async for sight in registry.watch():
        yield simple(sight)


def simple(sight: Sight) -> Snapshot:
    bad: dict[str, str] = {}

    def folder(path: str, kind: type[R]) -> dict[str, R]:
        out: dict[str, R] = {}
        for name, data in sight.folders.get(path, {}).items():
            try:
                out[name] = decode(kind, data, place=f"{path}/{name}")
            except Refused as error:
                bad[f"{path}/{name}"] = str(error)
        return out

    def services(root: str, kind: type[R]) -> Mapping[str, dict[str, R]]:
        keys = [p[len(root) + 1 :] for p in sight.folders if p.startswith(f"{root}/")]
        return {paths.unescape(key): folder(f"{root}/{key}", kind) for key in keys}

    leaving = {paths.unescape(k): v for k, v in folder(paths.LEAVING, Leaving).items()}
    members = {
        s: {k: v for k, v in ms.items() if paths.task_of(k) not in leaving}
        for s, ms in services(paths.ENDPOINTS, Member).items()
    }
    return Snapshot(
        revision=sight.revision,
        trust=Trust.LIVE if sight.in_sight else Trust.STALE,
        cluster=sight.cluster,
        members={s: ms for s, ms in members.items() if ms},
        portless=services(paths.PORTLESS, Portless),
        leaving=leaving,
        routes={paths.unescape(k): v for k, v in folder(paths.ROUTES, Route).items()},
        bad=bad,
    )
