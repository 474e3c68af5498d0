"""The folder of master files: each `NAME.zone` a zone, read again when one of its files changes."""

import asyncio
import stat
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from fairlead_daemon.logs import Log
from fairlead_dns.adapters.regular import READ_S, Aside, read_text
from fairlead_dns.decisions import wire
from fairlead_dns.decisions.asked import EDE_NOT_READY, Asked, error
from fairlead_dns.decisions.journal import Change, later
from fairlead_dns.decisions.static import BadZoneError, StaticZone, compile_zone, difference

log = Log("dns")
LOOK_S = 1.0
READING_S = 600.0  # of one zone: two million records take about one
FILE_BYTES = 512 * 1024 * 1024
SUFFIX = ".zone"
Mark = tuple[int, int, int]
"""A file's time of change, size and inode: what changes when it is written or replaced."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """A zone and the files it was made of."""

    zone: StaticZone
    marks: Mapping[str, Mark | None]


class Unloaded:
    """Answers for a zone whose file has not been read, or has been wrong since the start: SERVFAIL, for the names are ours."""

    def reply(self, asked: Asked) -> bytes:
        return error(asked, wire.SERVFAIL, ede=EDE_NOT_READY)


@dataclass(slots=True)
class ZoneFolder:
    """`took(apex, zone, change)` is told of each zone that appears (no change), changes or goes (no zone);
    `refused(apex)` of one that cannot be read. One that was served before is served on.
    """

    folder: Path
    took: Callable[[bytes, StaticZone | None, Change | None], None]
    refused: Callable[[bytes], None]
    loaded: dict[bytes, Loaded] = field(default_factory=dict)
    _broken: dict[bytes, Mapping[str, Mark | None]] = field(default_factory=dict)
    again: asyncio.Event = field(default_factory=asyncio.Event)
    """Set: look at once, and read everything anew."""
    _second: dict[str, str] = field(default_factory=dict)
    """Files not read, for another one gives their zone -> that one."""
    _claimed: set[bytes] = field(default_factory=set)
    """Refused before they were read."""
    _aside: Aside = field(default_factory=Aside)

    @property
    def broken(self) -> int:
        """How many files are wrong as they stand."""
        return len(self._broken) + len(self._second)

    async def run(self) -> None:
        while True:
            try:
                async with asyncio.timeout(LOOK_S):
                    await self.again.wait()
                self._broken.clear()
            except TimeoutError:
                pass
            everything = self.again.is_set()
            self.again.clear()
            await self.look(everything=everything)

    async def claim(self) -> None:
        """Refuses what has not been read yet: names that files are there for are nobody else's to answer."""
        with suppress(OSError):  # `look` says so; a timeout is one
            for apex in await self._aside.run(lambda: _zones(self.folder), READ_S):
                self._claimed.add(apex)
                self.refused(apex)

    async def look(self, *, everything: bool = False) -> None:
        """Takes what has changed since the last look. Never raises for what stands in the folder."""
        try:
            there = await self._aside.run(lambda: _zones(self.folder), READING_S)
            there = {apex: self._ordered(apex, files) for apex, files in there.items()}
        except OSError as failed:
            log.warning("zones_dir cannot be read", folder=self.folder, why=str(failed) or "takes too long")
            return
        for apex in {*self.loaded, *self._broken, *self._claimed} - there.keys():
            self._drop(apex)
        self._judge_seconds(there)
        for apex, (file, *_) in there.items():
            read = Reading(self.folder)
            try:
                if everything or await self._aside.run(partial(self._differs, apex), READING_S):
                    await self._load(apex, file, read)
            except TimeoutError:
                log.warning("zone file takes too long to read", zone=wire.text(apex), file=file)
                return
            except BadZoneError as wrong:
                self._refuse(apex, read, str(wrong))
            except Exception as wrong:  # noqa: BLE001  # one file must not end what serves all the others
                self._refuse(apex, read, f"{file}: {type(wrong).__name__}: {wrong}")

    def _ordered(self, apex: bytes, files: list[str]) -> list[str]:
        """The file that gives the zone so far stays the one that does."""
        known = self.loaded.get(apex)
        serving = next(iter(known.marks), "") if known else ""
        return sorted(files, key=lambda file: (file != serving, file))

    def _judge_seconds(self, there: Mapping[bytes, list[str]]) -> None:
        """Two spellings of one name: which of them counts must not depend on the order of a folder."""
        second = {file: files[0] for files in there.values() for file in files[1:]}
        for file, first in second.items():
            if self._second.get(file) != first:
                log.warning("zone file refused: another file gives the same zone", file=file, served=first)
        self._second = second

    def _differs(self, apex: bytes) -> bool:
        known = self.loaded.get(apex)
        marks = self._broken.get(apex)
        if marks is None and known is not None:
            marks = known.marks
        return marks is None or any(_mark(self.folder / file) != mark for file, mark in marks.items())

    async def _load(self, apex: bytes, file: str, read: "Reading") -> None:
        """Raises whatever is wrong with the zone."""
        start_s = time.perf_counter()
        zone = await self._aside.run(lambda: read.zone(file, apex), READING_S)
        self._broken.pop(apex, None)
        old = self.loaded.get(apex)
        self.loaded[apex] = Loaded(zone, dict(read.marks))
        for warning in zone.warnings:
            log.warning("doubtful zone", zone=wire.text(apex), what=warning)
        if old is not None and old.zone.names == zone.names:
            return
        change = None
        if old is not None:
            change = await self._aside.run(partial(difference, old.zone, zone, at_s=time.time()), READING_S)
            self._judge_serial(old.zone, zone)
        log.info(
            "zone loaded",
            zone=wire.text(apex),
            serial=zone.serial,
            names=len(zone.names),
            took_ms=(time.perf_counter() - start_s) * 1000,
        )
        self.took(apex, zone, change)

    def _refuse(self, apex: bytes, read: "Reading", why: str) -> None:
        self._broken[apex] = dict(read.marks)
        kept = "the zone as it was" if apex in self.loaded else "nothing"
        log.warning("zone refused", zone=wire.text(apex), why=why, serving=kept)
        self.refused(apex)

    def _judge_serial(self, old: StaticZone, zone: StaticZone) -> None:
        if later(zone.serial, old.serial):
            return
        log.warning(
            "a zone changed and its serial did not rise: secondaries will not fetch it; raise the serial",
            zone=wire.text(zone.apex),
            serial=zone.serial,
            before=old.serial,
        )

    def _drop(self, apex: bytes) -> None:
        self.loaded.pop(apex, None)
        self._broken.pop(apex, None)
        self._claimed.discard(apex)
        log.info("zone file is gone, zone no longer served", zone=wire.text(apex))
        self.took(apex, None, None)


