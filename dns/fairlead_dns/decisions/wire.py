r"""DNS' wire format, as far as we need it: names, record types, one record's bytes, a query taken apart.

A name is kept in wire form, folded to lower case: `web.mesos` is b"\x03web\x05mesos\x00".
"""

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address

A, NS, SOA, PTR, TXT, AAAA, SRV, OPT = 1, 2, 6, 12, 16, 28, 33, 41
TSIG, IXFR, AXFR, ANY = 250, 251, 252, 255
IN, CH = 1, 3
QUERY, NOTIFY, UPDATE = 0, 4, 5
TYPE_NAMES = {A: "A", NS: "NS", SOA: "SOA", PTR: "PTR", AAAA: "AAAA", SRV: "SRV"}
NOERROR, FORMERR, SERVFAIL, NXDOMAIN, NOTIMP, REFUSED, NOTAUTH, BADVERS, BADCOOKIE = 0, 1, 2, 3, 4, 5, 9, 16, 23
RCODE_NAMES = {
    NOERROR: "NOERROR",
    FORMERR: "FORMERR",
    SERVFAIL: "SERVFAIL",
    NXDOMAIN: "NXDOMAIN",
    NOTIMP: "NOTIMP",
    REFUSED: "REFUSED",
    NOTAUTH: "NOTAUTH",
    BADVERS: "BADVERS",
    BADCOOKIE: "BADCOOKIE",
}
QR, AA, TC, RD, RA = 0x8000, 0x0400, 0x0200, 0x0100, 0x0080
OPCODE_MASK = 0x7800
HEADER_BYTES = 12
NAME_LIMIT = 255
LABEL_LIMIT = 63
POINTER_LIMIT = 0x4000
HIGHEST_16 = 65535
DO = 0x8000

_OPT_START = b"\0\0\x29"
_PLAIN = b"abcdefghijklmnopqrstuvwxyz0123456789-_"
_counts = struct.Struct("!HHHH")
_rr = struct.Struct("!HHIH")
_srv = struct.Struct("!HHH")


def name(labels: Iterable[str | bytes]) -> bytes | None:
    """`("web", "mesos")` in wire form, folded. None when it is no legal name: empty label, over 63 or 255 bytes."""
    parts = [label.encode() if isinstance(label, str) else label for label in labels]
    if any(not 0 < len(part) <= LABEL_LIMIT for part in parts):
        return None
    wire = b"".join(bytes((len(part),)) + part for part in parts).lower() + b"\0"
    return wire if len(wire) <= NAME_LIMIT else None


def parse_text(text: str) -> bytes | None:
    """`Web.mesos.` or `web.mesos` -> wire form; None when it is no legal name."""
    try:
        raw = text.encode("utf-8").removesuffix(b".")
    except UnicodeEncodeError:
        return None
    return name(raw.split(b".")) if raw else b"\0"


def text(wire: bytes) -> str:
    r"""`web.mesos`, without the last dot; odd bytes as in zone files (`\032`, `\.`)."""
    parts = labels(wire)
    plain = b"".join(parts)
    if not plain.translate(None, _PLAIN):
        return b".".join(parts).decode("ascii")
    return ".".join("".join(map(_printable, label)) for label in parts)


def labels(wire: bytes) -> list[bytes]:
    found, at = [], 0
    while wire[at]:
        found.append(wire[at + 1 : at + 1 + wire[at]])
        at += 1 + wire[at]
    return found


def parent(wire: bytes) -> bytes:
    return wire[1 + wire[0] :]


def _printable(byte: int) -> str:
    if byte in b'.\\"();@$':
        return f"\\{chr(byte)}"
    return chr(byte) if 0x20 < byte < 0x7F else f"\\{byte:03d}"


@lru_cache(maxsize=65536)
def address(host: str) -> tuple[int, bytes] | None:
    """`10.0.0.1` -> (A, 4 bytes); None when it is no literal address (never publish a name as one)."""
    try:
        parsed: IPv4Address | IPv6Address = ip_address(host.strip("[]"))
    except ValueError:
        return None
    if isinstance(parsed, IPv6Address) and parsed.ipv4_mapped is not None:
        parsed = parsed.ipv4_mapped
    if parsed.is_unspecified:
        return None
    return (A if parsed.version == 4 else AAAA), parsed.packed


def address_text(rdata: bytes) -> str:
    return str(ip_address(rdata))


def reverse(rdata: bytes) -> bytes:
    """10.0.0.1's bytes -> `1.0.0.10.in-addr.arpa` in wire form."""
    pointer = ip_address(rdata).reverse_pointer
    wire = name(pointer.split("."))
    assert wire is not None
    return wire


def srv_rdata(weight: int, port: int, target: bytes) -> bytes:
    """Priority 0. The target is not compressed (RFC 2782)."""
    return _srv.pack(0, weight, port) + target


