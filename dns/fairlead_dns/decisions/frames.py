"""Whole replies of records: what fits, what is cut, what goes along."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from fairlead_dns.decisions import wire
from fairlead_dns.decisions.asked import View

OWNER = b"\xc0\x0c"
"""A pointer to the question: the answer's owner has the case that was asked (0x20)."""
TARGET_AT = {wire.SRV: 6, wire.NS: 0}
"""Where a type's data holds the name whose addresses go along."""
RECORD_BYTES = 12  # of one with OWNER: pointer, type, class, TTL, length


@dataclass(frozen=True, slots=True)
class Frame:
    """What every reply to one kind of query has in common. `room`: bytes for records, the OPT already off."""

    question: bytes
    flags: int
    room: int
    opt: bytes
    closed: Callable[[bytes], bytes] = View().closed
    """As View.closed: no answer in this frame has anything of such a name."""

    def cut(self) -> "Frame":
        """The same for an answer of which only a part is given."""
        return replace(self, flags=self.flags | wire.TC)

    def build(self, answers: Sequence[bytes], authority: bytes = b"", extra: Sequence[Sequence[bytes]] = ()) -> bytes:
        """All but the id. Answers that do not fit are cut with TC; extras, sets each, that do not fit are left out
        silently and whole (RFC 2181, 9).
        """
        room, flags, kept = self.room - len(authority), self.flags, list(answers)
        if sum(map(len, answers)) > room:
            kept, flags = fitting(answers, room), flags | wire.TC
        more = [] if flags & wire.TC else fitting_sets(extra, room - sum(map(len, kept)))
        counts = wire.header(flags, len(kept), 1 if authority else 0, len(more) + bool(self.opt))
        return b"".join((counts, self.question, *kept, authority, *more, self.opt))

    @property
    def answers_at(self) -> int:
        """Where the first answer begins in the message."""
        return wire.HEADER_BYTES + len(self.question)


def fitting(records: Iterable[bytes], room: int) -> list[bytes]:
    """The first ones, as many as `room` bytes hold."""
    kept = []
    for record in records:
        room -= len(record)
        if room < 0:
            break
        kept.append(record)
    return kept


def fitting_sets(sets: Iterable[Sequence[bytes]], room: int) -> list[bytes]:
    """The records of the first sets, of as many as `room` bytes hold whole."""
    kept: list[bytes] = []
    for records in sets:
        room -= sum(map(len, records))
        if room < 0:
            break
        kept += records
    return kept
