"""The journal as it is kept on disk: what the names had at one serial, and every change before and after it.

    magic · frames: length, checksum, one message

`Head` says for whom it is. `Settled` is one change of all zones. `Names` are what some names had, `Based` that they were
all, at a serial. What stands after a frame that is not whole is nothing.
"""

import struct
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from zlib import crc32

import msgspec

from fairlead_dns.decisions.answer import Authority
from fairlead_dns.decisions.journal import Change, Held, NameChange, later
from fairlead_dns.decisions.ledger import Ledger

MAGIC = b"fairlead-dns-journal-1\n"
FRAME_BYTES = 256 * 1024 * 1024
MARK = b"\xa4type\xa7Settled"
"""Stands one byte after the beginning of every message that is written on."""
STEP = 200  # names a frame; about 2 ms
_head = struct.Struct("!II")


class Head(msgspec.Struct, frozen=True, tag=True):
    """Other settings make other zones: then nothing of the file is true."""

    authority: Authority
    begun_s: float
    """Unix time from which on every change is known, unless some are `forgotten`."""
    forgotten: bool = False


class Settled(msgspec.Struct, frozen=True, tag=True):
    """What changed in all zones from one serial to another."""

    before: int
    serial: int
    at_s: float
    names: Sequence[NameChange]


class Names(msgspec.Struct, frozen=True, tag=True):
    names: Mapping[bytes, Held]


class Based(msgspec.Struct, frozen=True, tag=True):
    """All names stood in the `Names` before this."""

    serial: int


Frame = Head | Settled | Names | Based
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Frame).decode


def frame(message: Frame) -> bytes:
    data = _encode(message)
    return _head.pack(len(data), crc32(data)) + data


def frames(data: memoryview) -> Iterator[tuple[memoryview, Frame]]:
    """Those that are whole, as they stand and what they say."""
    at = len(MAGIC)
    if bytes(data[:at]) != MAGIC:
        return
    while at + _head.size <= len(data):
        size, checksum = _head.unpack_from(data, at)
        end = at + _head.size + size
        if size > FRAME_BYTES or end > len(data) or crc32(data[at + _head.size : end]) != checksum:
            return
        try:
            yield data[at:end], _decode(data[at + _head.size : end])
        except msgspec.DecodeError:
            return
        at = end


@dataclass(slots=True)
class Kept:
    """What a file says: the changes that are remembered, oldest first, and what the names had at `serial`."""

    head: Head
    changes: deque[Settled]
    serial: int | None = None
    based: list[memoryview] = field(default_factory=list)
    """Frames of the names as they stood, not yet read again."""
    since: dict[bytes, Held] = field(default_factory=dict)
    """What has changed after that."""
    forgotten: bool = False
    end: int = 0
    """Where the last whole frame ends."""
    lost: bool = False
    """More than the one frame that was under way when the writer ended is not readable: changes are missing."""

    @property
    def based_bytes(self) -> int:
        return sum(len(part) for part in self.based)

    def begin_anew(self, now_s: float) -> None:
        """What is remembered begins now: nothing is said of the time before."""
        self.changes.clear()
        self.head = msgspec.structs.replace(self.head, begun_s=now_s, forgotten=False)
        self.forgotten = False

    def names(self) -> Iterator[Mapping[bytes, Held]]:
        """What every name had at `serial`, in parts."""
        for part in self.based:
            known = _decode(part[_head.size :])
            assert isinstance(known, Names)
            yield {name: held for name, held in known.names.items() if name not in self.since}
        yield {name: held for name, held in self.since.items() if held}