@dataclass(slots=True)
class Reading:
    """One zone being read, and which files it was made of, as they were then."""

    folder: Path
    marks: dict[str, Mark | None] = field(default_factory=dict)

    def zone(self, file: str, apex: bytes) -> StaticZone:
        """Raises BadZoneError that names file, line and reason."""
        from fairlead_dns.decisions.masterfile import parse  # noqa: PLC0415  # dnspython costs 60 ms: only with zone files

        return compile_zone(apex, parse(file, apex, self.read))

    def read(self, file: str) -> str:
        self.marks[file] = _mark(
            self.folder / file
        )  # before anything can be wrong: it is not read again until it changes
        try:
            root = self.folder.resolve()
            path = (root / file).resolve()
        except (OSError, ValueError, RuntimeError) as failed:  # a loop of links, a zero byte
            raise BadZoneError(f"{file}: {failed}") from failed
        if not path.is_relative_to(root):
            raise BadZoneError(f"{file} lies outside of zones_dir")
        try:
            return read_text(path, FILE_BYTES)
        except OSError as failed:
            raise BadZoneError(f"{file}: {failed.strerror}") from failed
        except UnicodeDecodeError as failed:
            raise BadZoneError(f"{file}: not UTF-8 at byte {failed.start}") from failed


def _zones(folder: Path) -> dict[bytes, list[str]]:
    """Files by the zone that their names say; a name may be spelled in several ways."""
    found: dict[bytes, list[str]] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix == SUFFIX and _is_meant(path):
            apex = wire.parse_text(path.name.removesuffix(SUFFIX))
            if apex is not None and apex != b"\0":
                found.setdefault(apex, []).append(path.name)
    return found


def _is_meant(path: Path) -> bool:
    """No folder, no link to nothing. What is no regular file either is refused, with the reason, when it is read."""
    try:
        return not stat.S_ISDIR(path.stat().st_mode)
    except FileNotFoundError:
        return False
    except OSError:
        return True


def _mark(path: Path) -> Mark | None:
    try:
        found = path.stat()
    except (OSError, ValueError):
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
