"""Messages of whole record sets, with compressed names: for zones whose answers are not prebuilt, and for transfers."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from fairlead_dns.decisions import wire

CNAME, MX, DNAME, DS = 5, 15, 39, 43
NAMES_AT = {wire.NS: (0, 1), CNAME: (0, 1), wire.PTR: (0, 1), wire.SOA: (0, 2), MX: (2, 1)}
"""Types of RFC 1035 whose data may be compressed (RFC 3597, 4): where its names begin, and how many there are."""


@dataclass(frozen=True, slots=True)
class RRset:
    """Records of one owner and type, which share their TTL. Names in wire form."""

    owner: bytes
    kind: int
    ttl_s: int
    data: tuple[bytes, ...]


@dataclass(slots=True)
class Packer:
    """One message being put together after its header and question. Room is counted from the message's start."""

    question: bytes
    room: int
    asked: bytes = b""
    """The question's name, folded: owners below it point into the question, so that its case is echoed."""
    counts: list[int] = field(default_factory=lambda: [0, 0, 0])
    _parts: list[bytes] = field(default_factory=list)
    _at: int = 0
    _known: dict[bytes, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._at = wire.HEADER_BYTES + len(self.question)
        at = wire.HEADER_BYTES
        name = self.asked
        while len(name) > 1:
            self._known[name] = at
            at += 1 + name[0]
            name = wire.parent(name)

    def add(self, section: int, owner: bytes, kind: int, ttl_s: int, data: bytes) -> bool:
        """One record; False when it does not fit, and then nothing is changed."""
        mark = self._at
        packed_owner = self._name(owner, mark)
        data_at = mark + len(packed_owner) + 10
        packed = self._data(kind, data, data_at)
        end = data_at + len(packed)
        if end > self.room:
            self._forget(mark)
            return False
        self._parts.append(wire.record(packed_owner, kind, ttl_s, packed))
        self._at = end
        self.counts[section] += 1
        return True

    def add_set(self, section: int, rrset: RRset) -> bool:
        """All of a set or nothing of it (RFC 2181, 9)."""
        mark, count, parts = self._at, self.counts[section], len(self._parts)
        if all(self.add(section, rrset.owner, rrset.kind, rrset.ttl_s, data) for data in rrset.data):
            return True
        del self._parts[parts:]
        self._at, self.counts[section] = mark, count
        self._forget(mark)
        return False

    def message(self, number: bytes, flags: int, opt: bytes = b"") -> bytes:
        """The whole of it: `number` is the id's two bytes, `opt` the OPT record, whose room the caller has kept."""
        counts = (*self.counts[:2], self.counts[2] + bool(opt))
        head = number + wire.header(flags, *counts, questions=bool(self.question))
        return b"".join((head, self.question, *self._parts, opt))

    def _forget(self, mark: int) -> None:
        for name in [name for name, at in self._known.items() if at >= mark]:
            del self._known[name]

    def _data(self, kind: int, data: bytes, at: int) -> bytes:
        begins, names = NAMES_AT.get(kind, (0, 0))
        if not names:
            return data
        packed = data[:begins]
        for _ in range(names):
            end = _past(data, begins)
            packed += self._name(data[begins:end], at + len(packed))
            begins = end
        return packed + data[begins:]

    def _name(self, name: bytes, at: int) -> bytes:
        """As much of it as is new, then a pointer. Case counts: a name is written as it stands, or not at all."""
        head, rest = 0, name
        while len(rest) > 1:
            known = self._known.get(rest)
            if known is not None:
                return name[:head] + wire.pointer(known)
            if at + head < wire.POINTER_LIMIT:
                self._known[rest] = at + head
            head += 1 + rest[0]
            rest = name[head:]
        return name


def reply(  # noqa: PLR0913  # a message has so many parts
    number: bytes,
    question: bytes,
    flags: int,
    sections: Sequence[Iterable[RRset]],
    *,
    room: int,
    opt: bytes = b"",
    needed: frozenset[bytes] = frozenset(),
) -> bytes:
    """Answer, authority, additional: cut with TC when one of the first two does not fit whole, or the addresses of the
    names in `needed` do not (glue, RFC 9471); other additional sets are left out silently.
    """
    packer = Packer(question, room - len(opt), question[:-4].lower())
    answer, authority, additional = sections
    cut = not all(packer.add_set(0, rrset) for rrset in answer) or not all(
        packer.add_set(1, rrset) for rrset in authority
    )
    if not cut:
        for rrset in additional:
            if not packer.add_set(2, rrset) and rrset.owner in needed:
                cut = True
    return packer.message(number, flags | (wire.TC if cut else 0), opt)


def _past(data: bytes, at: int) -> int:
    while data[at]:
        at += 1 + data[at]
    return at + 1