def read(data: memoryview, authority: Authority, most: int) -> Kept | None:
    """None when it is of other settings, or has no whole statement of what all names had. `most`: changes to remember."""
    kept: Kept | None = None
    parts: list[memoryview] = []
    end = len(MAGIC)
    for raw, message in frames(data):
        end += len(raw)
        if isinstance(message, Head):
            if message.authority != authority:
                return None
            kept = Kept(message, deque(), forgotten=message.forgotten)
        if kept is None:
            return None
        match message:
            case Names():
                parts.append(raw)
            case Based(serial=serial):
                kept.serial, kept.based, kept.since, parts = serial, parts, {}, []
            case Settled():
                _take(kept, message, most)
    if kept is None or kept.serial is None:
        return None
    kept.end, kept.lost = end, _more_follows(data, end)
    return kept


def _more_follows(data: memoryview, at: int) -> bool:
    """Whether there is anything after the frame at `at`, which is not whole. One that was being written is the last."""
    if at + _head.size > len(data):
        return False
    end: int = at + _head.size + _head.unpack_from(data, at)[0]
    if end <= len(data):
        return end < len(data)
    return bytes(data[at:]).find(MARK, _head.size + len(MARK)) >= 0  # or its length is not what was written


def _take(kept: Kept, settled: Settled, most: int) -> None:
    kept.changes.append(settled)
    if len(kept.changes) > most:
        kept.forgotten = True
        kept.changes.popleft()
    if kept.serial is not None:
        kept.serial = settled.serial
        kept.since.update((change.name, change.after) for change in settled.names)


def resume(ledger: Ledger, kept: Kept) -> Iterator[None]:
    """Puts the ledger, which has settled nothing yet, back to where it stood: what is otherwise now is a change that has
    yet to settle. In steps, between which the zone may change; to be run to the end.
    """
    assert ledger.serial is None
    assert kept.serial is not None
    ledger.zone.note = ledger.note
    left = set(ledger.zone.names)
    for part in kept.names():
        for name, held in part.items():
            left.discard(name)
            if ledger.apex_of(name) is not None and (name in ledger.before or ledger.held(name) != held):
                ledger.before[name] = held
        yield
    ledger.before.update((name, ()) for name in left if ledger.apex_of(name) is not None)
    for settled in kept.changes:
        for apex, change in changes(ledger, settled):
            ledger.journals[apex].append(change)
    for journal in ledger.journals.values():
        journal.forgotten |= kept.forgotten
    ledger.serial, ledger.begun_s = kept.serial, kept.head.begun_s


def changes(ledger: Ledger, settled: Settled) -> Iterator[tuple[bytes, Change]]:
    """One of each zone."""
    found: dict[bytes, list[NameChange]] = {apex: [] for apex in ledger.journals}
    for each in settled.names:
        apex = ledger.apex_of(each.name)
        if apex is not None:
            found[apex].append(each)
    for apex, names in found.items():
        soas = (ledger.soa(apex, settled.before), ledger.soa(apex, settled.serial))
        yield apex, Change(*soas, settled.at_s, tuple(names))


def can_follow(kept: Kept, revision: int, *, sure: bool) -> bool:
    """Whether what is known now may come after it: a registry of smaller revisions is another one. Not `sure`: the
    revision is not the registry's, but our own or that of a file.
    """
    return kept.serial is not None and (not sure or revision == kept.serial or later(revision, kept.serial))


def past(ledger: Ledger) -> list[Settled]:
    """The changes that every journal still has, oldest first."""
    journals = ledger.journals.values()
    begin_s = max((j.changes[0].at_s for j in journals if j.forgotten and j.changes), default=0.0)
    found: dict[tuple[int, int, float], list[NameChange]] = {}
    for journal in journals:
        for change in journal.changes:
            if change.at_s >= begin_s:
                found.setdefault((change.serial_before, change.serial, change.at_s), []).extend(change.names)
    return [Settled(*key, names) for key, names in sorted(found.items(), key=lambda each: each[0][2])]


def statement(names: Iterable[tuple[bytes, Held]]) -> Iterator[Names]:
    """What all names have, in parts."""
    part: dict[bytes, Held] = {}
    for name, held in names:
        part[name] = held
        if len(part) == STEP:
            yield Names(part)
            part = {}
    yield Names(part)
