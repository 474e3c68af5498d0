"""The records of an upstream's reply: checked, and copied so that no pointer leads into what is left out."""

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from fairlead_dns.decisions import wire
from fairlead_dns.decisions.wire import MalformedError

CNAME, DNAME, RRSIG, NSEC, TSIG, NSEC3 = 5, 39, 46, 47, 250, 50
TTL_LIMIT = 2**31
"""A TTL at or past it counts as 0 (RFC 2181, 8)."""
JUMPS = 64
SOA_NUMBERS = 20
NAMES_IN = {
    **dict.fromkeys((wire.NS, CNAME, wire.PTR, DNAME, 7, 8, 9), (0, 1)),
    **dict.fromkeys((wire.SOA, 14, 17), (0, 2)),
    **dict.fromkeys((15, 18, 21, 36), (2, 1)),
    26: (2, 2),
    wire.SRV: (6, 1),
}
"""Types whose data holds names that may be compressed: bytes before them, how many (RFC 3597, 4)."""
QUESTION = wire.pointer(wire.HEADER_BYTES)

_rr = struct.Struct("!HHIH")
_four = struct.Struct("!I")


@dataclass(frozen=True, slots=True)
class Record:
    """Where in its packet one record is. `ttl_s` as it came."""

    section: int
    start: int
    kind: int
    klass: int
    ttl_s: int
    fixed_at: int
    """End of the owner's name: type, class, TTL and length follow."""
    end: int

    @property
    def data_at(self) -> int:
        return self.fixed_at + _rr.size

    def lasts_s(self, longest_s: int) -> int:
        return min(self.ttl_s, longest_s) if self.ttl_s < TTL_LIMIT else 0


def records(packet: bytes, at: int) -> Iterator[Record]:
    """Raises MalformedError."""
    cut = bool(packet[2] << 8 & wire.TC)
    for section, count in enumerate(struct.unpack_from("!HHH", packet, 6)):
        for _ in range(count):
            if at >= len(packet) and cut:
                return  # some cut in the middle and leave the counts
            record = _record(packet, at, section)
            yield record
            at = record.end
    if at != len(packet):
        raise MalformedError("bytes after the end")


def _record(packet: bytes, start: int, section: int) -> Record:
    at = name_end(packet, start)
    if at + _rr.size > len(packet):
        raise MalformedError("record cut")
    kind, klass, ttl, length = _rr.unpack_from(packet, at)
    record = Record(section, start, kind, klass, ttl, at, at + _rr.size + length)
    if record.end > len(packet):
        raise MalformedError("record data cut")
    if kind in NAMES_IN and length:
        _check_data(packet, record)
    return record


def _check_data(packet: bytes, record: Record) -> None:
    """A broken name must not reach a client."""
    before, names = NAMES_IN[record.kind]
    at = record.data_at + before
    for _ in range(names):
        at = name_end(packet, at)
    if at + (SOA_NUMBERS if record.kind == wire.SOA else 0) != record.end:
        raise MalformedError("a name in a record's data is broken")


def name_end(packet: bytes, start: int) -> int:
    """Past a name. Raises MalformedError unless it ends, pointers go backwards only, and it is at most 255 bytes."""
    at, end, size, limit = start, 0, 0, start
    for _ in range(JUMPS + wire.NAME_LIMIT):
        if at >= len(packet):
            break
        length = packet[at]
        if length >= 0xC0:
            if at + 2 > len(packet):
                break
            end = end or at + 2
            at = (length & 0x3F) << 8 | packet[at + 1]
            if not wire.HEADER_BYTES <= at < limit:
                break
            limit = at
            continue
        size += 1 + length
        if length > wire.LABEL_LIMIT or size > wire.NAME_LIMIT:
            break
        at += 1 + length
        if not length:
            return end or at
    raise MalformedError("a record's name is broken")


def name_at(packet: bytes, at: int) -> bytes:
    """A checked name without pointers, its case as it is."""
    labels = []
    while length := packet[at]:
        if length >= 0xC0:
            at = (length & 0x3F) << 8 | packet[at + 1]
            continue
        labels.append(packet[at : at + 1 + length])
        at += 1 + length
    return b"".join(labels) + b"\0"


def copied(
    packet: bytes, question: bytes, chosen: Sequence[Record], longest_s: int
) -> tuple[bytes, tuple[tuple[int, int], ...]]:
    """The chosen records, in order, as they stand behind `question`; of each, where its TTL stands and its seconds.

    What stands at the beginning in one piece stays as it is: its pointers go backwards, into itself or the question.
    """
    at = start = wire.HEADER_BYTES + len(question)
    ttls = []
    whole = True
    for record in chosen:
        whole = whole and record.start == at
        at = record.end
        ttls.append((record.fixed_at + 4 - start, record.lasts_s(longest_s)))
    if not whole:
        return expanded(packet, chosen, longest_s, asked=question[:-4].lower())
    made = packet[start:at]
    if any(record.ttl_s != ttl_s for record, (_, ttl_s) in zip(chosen, ttls, strict=True)):
        made = _with_ttls(made, ttls)
    return made, tuple(ttls)


def _with_ttls(made: bytes, ttls: Sequence[tuple[int, int]]) -> bytes:
    patched = bytearray(made)
    for at, ttl_s in ttls:
        _four.pack_into(patched, at, ttl_s)
    return bytes(patched)


def expanded(
    packet: bytes, chosen: Sequence[Record], longest_s: int = TTL_LIMIT, *, asked: bytes = b""
) -> tuple[bytes, tuple[tuple[int, int], ...]]:
    """The same without pointers, but for owners that are the name `asked`."""
    made, ttls = bytearray(), []
    for record in chosen:
        owner = name_at(packet, record.start)
        owner = QUESTION if owner.lower() == asked else owner
        ttls.append((len(made) + len(owner) + 4, ttl_s := record.lasts_s(longest_s)))
        made += wire.record(owner, record.kind, ttl_s, _data(packet, record))
    return bytes(made), tuple(ttls)


def _data(packet: bytes, record: Record) -> bytes:
    if record.kind not in NAMES_IN or record.data_at == record.end:
        return packet[record.data_at : record.end]
    before, names = NAMES_IN[record.kind]
    at = record.data_at + before
    data = packet[record.data_at : at]
    for _ in range(names):
        data += name_at(packet, at)
        at = name_end(packet, at)
    return data + packet[at : record.end]
