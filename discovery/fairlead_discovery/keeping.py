"""The last good state on disk, for readers that start while the registry is out of sight."""

import asyncio
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec

from fairlead_daemon.files import replace_file
from fairlead_daemon.logs import Log
from fairlead_discovery.registry import Sight

log = Log("discovery")
FORMAT = 1
PAUSE_S = 1.0
"""At most one write in so much time: a burst of changes costs one."""
TOUCH_S = 10.0
"""While it is known to be true the file's time says so, this often."""


class _Stored(msgspec.Struct, frozen=True, kw_only=True):
    format: int
    cluster: str
    revision: int
    folders: Mapping[str, Mapping[str, bytes]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """`known_s`: wall clock, when it was last known to be true."""

    cluster: str
    revision: int
    folders: Mapping[str, Mapping[str, bytes]]
    known_s: float


_decoder = msgspec.msgpack.Decoder(_Stored)


def load(path: Path) -> Kept | None:
    """None when there is no file, or none that we can read (the log says why)."""
    try:
        stored = _decoder.decode(path.read_bytes())
        known_s = path.stat().st_mtime
    except FileNotFoundError:
        return None
    except (OSError, msgspec.DecodeError) as error:
        log.warning("last good state unreadable", file=path, why=str(error))
        return None
    if stored.format != FORMAT:
        log.warning("last good state of another format", file=path, format=stored.format)
        return None
    return Kept(cluster=stored.cluster, revision=stored.revision, folders=stored.folders, known_s=known_s)


def save(path: Path, sight: Sight) -> None:
    """Atomic. Raises OSError."""
    stored = _Stored(format=FORMAT, cluster=sight.cluster, revision=sight.revision, folders=sight.folders)
    replace_file(path, msgspec.msgpack.encode(stored), mode=0o600)


class Keeper:
    """Writes what it was given last, rarely. A full disk is logged and tried again with the next change."""

    def __init__(self, path: Path) -> None:
        self.live = False
        """Whether what was put last is known to be true at this moment."""
        self._path = path
        self._sight: Sight | None = None
        self._dirty = asyncio.Event()

    def put(self, sight: Sight) -> None:
        self._sight = sight
        self._dirty.set()

    async def run(self) -> None:
        try:
            while True:
                try:
                    async with asyncio.timeout(TOUCH_S):
                        await self._dirty.wait()
                except TimeoutError:
                    self._touch()
                    continue
                await asyncio.sleep(PAUSE_S)
                await self._write()
        finally:
            if self._dirty.is_set() and self._sight is not None:
                self._save(self._sight)

    async def _write(self) -> None:
        sight = self._sight
        assert sight is not None
        self._dirty.clear()
        await asyncio.to_thread(self._save, sight)

    def _save(self, sight: Sight) -> None:
        try:
            save(self._path, sight)
        except OSError as error:
            log.warning("last good state not written", file=self._path, why=str(error))

    def _touch(self) -> None:
        if self.live:
            try:
                os.utime(self._path)
            except OSError as error:
                log.debug("last good state not touched", file=self._path, why=str(error))
