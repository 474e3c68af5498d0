r"""DNS' wire format, as far as we need it: names, record types, one record's bytes, a query taken apart.

A name is kept in wire form, folded to lower case: `web.mesos` is b"\x03web\x05mesos\x00".
"""

import struct
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address

A, NS, SOA, PTR, AAAA, SRV, OPT = 1, 2, 6, 12, 28, 33, 41
IXFR, AXFR, ANY = 251, 252, 255
IN = 1
TYPE_NAMES = {A: "A", NS: "NS", SOA: "SOA", PTR: "PTR", AAAA: "AAAA", SRV: "SRV"}
NOERROR, FORMERR, SERVFAIL, NXDOMAIN, NOTIMP, REFUSED, BADVERS = 0, 1, 2, 3, 4, 5, 16
RCODE_NAMES = {
    NOERROR: "NOERROR",
    FORMERR: "FORMERR",
    SERVFAIL: "SERVFAIL",
    NXDOMAIN: "NXDOMAIN",
    NOTIMP: "NOTIMP",
    REFUSED: "REFUSED",
    BADVERS: "BADVERS",
}
QR, AA, TC, RD = 0x8000, 0x0400, 0x0200, 0x0100
OPCODE_MASK = 0x7800
HEADER_BYTES = 12
NAME_LIMIT = 255
LABEL_LIMIT = 63
POINTER_LIMIT = 0x4000
DO = 0x8000

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


def srv_target(rdata: bytes) -> bytes:
    return rdata[6:]


def srv_port(rdata: bytes) -> int:
    return rdata[4] << 8 | rdata[5]


def soa_rdata(mname: bytes, rname: bytes, serial: int, timers_s: tuple[int, int, int, int]) -> bytes:
    """`timers_s`: refresh, retry, expire, negative TTL."""
    return mname + rname + struct.pack("!IIIII", serial, *timers_s)


def record(owner: bytes, kind: int, ttl_s: int, rdata: bytes) -> bytes:
    """One resource record; `owner` is a wire name or a pointer."""
    return owner + _rr.pack(kind, IN, ttl_s, len(rdata)) + rdata


def pointer(offset: int) -> bytes:
    return (0xC000 | offset).to_bytes(2, "big")


def opt_record(payload_bytes: int, *, extended_rcode: int = 0, do: bool = False, ede: int | None = None) -> bytes:
    """Our OPT: version 0, no flag but DO, no option but the extended error `ede` (RFC 8914)."""
    options = b"" if ede is None else struct.pack("!HHH", 15, 2, ede)
    flags = extended_rcode << 24 | (DO if do else 0)
    return b"\0" + _rr.pack(OPT, payload_bytes, flags, len(options)) + options


def header(flags: int, answers: int = 0, authority: int = 0, additional: int = 0) -> bytes:
    """The ten bytes after the id, with one question."""
    return flags.to_bytes(2, "big") + _counts.pack(1, answers, authority, additional)


def reply_code(reply: bytes) -> int:
    """Of one of our own replies: only BADVERS is NOERROR in the header with nothing in ANSWER and AUTHORITY, uncut."""
    if reply[3] & 15 or any(reply[6:10]) or reply[2] & TC >> 8:
        return reply[3] & 15
    return BADVERS


class MalformedError(ValueError):
    """Not a DNS query we can read: FORMERR."""


@dataclass(frozen=True, slots=True)
class Edns:
    """The query's OPT. `plain`: it carried no options, so that its bytes repeat from query to query."""

    payload_bytes: int
    version: int
    do: bool
    plain: bool


@dataclass(frozen=True, slots=True)
class Query:
    """A query taken apart. `question` as asked (case kept); `name` folded; `starts` are the labels' offsets in it."""

    question: bytes
    name: bytes
    kind: int
    klass: int
    starts: tuple[int, ...]
    edns: Edns | None
    twice: bool = False
    """There were two OPTs, which is an error with an OPT in its reply."""


def parse_query(packet: bytes) -> Query:
    """Raises MalformedError. The header must be there (12 bytes) and be a query's; bounded by the packet's length."""
    questions, *others = _counts.unpack_from(packet, 4)
    if questions != 1:
        raise MalformedError(f"{questions} questions")
    end, starts = _walk(packet, HEADER_BYTES)
    if end + 4 > len(packet):
        raise MalformedError("question cut")
    question = packet[HEADER_BYTES : end + 4]
    opts, at = [], end + 4
    for section, count in enumerate(others):
        for _ in range(count):
            at, edns = _skip_record(packet, at, additional=section == 2)
            if edns is not None:
                opts.append(edns)
    if at != len(packet):
        raise MalformedError("bytes after the end")
    kind, klass = struct.unpack_from("!HH", question, len(question) - 4)
    first = opts[0] if opts else None
    return Query(question, question[:-4].lower(), kind, klass, starts, first, len(opts) > 1)


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


def _skip_record(packet: bytes, start: int, *, additional: bool) -> tuple[int, Edns | None]:
    at = _skip_name(packet, start)
    if at + 10 > len(packet):
        raise MalformedError("record cut")
    kind, klass, ttl, length = _rr.unpack_from(packet, at)
    end = at + 10 + length
    if end > len(packet):
        raise MalformedError("record data cut")
    if kind != OPT or not additional:
        return end, None
    if packet[start] != 0:
        raise MalformedError("OPT with a name")
    _check_options(packet, at + 10, end)
    return end, Edns(klass, ttl >> 16 & 0xFF, bool(ttl & DO), length == 0)


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


def _check_options(packet: bytes, at: int, end: int) -> None:
    while at < end:
        if at + 4 > end:
            raise MalformedError("option cut")
        at += 4 + (packet[at + 2] << 8 | packet[at + 3])
    if at != end:
        raise MalformedError("option cut")
