"""The forwarder's side of the wire: the query sent on, the reply taken apart, what of it may be kept and passed on.

A reply's records are kept as they came: pointers into them hold as long as header and question keep their length, and
the question does (only its case changes). OPT and TSIG concern one hop and are never kept.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from fairlead_dns.decisions import wire
from fairlead_dns.decisions.wire import MalformedError

RA, CD, AD = 0x0080, 0x0010, 0x0020
CNAME, DNAME, MX, RRSIG, NSEC, TSIG, NSEC3 = 5, 39, 15, 46, 47, 250, 50
UPSTREAM_BYTES = 1232
PAD_TO_BYTES = 128
PADDING = 12
EDE = 15
TTL_LIMIT = 2**31
"""A TTL at or past it counts as 0 (RFC 2181, 8)."""
JUMPS = 64
NAME_AT = {wire.NS: 0, CNAME: 0, wire.PTR: 0, DNAME: 0, MX: 2, wire.SRV: 6, wire.SOA: 0}
"""Types whose data holds a name, and where: a broken one must not reach a client."""
NO_ANSWER = frozenset({CNAME, DNAME, RRSIG})
"""Types in ANSWER that lead to an answer without being one."""

_rr = struct.Struct("!HHIH")
_four = struct.Struct("!I")


@dataclass(frozen=True, slots=True)
class Asked:
    """What one query to an upstream was. `question` as sent, case included."""

    id: int
    question: bytes

    def is_answered_by(self, packet: bytes) -> bool:
        """Whether it is a reply with our id and our very question. The address and port are the socket's to check."""
        return self._fits(packet) and packet[wire.HEADER_BYTES :].startswith(self.question)

    def is_answered_but_for_case(self, packet: bytes) -> bool:
        """An upstream that folds names, or one who guesses: ask again where nobody can guess."""
        there = packet[wire.HEADER_BYTES : wire.HEADER_BYTES + len(self.question)]
        return self._fits(packet) and _folded(there) == _folded(self.question)

    def _fits(self, packet: bytes) -> bool:
        if len(packet) < wire.HEADER_BYTES or int.from_bytes(packet[:2], "big") != self.id:
            return False
        return bool(packet[2] & 0x80) and not packet[2] & 0x78 and packet[4:6] == b"\0\1"

    def packet(self, *, do: bool, cd: bool, padded: bool = False, edns: bool = True) -> bytes:
        """No cookie, no client subnet, nothing of the client's OPT but DO."""
        head = struct.pack("!HHHHHH", self.id, wire.RD | (CD if cd else 0), 1, 0, 0, edns) + self.question
        if not edns:
            return head
        options = _padding(len(head)) if padded else b""
        flags = wire.DO if do else 0
        return head + b"\0" + _rr.pack(wire.OPT, UPSTREAM_BYTES, flags, len(options)) + options


def mixed_case(question: bytes, noise: bytes) -> bytes:
    """The question with its letters' case drawn from `noise`, as long as it: 0x20."""
    name = bytes(b ^ (n & 0x20) if chr(b).isalpha() and b < 0x80 else b for b, n in zip(question[:-4], noise))  # noqa: B905  # noise may be longer
    return name + question[-4:]


def ede_option(code: int, text: str = "") -> bytes:
    return struct.pack("!HHH", EDE, 2 + len(text.encode()), code) + text.encode()


def opt(*, do: bool = False, options: bytes = b"") -> bytes:
    """Our OPT to a client."""
    return b"\0" + _rr.pack(wire.OPT, UPSTREAM_BYTES, wire.DO if do else 0, len(options)) + options


def has_flag(packet: bytes, flag: int) -> bool:
    return bool((packet[2] << 8 | packet[3]) & flag)


def _folded(question: bytes) -> bytes:
    return question[:-4].lower() + question[-4:]


def _padding(size: int) -> bytes:
    """An option that makes the message a multiple of PAD_TO_BYTES long (RFC 8467); 15: OPT and option header."""
    return struct.pack("!HH", PADDING, more := -(size + 15) % PAD_TO_BYTES) + bytes(more)


