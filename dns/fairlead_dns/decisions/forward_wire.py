"""The forwarder's side of the wire: the query sent on, the reply taken apart, what of it may be kept and passed on.

Of a reply's records those are kept that belong to the question (forward_chain.py). Pointers hold as long as header and
question keep their length, and the question does (only its case changes).
"""

import struct
from dataclasses import dataclass

from fairlead_dns.decisions import wire
from fairlead_dns.decisions.forward_chain import Terms, authority, chain
from fairlead_dns.decisions.forward_records import CNAME, DNAME, RRSIG, TSIG, TTL_LIMIT, Record, copied, records
from fairlead_dns.decisions.wire import MalformedError

RA, CD, AD = 0x0080, 0x0010, 0x0020
UPSTREAM_BYTES = 1232
PAD_TO_BYTES = 128
PADDING = 12
EDE = 15
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
    """What of a reply belongs to its question, less header and question."""

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

    foreign: bool = False
    """ANSWER holds only what was not asked for."""
    onward: bytes = b""
    """The name of our own that the answer leads to, of which nothing is here."""

    @property
    def useful(self) -> bool:
        return self.rcode in (wire.NOERROR, wire.NXDOMAIN) and not self.referral and not self.foreign

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


def read_reply(packet: bytes, question: bytes, terms: Terms = Terms()) -> Reply:  # noqa: B008  # frozen
    """What of a reply that is known to be to `question` belongs to it. Raises MalformedError; bounded by its length."""
    found = tuple(records(packet, wire.HEADER_BYTES + len(question)))
    if any(r.kind in (wire.OPT, TSIG) and r.section != 2 for r in found):
        raise MalformedError("OPT or TSIG outside ADDITIONAL")
    answers = [r for r in found if r.section == 0]
    made = chain(packet, answers, question, terms)
    starts = made.kept | authority(packet, found, made, terms)
    kept = tuple(r for r in found if r.start in starts)
    rcode = sum(r.ttl_s >> 24 for r in found if r.kind == wire.OPT) << 4 | packet[3] & 15
    rcode = wire.NOERROR if made.ours and rcode == wire.NXDOMAIN else rcode
    made_records, ttls = copied(packet, question, kept, terms.longest_s)
    return Reply(
        rcode=rcode,
        counts=(len(made.kept), len(kept) - len(made.kept), 0),
        records=made_records,
        additional_at=len(made_records),
        ttls=ttls,
        keep_s=_keep_s(packet, kept, rcode),
        cut=has_flag(packet, wire.TC),
        referral=_is_referral(packet, found, rcode),
        foreign=bool(answers) and not made.kept,
        onward=made.name if made.ours else b"",
    )


def _keep_s(packet: bytes, kept: tuple[Record, ...], rcode: int) -> int | None:
    answers = [r for r in kept if r.section == 0]
    ttls = [r.lasts_s(TTL_LIMIT) for r in answers]
    if rcode == wire.NXDOMAIN or all(r.kind in NO_ANSWER for r in answers):
        soas = [r for r in kept if r.section == 1 and r.kind == wire.SOA]
        if not soas and not answers:
            return None
        ttls += [min(r.lasts_s(TTL_LIMIT), _four.unpack_from(packet, r.end - 4)[0]) for r in soas]
    return min(ttls)


def _is_referral(packet: bytes, found: tuple[Record, ...], rcode: int) -> bool:
    if rcode != wire.NOERROR or has_flag(packet, wire.AA | wire.TC) or any(r.section == 0 for r in found):
        return False
    kinds = {r.kind for r in found if r.section == 1}
    return wire.NS in kinds and wire.SOA not in kinds
