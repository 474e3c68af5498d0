"""The last good state on disk, for readers that start while the registry is out of sight.

A file holds it whole; what has changed since is appended to another beside it (`<file>.changes`), until that is as large:
so a change costs a write of its own size. The second names the first it belongs to, and what is torn at its end is left.
"""

import asyncio
import errno
import os
import secrets
import struct
import time
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec

from fairlead_daemon.files import replace_file
from fairlead_daemon.logs import Log
from fairlead_discovery.decisions.delta import differing
from fairlead_discovery.registry import Folder, Sight

log = Log("discovery")
FORMAT = 1
PAUSE_S = 1.0
"""At most one write in so much time: a burst of changes costs one."""
SMALL_BYTES = 1 << 16
"""Changes may take as much as this, however small the whole is."""
TOUCH_S = 10.0
"""While it is known to be true the file's time says so, this often."""


class _Stored(msgspec.Struct, frozen=True, kw_only=True):
    format: int
    cluster: str
    revision: int
    folders: Mapping[str, Mapping[str, bytes]]
    id: str = ""
    """What its changes call it."""


class _Changes(msgspec.Struct, frozen=True, kw_only=True):
    """Since the changes before: by folder, by name, the new data; None: gone. `number` counts from 1, without a gap unless
    another process has put its own file in the place of ours. `time_s`: wall clock.
    """

    of: str
    number: int
    time_s: float
    revision: int
    folders: Mapping[str, Mapping[str, bytes | None]]


_frame = struct.Struct(">II")
"""Length and checksum of what follows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """`known_s`: wall clock, when it was last known to be true."""

    cluster: str
    revision: int
    folders: Mapping[str, Mapping[str, bytes]]
    known_s: float


_decoder = msgspec.msgpack.Decoder(_Stored)
_changes_decoder = msgspec.msgpack.Decoder(_Changes)


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
    revision, folders = stored.revision, {folder: dict(nodes) for folder, nodes in stored.folders.items()}
    beside = _beside(path)
    number = 0
    try:
        for changes in _read_changes(beside.read_bytes()):
            if changes.of == stored.id and changes.number == number + 1:
                number, revision, known_s = changes.number, changes.revision, max(known_s, changes.time_s)
                _apply(folders, changes.folders)
    except FileNotFoundError:
        pass
    except (OSError, msgspec.DecodeError) as error:
        log.warning("changes of the last good state unreadable", file=beside, why=str(error))
    return Kept(cluster=stored.cluster, revision=revision, folders=folders, known_s=known_s)


def _beside(path: Path) -> Path:
    return path.with_name(f"{path.name}.changes")


def _read_changes(data: bytes) -> Iterator[_Changes]:
    """As far as they are whole."""
    start = 0
    while start + _frame.size <= len(data):
        size, checksum = _frame.unpack_from(data, start)
        start += _frame.size
        body = data[start : start + size]
        if len(body) < size or zlib.crc32(body) != checksum:
            return
        yield _changes_decoder.decode(body)
        start += size


def _apply(folders: dict[str, dict[str, bytes]], changed: Mapping[str, Mapping[str, bytes | None]]) -> None:
    for folder, nodes in changed.items():
        there = folders.setdefault(folder, {})
        for name, data in nodes.items():
            if data is None:
                there.pop(name, None)
            else:
                there[name] = data
        if not there:
            del folders[folder]


def _changed(before: Mapping[str, Folder], after: Mapping[str, Folder]) -> dict[str, dict[str, bytes | None]]:
    """By folder, by name: what `_apply` needs to make `after` of `before`."""
    out: dict[str, dict[str, bytes | None]] = {}
    for folder in differing(before, after, None):
        old, new = before.get(folder, {}), after.get(folder, {})
        gone: dict[str, bytes | None] = dict.fromkeys(old.keys() - new.keys())
        out[folder] = gone | {name: data for name, data in new.items() if old.get(name) is not data}
    return out


class Book:
    """The two files, as their one writer. Raises OSError. What others did to them is noticed, and written anew."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._written: Sight | None = None
        self._id = ""
        self._whole: tuple[int, int] | None = None
        """Which file on disk it is: device and number."""
        self._whole_bytes = 0
        self._changes_bytes = 0
        self._number = 0

    def save(self, sight: Sight) -> None:
        """The first time whole, also when there are old files: nobody knows what they lack. The same sight again says
        that it is still true.
        """
        written = self._written if self._ours() else None
        if written is None or written.cluster != sight.cluster or self._changes_bytes >= self._whole_bytes:
            self._save_whole(sight)
        elif written.revision != sight.revision or written.folders is not sight.folders:
            self._save_changes(sight, _changed(written.folders, sight.folders))
        else:
            os.utime(self._path)  # it is true again
        self._written = sight

    def _ours(self) -> bool:
        """Neither removed nor replaced nor added to, by a person or by another process that uses them too."""
        return _place(self._path) == self._whole and _size(_beside(self._path)) == self._changes_bytes

    def _save_whole(self, sight: Sight) -> None:
        self._written = None
        self._id = secrets.token_hex(8)
        stored = _Stored(
            format=FORMAT, cluster=sight.cluster, revision=sight.revision, folders=dict(sight.folders), id=self._id
        )
        data = msgspec.msgpack.encode(stored)
        replace_file(self._path, data, mode=0o600)
        _beside(self._path).unlink(missing_ok=True)
        self._whole = _place(self._path)
        self._whole_bytes, self._changes_bytes, self._number = max(len(data), SMALL_BYTES), 0, 0

    def _save_changes(self, sight: Sight, changed: Mapping[str, Mapping[str, bytes | None]]) -> None:
        self._number += 1
        changes = _Changes(
            of=self._id, number=self._number, time_s=time.time(), revision=sight.revision, folders=changed
        )
        body = msgspec.msgpack.encode(changes)
        data = _frame.pack(len(body), zlib.crc32(body)) + body
        self._written = None  # should it fail half way, nothing can be appended any more
        handle = os.open(_beside(self._path), os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        with os.fdopen(handle, "wb", buffering=0) as file:
            if file.write(data) != len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._changes_bytes += len(data)


def _place(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


class Keeper:
    """Writes what it was given last, rarely. A full disk is logged and tried again, every TOUCH_S at least."""

    def __init__(self, path: Path) -> None:
        self.live = False
        """Whether what was put last is known to be true at this moment."""
        self._path = path
        self._book = Book(path)
        self._sight: Sight | None = None
        self._dirty = asyncio.Event()
        self._writing: asyncio.Future[None] | None = None

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
                    if self.live and self._sight is not None:
                        await self._write()
                    continue
                await asyncio.sleep(PAUSE_S)
                await self._write()
        finally:
            if self._writing is not None:  # there is one writer at a time
                await asyncio.wait([self._writing])
            if self._dirty.is_set() and self._sight is not None:
                self._save(self._sight)

    async def _write(self) -> None:
        sight = self._sight
        assert sight is not None
        self._dirty.clear()
        self._writing = asyncio.get_running_loop().run_in_executor(None, self._save, sight)
        await asyncio.shield(self._writing)

    def _save(self, sight: Sight) -> None:
        try:
            self._book.save(sight)
        except OSError as error:
            log.warning("last good state not written", file=self._path, why=str(error))