def srv_graded(rdata: bytes, tier: int, factor: int) -> bytes:
    """The same SRV data, its priority lower by `tier` and its weight `factor` times as large, both capped."""
    priority, weight, _ = _srv.unpack_from(rdata)
    graded = (min(priority + tier, HIGHEST_16), min(weight * factor, HIGHEST_16))
    return struct.pack("!HH", *graded) + rdata[4:]


def srv_target(rdata: bytes) -> bytes:
    return rdata[6:]


def srv_port(rdata: bytes) -> int:
    return rdata[4] << 8 | rdata[5]


def soa_rdata(mname: bytes, rname: bytes, serial: int, timers_s: tuple[int, int, int, int]) -> bytes:
    """`timers_s`: refresh, retry, expire, negative TTL."""
    return mname + rname + struct.pack("!IIIII", serial, *timers_s)


def record(owner: bytes, kind: int, ttl_s: int, rdata: bytes) -> bytes:
    """One resource record; `owner` is a wire name or a pointer."""
    return owner + rr(kind, IN, ttl_s, rdata)


def rr(kind: int, klass: int, ttl_s: int, rdata: bytes) -> bytes:
    """A record of any class, less its owner."""
    return _rr.pack(kind, klass, ttl_s, len(rdata)) + rdata


def pointer(offset: int) -> bytes:
    return (0xC000 | offset).to_bytes(2, "big")


def option(code: int, data: bytes = b"") -> bytes:
    """One EDNS option in wire form."""
    return code.to_bytes(2, "big") + len(data).to_bytes(2, "big") + data


def opt_record(payload_bytes: int, *, extended_rcode: int = 0, do: bool = False, ede: int | None = None) -> bytes:
    """Our OPT: version 0, no flag but DO, no option but the extended error `ede` (RFC 8914)."""
    options = b"" if ede is None else struct.pack("!HHH", 15, 2, ede)
    flags = extended_rcode << 24 | (DO if do else 0)
    return b"\0" + _rr.pack(OPT, payload_bytes, flags, len(options)) + options


def header(flags: int, answers: int = 0, authority: int = 0, additional: int = 0, *, questions: int = 1) -> bytes:
    """The ten bytes after the id, with one question unless said otherwise."""
    return flags.to_bytes(2, "big") + _counts.pack(questions, answers, authority, additional)


def reply_code(reply: bytes) -> int:
    """Of one of our own replies, the upper bits from its OPT; only replies without records can have any."""
    if any(reply[6:10]) or reply[11] != 1:
        return reply[3] & 15
    at = _opt_at(reply)
    return reply[3] & 15 if at is None else reply[at + 5] << 4 | reply[3] & 15


class MalformedError(ValueError):
    """Not a DNS query we can read: FORMERR."""


@dataclass(frozen=True, slots=True)
class Edns:
    """The query's OPT. `options`: (code, data) in the order they came."""

    payload_bytes: int
    version: int
    do: bool
    options: tuple[tuple[int, bytes], ...] = ()

    @property
    def plain(self) -> bool:
        """It carried no options, so that its bytes repeat from query to query."""
        return not self.options


@dataclass(frozen=True, slots=True)
class Query:
    """A query taken apart. `question` as asked (case kept); `name` folded; `starts` are the labels' offsets in it.

    Without a question (a cookie's own query, RFC 7873) `question` is empty, `name` the root, `kind` and `klass` 0.
    """

    question: bytes
    name: bytes
    kind: int
    klass: int
    starts: tuple[int, ...]
    edns: Edns | None
    twice: bool = False
    """There were two OPTs, which is an error with an OPT in its reply."""
    tsig_at: int | None = None
    """Where in the packet its TSIG record begins."""


@dataclass(slots=True)
class _Extra:
    """What is gathered while the records after the question are passed."""

    opts: list[Edns]
    tsig_at: int | None = None


def parse_query(packet: bytes) -> Query:
    """Raises MalformedError. The header must be there (12 bytes) and be a query's; bounded by the packet's length."""
    questions, *others = _counts.unpack_from(packet, 4)
    if questions > 1:
        raise MalformedError(f"{questions} questions")
    end, starts = _walk(packet, HEADER_BYTES) if questions else (HEADER_BYTES - 4, ())
    if end + 4 > len(packet):
        raise MalformedError("question cut")
    extra = _Extra([])
    at = end + 4
    for section, count in enumerate(others):
        for _ in range(count):
            at = _pass_record(packet, at, extra, additional=section == 2)
    if at != len(packet):
        raise MalformedError("bytes after the end")
    question = packet[HEADER_BYTES : end + 4]
    kind, klass = struct.unpack_from("!HH", question, len(question) - 4) if questions else (0, 0)
    first = extra.opts[0] if extra.opts else None
    name = question[:-4].lower() if questions else b"\0"
    return Query(question, name, kind, klass, starts, first, len(extra.opts) > 1, extra.tsig_at)