# --- replies ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Reply:
    """A reply without header, question, OPT and TSIG."""

    rcode: int
    counts: tuple[int, int, int] = (0, 0, 0)
    """ANSWER, AUTHORITY, ADDITIONAL."""
    records: bytes = b""
    additional_at: int = 0
    """Where ADDITIONAL begins in `records`."""
    ttls: tuple[tuple[int, int], ...] = ()
    """Of each record: where its TTL stands in `records`, and its seconds."""
    keep_s: int | None = None
    """How long it may be kept: least TTL of the answer; of a negative one, what its SOA says (RFC 2308). None: not."""
    cut: bool = False
    """TC: ask again over TCP."""
    referral: bool = False
    """The upstream names other servers and gives no answer: it does not resolve for us."""

    @property
    def useful(self) -> bool:
        return self.rcode in (wire.NOERROR, wire.NXDOMAIN) and not self.referral

    def aged(self, age_s: int) -> bytes:
        """`records` with every TTL `age_s` less, none below zero."""
        if not age_s:
            return self.records
        made = bytearray(self.records)
        for at, ttl_s in self.ttls:
            _four.pack_into(made, at, max(ttl_s - age_s, 0))
        return bytes(made)

    def stale(self, ttl_s: int) -> bytes:
        """`records` with every TTL `ttl_s` (RFC 8767)."""
        made = bytearray(self.records)
        for at, _ in self.ttls:
            _four.pack_into(made, at, ttl_s)
        return bytes(made)


@dataclass(frozen=True, slots=True)
class _Record:
    section: int
    start: int
    kind: int
    ttl_s: int
    ttl_at: int
    data_at: int
    end: int


def read_reply(packet: bytes, question: bytes) -> Reply:
    """A reply that is known to be to `question`. Raises MalformedError; bounded by the packet's length."""
    start = wire.HEADER_BYTES + len(question)
    found = tuple(_records(packet, start))
    options = [r for r in found if r.section == 2 and r.kind in (wire.OPT, TSIG)]
    if any(r.kind in (wire.OPT, TSIG) and r.section != 2 for r in found):
        raise MalformedError("OPT or TSIG outside ADDITIONAL")
    end = min((r.start for r in options), default=len(packet))  # what follows an OPT is left out: pointers stay true
    kept = tuple(r for r in found if r.start < end)
    counts = [sum(r.section == section for r in kept) for section in range(3)]
    extended = sum(r.ttl_s >> 24 for r in options if r.kind == wire.OPT)
    rcode = extended << 4 | packet[3] & 15
    return Reply(
        rcode=rcode,
        counts=(counts[0], counts[1], counts[2]),
        records=packet[start:end],
        additional_at=min((r.start for r in kept if r.section == 2), default=end) - start,
        ttls=tuple((r.ttl_at - start, _ttl_s(r)) for r in kept),
        keep_s=_keep_s(packet, kept, rcode),
        cut=has_flag(packet, wire.TC),
        referral=_is_referral(packet, kept, rcode),
    )


def _records(packet: bytes, at: int) -> Iterator[_Record]:
    counts = struct.unpack_from("!HHH", packet, 6)
    for section, count in enumerate(counts):
        for _ in range(count):
            if at >= len(packet) and has_flag(packet, wire.TC):
                return  # some cut in the middle and leave the counts
            record = _record(packet, at, section)
            yield record
            at = record.end
    if at != len(packet):
        raise MalformedError("bytes after the end")


def _record(packet: bytes, start: int, section: int) -> _Record:
    at = _name_end(packet, start)
    if at + 10 > len(packet):
        raise MalformedError("record cut")
    kind, _, ttl, length = _rr.unpack_from(packet, at)
    data, end = at + 10, at + 10 + length
    if end > len(packet):
        raise MalformedError("record data cut")
    if (offset := NAME_AT.get(kind)) is not None and length:
        _check_data(packet, kind, data + offset, end)
    return _Record(section, start, kind, ttl, at + 4, data, end)


def _check_data(packet: bytes, kind: int, at: int, end: int) -> None:
    after = _name_end(packet, at)
    if kind == wire.SOA:
        after = _name_end(packet, after) + 20
    if after != end:
        raise MalformedError("a name in a record's data is broken")


def _name_end(packet: bytes, start: int) -> int:
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


def _ttl_s(record: _Record) -> int:
    return record.ttl_s if record.ttl_s < TTL_LIMIT else 0


def _keep_s(packet: bytes, records: tuple[_Record, ...], rcode: int) -> int | None:
    answers = [r for r in records if r.section == 0]
    ttls = [_ttl_s(r) for r in answers]
    if rcode == wire.NXDOMAIN or all(r.kind in NO_ANSWER for r in answers):
        soas = [r for r in records if r.section == 1 and r.kind == wire.SOA]
        if not soas and not answers:
            return None
        ttls += [min(_ttl_s(r), _four.unpack_from(packet, r.end - 4)[0]) for r in soas]
    return min(ttls)


def _is_referral(packet: bytes, records: tuple[_Record, ...], rcode: int) -> bool:
    if rcode != wire.NOERROR or has_flag(packet, wire.AA | wire.TC) or any(r.section == 0 for r in records):
        return False
    kinds = {r.kind for r in records if r.section == 1}
    return wire.NS in kinds and wire.SOA not in kinds
