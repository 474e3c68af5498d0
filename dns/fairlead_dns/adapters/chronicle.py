"""The journal on disk: read once at the start, then written on; made anew when it has grown to twice of what it must hold."""

import asyncio
import fcntl
import mmap
import os
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from fairlead_daemon.files import sync_folder
from fairlead_daemon.logs import Log
from fairlead_discovery.snapshots import Trust
from fairlead_dns.decisions import chronicle
from fairlead_dns.decisions.chronicle import Based, Frame, Head, Kept, Settled
from fairlead_dns.decisions.journal import NameChange
from fairlead_dns.names import Names

log = Log("dns")
T = TypeVar("T")
CALM_S = 0.2  # changes of one moment are written at once
END_S = 5.0  # for a disk that hangs
AGAIN_S = 30.0  # after a disk that was full or gone
LEAST_BYTES = 4 * 1024 * 1024
MOST_BYTES = 1 << 32
WRITE_BYTES = 1 << 20


@dataclass(slots=True, eq=False)
class Chronicle:
    """Owned by one task; the disk is waited for in a thread. `most_changes`: of the past that is taken up."""

    names: Names
    path: Path
    most_changes: int
    _pending: list[bytes] = field(default_factory=list)
    _news: asyncio.Event = field(default_factory=asyncio.Event)
    _based_bytes: int = -1
    """Of the file as it was made; -1: there is none that can be written on."""
    _grown_bytes: int = 0
    _writing: "asyncio.Future[None] | None" = None
    _lock: int = -1
    _resumed: asyncio.Event = field(default_factory=asyncio.Event)

    async def resume(self, *, alone: bool) -> None:
        """Puts the ledger back to where it stood when the process before ended. Without a file, or with one that cannot
        be gone on with, it begins anew. Never raises for what is wrong with the file.
        """
        try:
            await self._resume(alone=alone)
        finally:
            self._resumed.set()

    async def _resume(self, *, alone: bool) -> None:
        self.names.ledger.told = self._told
        if not await asyncio.to_thread(self._take_lock):
            log.warning("journal not kept: another process writes it", file=self.path)
            return
        kept = await asyncio.to_thread(self._read)
        if kept is None:
            return
        sure = not alone and self.names.answers.trust is Trust.LIVE
        if not chronicle.can_follow(kept, self.names.serial_now, sure=sure):
            log.warning("journal begun anew: it is of a later revision", file=self.path, serial=kept.serial)
            return
        if kept.lost:
            log.warning(
                "journal damaged: history begins now", file=self.path, serial=kept.serial, readable_bytes=kept.end
            )
            kept.begin_anew(time.time())
        for _ in chronicle.resume(self.names.ledger, kept):
            await asyncio.sleep(0)
        if not kept.lost:  # else it is made anew
            self._based_bytes, self._grown_bytes = kept.based_bytes, kept.end - kept.based_bytes
        log.info("journal taken up", file=self.path, serial=kept.serial, changes=len(kept.changes))

    @property
    def keeps(self) -> bool:
        return self._lock >= 0

    async def run(self) -> None:
        """For ever: writes what has settled. What is pending is written on the way out."""
        await self._resumed.wait()
        if not self.keeps:
            await asyncio.Event().wait()
        try:
            await self._run()
        finally:
            with suppress(OSError, TimeoutError):
                await self._end()
            os.close(self._lock)

    async def _end(self) -> None:
        """What is being written was cancelled for us, but not for its thread: nothing is put beside it."""
        if self._writing is not None:
            async with asyncio.timeout(END_S):
                await asyncio.wait({self._writing})
            self._writing.result()
        if self._based_bytes >= 0 and self._pending:
            _append(self.path, self._pending)

    async def _run(self) -> None:
        while self.names.ledger.serial is None:
            await self.names.settled.wait()
        while True:
            try:
                if self._based_bytes < 0 or self._grown_bytes > max(self._based_bytes, LEAST_BYTES):
                    await self._make()
                await self._news.wait()
                await asyncio.sleep(CALM_S)
                await self._write()
            except OSError as error:
                log.warning("journal not kept", file=self.path, why=str(error))
                self._based_bytes = -1  # it lacks something from here on
                await asyncio.sleep(AGAIN_S)

    async def _write(self) -> None:
        self._news.clear()
        parts, self._pending = self._pending, []
        self._writing = asyncio.ensure_future(asyncio.to_thread(_append, self.path, parts))
        await asyncio.shield(self._writing)
        self._grown_bytes += sum(map(len, parts))

    async def _make(self) -> None:
        """A new file: the past that is remembered, then what all names have now."""
        ledger = self.names.ledger
        view, serial, past = ledger.frozen(next(iter(ledger.journals))), ledger.serial, chronicle.past(ledger)
        assert serial is not None
        self._pending.clear()  # they are in the past
        self._based_bytes = -1  # the file as it stands lacks them: should we end now, it is not written on
        forgotten = any(journal.forgotten for journal in ledger.journals.values())
        head = Head(self.names.authority, ledger.begun_s, forgotten)
        beside = self.path.with_name(f".{self.path.name}.new")
        await asyncio.to_thread(_begin, beside)
        await self._add(beside, (head, *past))
        based = await self._add(beside, chronicle.statement(view.all_names()))
        if view.outrun:
            raise OSError("names change faster than they can be written")
        await self._add(beside, (Based(serial),))
        await asyncio.to_thread(_replace, beside, self.path)
        self._based_bytes, self._grown_bytes = based, 0

    async def _add(self, beside: Path, messages: Iterable[Frame]) -> int:
        """In steps of some milliseconds. Returns how many bytes it was."""
        parts: list[bytes] = []
        done = waiting = 0
        for message in messages:
            parts.append(chronicle.frame(message))
            waiting += len(parts[-1])
            if waiting > WRITE_BYTES:
                await asyncio.to_thread(_append, beside, parts)
                done, waiting, parts = done + waiting, 0, []
            await asyncio.sleep(0)
        await asyncio.to_thread(_append, beside, parts)
        return done + waiting

    def _told(self, before: int, serial: int, at_s: float, names: Sequence[NameChange]) -> None:
        if self.keeps:
            self._pending.append(chronicle.frame(Settled(before, serial, at_s, names)))
            self._news.set()

    def _take_lock(self) -> bool:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            handle = os.open(
                self.path.with_name(f".{self.path.name}.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644
            )
        except OSError:
            return False
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(handle)
            return False
        self._lock = handle
        return True

    def _read(self) -> Kept | None:
        """Cuts off the frame that was being written. A damaged file stays until there is another."""
        found = _mapped(self.path, lambda data: chronicle.read(data, self.names.authority, self.most_changes))
        if found is None:
            if self.path.exists():
                log.warning("journal begun anew: it is unreadable, or of other settings", file=self.path)
            return None
        try:
            if not found.lost:
                os.truncate(self.path, found.end)
        except OSError:
            return None
        return found


def _mapped(path: Path, use: Callable[[memoryview], T | None]) -> T | None:
    """What `use` makes of the file; None when there is none."""
    try:
        with path.open("rb") as stream:
            if not 0 < os.fstat(stream.fileno()).st_size < MOST_BYTES:
                return None
            return use(memoryview(mmap.mmap(stream.fileno(), 0, prot=mmap.PROT_READ)))
    except (OSError, ValueError):
        return None


def _begin(path: Path) -> None:
    path.unlink(missing_ok=True)
    _append(path, (chronicle.MAGIC,))


def _append(path: Path, parts: Sequence[bytes]) -> None:
    """Raises OSError."""
    with path.open("ab") as stream:
        stream.write(b"".join(parts))


def _replace(beside: Path, path: Path) -> None:
    with beside.open("rb") as stream:
        os.fsync(stream.fileno())
    beside.replace(path)
    sync_folder(path.parent)