def _walk(packet: bytes, start: int) -> tuple[int, tuple[int, ...]]:
    """End of an uncompressed name, and its labels' offsets in it. Raises MalformedError."""
    at = start
    starts: list[int] = []
    while True:
        if at >= len(packet) or at - start >= NAME_LIMIT:
            raise MalformedError("name cut or too long")
        length = packet[at]
        if length == 0:
            return at + 1, tuple(starts)
        if length > LABEL_LIMIT:
            raise MalformedError("compressed or unknown label in a question")
        starts.append(at - start)
        at += 1 + length


def _pass_record(packet: bytes, start: int, extra: _Extra, *, additional: bool) -> int:
    """The record's end. Raises MalformedError, also for a TSIG that is not the last of all."""
    at = _skip_name(packet, start)
    if at + 10 > len(packet):
        raise MalformedError("record cut")
    kind, klass, ttl, length = _rr.unpack_from(packet, at)
    end: int = at + 10 + length
    if end > len(packet):
        raise MalformedError("record data cut")
    if extra.tsig_at is not None or (kind == TSIG and not additional):
        raise MalformedError("TSIG is not the last record")
    if kind == TSIG:
        extra.tsig_at = start
    elif kind == OPT:
        if not additional:
            raise MalformedError("OPT outside the additional section")
        if packet[start] != 0:
            raise MalformedError("OPT with a name")
        options = _options(packet, at + 10, end) if length else ()
        extra.opts.append(Edns(klass, ttl >> 16 & 0xFF, bool(ttl & DO), options))
    return end


def _skip_name(packet: bytes, at: int) -> int:
    """Past a name that may end in a pointer, which is not followed: we need no names but the question's."""
    while at < len(packet):
        length = packet[at]
        if length == 0:
            return at + 1
        if length >= 0xC0:
            return at + 2
        if length > LABEL_LIMIT:
            raise MalformedError("unknown label")
        at += 1 + length
    raise MalformedError("name cut")


def _options(packet: bytes, at: int, end: int) -> tuple[tuple[int, bytes], ...]:
    found = []
    while at < end:
        if at + 4 > end:
            raise MalformedError("option cut")
        data = at + 4
        at = data + (packet[at + 2] << 8 | packet[at + 3])
        found.append((packet[data - 4] << 8 | packet[data - 3], packet[data:at]))
    if at != end:
        raise MalformedError("option cut")
    return tuple(found)


def skip_record(message: bytes, start: int) -> tuple[int, int]:
    """(type, end) of the record at `start` of a message. Raises MalformedError."""
    at = _skip_name(message, start)
    if at + 10 > len(message):
        raise MalformedError("record cut")
    kind, _, _, length = _rr.unpack_from(message, at)
    if at + 10 + length > len(message):
        raise MalformedError("record data cut")
    return kind, at + 10 + length


def ttls_s(message: bytes) -> Iterator[int]:
    """The TTLs of all records but OPT. Raises MalformedError."""
    counts = _counts.unpack_from(message, 4)
    at = _walk(message, HEADER_BYTES)[0] + 4 if counts[0] else HEADER_BYTES
    for _ in range(sum(counts[1:])):
        fixed = _skip_name(message, at)
        kind, at = skip_record(message, at)
        if kind != OPT:
            yield int.from_bytes(message[fixed + 4 : fixed + 8], "big")


def with_options(reply: bytes, options: bytes) -> bytes:
    """A reply of ours with `options` (in wire form) after those its OPT has; as it is when it has no OPT.

    The OPT, if there is one, must be the last record.
    """
    at = _opt_at(reply)
    if at is None:
        return reply
    length = int.from_bytes(reply[at + 9 : at + 11], "big") + len(options)
    return reply[: at + 9] + length.to_bytes(2, "big") + reply[at + 11 :] + options


def truncated(reply: bytes) -> bytes:
    """A reply of ours without its records, but its OPT, and with TC."""
    end = _walk(reply, HEADER_BYTES)[0] + 4 if reply[5] else HEADER_BYTES
    opt = b""
    at = _opt_at(reply)
    if at is not None:
        opt = reply[at : skip_record(reply, at)[1]]
    counts = _counts.pack(reply[5], 0, 0, bool(opt))
    return reply[:2] + bytes((reply[2] | TC >> 8, reply[3])) + counts + reply[HEADER_BYTES:end] + opt


def _opt_at(reply: bytes) -> int | None:
    """Nearly always our bare OPT, or that with one bare extended error: no need to pass all records."""
    if reply[-11:-8] == _OPT_START and reply[-2:] == b"\0\0":
        return len(reply) - 11
    if reply[-17:-14] == _OPT_START and reply[-8:-2] == b"\0\6\0\x0f\0\2":
        return len(reply) - 17
    counts = _counts.unpack_from(reply, 4)
    at = _walk(reply, HEADER_BYTES)[0] + 4 if counts[0] else HEADER_BYTES
    for _ in range(sum(counts[1:])):
        start, (kind, at) = at, skip_record(reply, at)
        if kind == OPT:
            return start
    return None
