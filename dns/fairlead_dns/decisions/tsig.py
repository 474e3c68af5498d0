"""Signed messages (TSIG, RFC 8945): who asks, proved by a shared secret; and the same for our replies. Pure.

A TSIG is the last record of a message. Over one TCP stream of several messages each signature covers the one before.
"""

import hashlib
import hmac
import re
import struct
from base64 import b64decode
from binascii import Error as Base64Error
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum

from fairlead_dns.decisions import wire

TSIG, CLASS_ANY, NOTAUTH = 250, 255, 9
FUDGE_S = 300
LEAST_MAC_BYTES = 10
_rr = struct.Struct("!HHIH")
_counts = struct.Struct("!HHHH")


class Error(IntEnum):
    """What a signature was found to be, as the wire says it."""

    NONE = 0
    BADSIG = 16
    BADKEY = 17
    BADTIME = 18
    BADTRUNC = 22


def _algorithm(name: str) -> bytes:
    wired = wire.name(name.split("."))
    assert wired is not None
    return wired


ALGORITHMS: Mapping[bytes, str] = {
    _algorithm(f"hmac-{digest}"): digest for digest in ("sha1", "sha224", "sha256", "sha384", "sha512")
}
"""Wire name -> hashlib's name. MD5 is left out: RFC 8945 keeps it for old peers only."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """A shared secret. `name` and `algorithm` in wire form, folded."""

    name: bytes
    algorithm: bytes
    secret: bytes

    def __repr__(self) -> str:
        return f"Key({wire.text(self.name)})"  # a secret stands in no log


@dataclass(frozen=True, slots=True, kw_only=True)
class Signature:
    """A message's TSIG taken apart. `start` is its offset in the message; names folded."""

    start: int
    key: bytes
    algorithm: bytes
    time_s: int
    fudge_s: int
    mac: bytes
    original_id: int
    error: int
    other: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """`key` is None when the signature proves nothing, except with BADTIME and BADTRUNC: then the reply is signed."""

    signature: Signature
    error: Error
    key: Key | None


def find(packet: bytes) -> Signature | None:
    """The TSIG of a message that stands alone at its end; None when it has none. Raises MalformedError."""
    questions, *others = _counts.unpack_from(packet, 4)
    at = wire.HEADER_BYTES
    for _ in range(questions):
        at = _past_name(packet, at) + 4
    left = sum(others)
    while left:
        left -= 1
        start, at = at, _past_name(packet, at)
        if at + 10 > len(packet):
            raise wire.MalformedError("record cut")
        kind, klass, ttl, length = _rr.unpack_from(packet, at)
        data, at = at + 10, at + 10 + length
        if at > len(packet):
            raise wire.MalformedError("record data cut")
        if kind == TSIG:
            if left or not others[2] or at != len(packet) or klass != CLASS_ANY or ttl:
                raise wire.MalformedError("TSIG is not the last record")
            return _taken_apart(packet, start, data)
    return None


def verify(packet: bytes, signature: Signature, keys: Mapping[bytes, Key], *, now_s: int) -> Verdict:
    """Judges a request's signature. Raises MalformedError for a MAC of impossible length."""
    key = keys.get(signature.key)
    if key is None or key.algorithm != signature.algorithm:
        return Verdict(signature=signature, error=Error.BADKEY, key=None)
    expected = _mac(key, unsigned(packet, signature), _variables(signature))
    if not max(LEAST_MAC_BYTES, len(expected) // 2) <= len(signature.mac) <= len(expected):
        raise wire.MalformedError("MAC of impossible length")
    if not hmac.compare_digest(expected[: len(signature.mac)], signature.mac):
        return Verdict(signature=signature, error=Error.BADSIG, key=None)
    if len(signature.mac) < len(expected):
        return Verdict(signature=signature, error=Error.BADTRUNC, key=key)
    if abs(now_s - signature.time_s) > signature.fudge_s:
        return Verdict(signature=signature, error=Error.BADTIME, key=key)
    return Verdict(signature=signature, error=Error.NONE, key=key)


def unsigned(packet: bytes, signature: Signature) -> bytes:
    """The message as it was before it was signed."""
    additional = (packet[10] << 8 | packet[11]) - 1
    head = signature.original_id.to_bytes(2, "big") + packet[2:10] + additional.to_bytes(2, "big")
    return head + packet[wire.HEADER_BYTES : signature.start]


def room_bytes(verdict: Verdict) -> int:
    """What a reply's TSIG will take of its room."""
    signature = verdict.signature
    mac = hashlib.new(ALGORITHMS[verdict.key.algorithm]).digest_size if verdict.key else 0
    return len(signature.key) + 10 + len(signature.algorithm) + 16 + mac + 6


def signed_reply(
    reply: bytes, verdict: Verdict, *, now_s: int, before: bytes, following: bool = False
) -> tuple[bytes, bytes]:
    """A reply with the TSIG its request's verdict asks for, and its MAC. `before` is the MAC of the request, or of the
    message before when it is `following` in a stream.
    """
    signature, key = _reply_signature(verdict, reply, now_s), verdict.key
    if key is None:
        return _attached(reply, signature, b""), b""
    variables = _timers(signature) if following else _variables(signature)
    mac = _mac(key, len(before).to_bytes(2, "big"), before, reply, variables)
    return _attached(reply, signature, mac), mac


def sign_request(packet: bytes, key: Key, *, now_s: int) -> bytes:
    """A request of ours, signed; its MAC (`find(…).mac`) is what the reply's signature covers."""
    signature = _own(key, packet, now_s)
    return _attached(packet, signature, _mac(key, packet, _variables(signature)))


def proves_reply(reply: bytes, key: Key, request_mac: bytes, *, now_s: int) -> bool:
    """Whether a reply to our signed request is signed by the same key, in time and without error."""
    try:
        signature = find(reply)
    except (wire.MalformedError, struct.error, IndexError):
        return False
    if signature is None or signature.error or signature.key != key.name or signature.algorithm != key.algorithm:
        return False
    covered = len(request_mac).to_bytes(2, "big") + request_mac + unsigned(reply, signature)
    in_time = abs(now_s - signature.time_s) <= signature.fudge_s
    return in_time and hmac.compare_digest(_mac(key, covered, _variables(signature)), signature.mac)


@dataclass(slots=True)
class KeyRing:
    """What the front asks (front.Keys). Replaced as a whole when the keys are read anew."""

    keys: Mapping[bytes, Key]

    def check(self, packet: bytes, tsig_at: int, now_s: float) -> "Checked":  # noqa: ARG002  # where it is, is found again with its bounds
        """What cannot be read is FORMERR, whoever signed it."""
        try:
            signature = find(packet)
            verdict = verify(packet, signature, self.keys, now_s=int(now_s)) if signature else None
        except wire.MalformedError:
            signature = verdict = None
        if signature is None:
            return Checked(verdict=None, now_s=int(now_s))
        return Checked(verdict=verdict, now_s=int(now_s), _before=signature.mac)


@dataclass(slots=True)
class Checked:
    """A request's signature, judged, and the state of its replies' signatures (front.Signed)."""

    verdict: Verdict | None
    now_s: int
    _before: bytes = b""
    _following: bool = False

    key: bytes = field(init=False, default=b"")
    error: int = field(init=False, default=wire.FORMERR)
    room: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        if self.verdict is not None:
            self.key, self.error = self.verdict.signature.key, self.verdict.error
            self.room = room_bytes(self.verdict)

    def sign(self, reply: bytes) -> bytes:
        """In order, for a stream: each signature covers the one before."""
        if self.verdict is None:
            return reply[:3] + bytes((reply[3] & 0xF0 | wire.FORMERR,)) + reply[4:]
        signed, self._before = signed_reply(
            reply, self.verdict, now_s=self.now_s, before=self._before, following=self._following
        )
        self._following = True
        return signed


_STATEMENT = re.compile(r'key\s+"?([^\s"{}]+)"?\s*\{([^}]*)\}\s*;?')
_CLAUSE = re.compile(r'\s*(algorithm|secret)\s+"?([^\s";]+)"?\s*;')
_COMMENT = re.compile(r'("[^"]*")|/\*.*?\*/|(?:#|//)[^\n]*', re.DOTALL)  # a quoted secret may hold two slashes


def parse_keys(text: str) -> dict[bytes, Key]:
    """Keys by name from what `tsig-keygen` prints (BIND's syntax). Raises ValueError that names key and reason."""
    keys: dict[bytes, Key] = {}
    bare = _COMMENT.sub(lambda found: found[1] or " ", text)
    rest = _STATEMENT.sub("", bare).strip()
    if rest:
        raise ValueError(f'not a key statement: {rest.split()[0]!r}, expected key "name" {{ algorithm …; secret …; }};')
    for name, body in _STATEMENT.findall(bare):
        key = _parse_key(name, body)
        if key.name in keys:
            raise ValueError(f"key {name}: given twice")
        keys[key.name] = key
    return keys


def _parse_key(name: str, body: str) -> Key:
    clauses = dict(_CLAUSE.findall(body))
    if _CLAUSE.sub("", body).strip() or clauses.keys() != {"algorithm", "secret"}:
        raise ValueError(f"key {name}: expected algorithm and secret, each once")
    wired, algorithm = wire.parse_text(name), wire.parse_text(clauses["algorithm"])
    if wired is None or wired == b"\0":
        raise ValueError(f"key {name}: no legal name")
    if algorithm is None or algorithm not in ALGORITHMS:
        known = ", ".join(map(wire.text, ALGORITHMS))
        raise ValueError(f"key {name}: algorithm {clauses['algorithm']} is none of {known}")
    try:
        secret = b64decode(clauses["secret"], validate=True)
    except Base64Error as error:
        raise ValueError(f"key {name}: the secret is no base64") from error
    if not secret:
        raise ValueError(f"key {name}: the secret is empty")
    return Key(name=wired, algorithm=algorithm, secret=secret)


def _mac(key: Key, *parts: bytes) -> bytes:
    return hmac.digest(key.secret, b"".join(parts), ALGORITHMS[key.algorithm])


def _timers(signature: Signature) -> bytes:
    return signature.time_s.to_bytes(6, "big") + signature.fudge_s.to_bytes(2, "big")


def _variables(signature: Signature) -> bytes:
    head = signature.key + struct.pack("!HI", CLASS_ANY, 0) + signature.algorithm + _timers(signature)
    return head + struct.pack("!HH", signature.error, len(signature.other)) + signature.other


def _own(key: Key, packet: bytes, now_s: int) -> Signature:
    return Signature(
        start=len(packet),
        key=key.name,
        algorithm=key.algorithm,
        time_s=now_s,
        fudge_s=FUDGE_S,
        mac=b"",
        original_id=packet[0] << 8 | packet[1],
        error=0,
        other=b"",
    )


def _reply_signature(verdict: Verdict, reply: bytes, now_s: int) -> Signature:
    """A late request is answered with its own time, so that its sender can check it, and with ours beside it."""
    asked, late = verdict.signature, verdict.error is Error.BADTIME
    return Signature(
        start=len(reply),
        key=asked.key,
        algorithm=asked.algorithm,
        time_s=asked.time_s if late else now_s,
        fudge_s=asked.fudge_s if late else FUDGE_S,
        mac=b"",
        original_id=reply[0] << 8 | reply[1],
        error=verdict.error,
        other=now_s.to_bytes(6, "big") if late else b"",
    )


def _attached(packet: bytes, signature: Signature, mac: bytes) -> bytes:
    data = b"".join(
        (
            signature.algorithm,
            _timers(signature),
            len(mac).to_bytes(2, "big"),
            mac,
            struct.pack("!HHH", signature.original_id, signature.error, len(signature.other)),
            signature.other,
        )
    )
    additional = (packet[10] << 8 | packet[11]) + 1
    record = signature.key + _rr.pack(TSIG, CLASS_ANY, 0, len(data)) + data
    return packet[:10] + additional.to_bytes(2, "big") + packet[wire.HEADER_BYTES :] + record


def _taken_apart(packet: bytes, start: int, data: int) -> Signature:
    key, named = _name(packet, start)
    algorithm, at = _name(packet, data)
    if named != data - 10 or at + 10 > len(packet):
        raise wire.MalformedError("TSIG cut")
    time_s = int.from_bytes(packet[at : at + 6], "big")
    fudge_s, mac_bytes = struct.unpack_from("!HH", packet, at + 6)
    mac_at = at + 10
    after = mac_at + mac_bytes
    if after + 6 > len(packet):
        raise wire.MalformedError("TSIG cut")
    original_id, error, other_bytes = struct.unpack_from("!HHH", packet, after)
    if after + 6 + other_bytes != len(packet):
        raise wire.MalformedError("TSIG cut")
    return Signature(
        start=start,
        key=key,
        algorithm=algorithm,
        time_s=time_s,
        fudge_s=fudge_s,
        mac=packet[mac_at:after],
        original_id=original_id,
        error=error,
        other=packet[after + 6 :],
    )


def _name(packet: bytes, start: int) -> tuple[bytes, int]:
    """A name of a TSIG and its end: RFC 8945 forbids compression in both. Raises MalformedError."""
    at = start
    while at < len(packet) and packet[at]:
        if packet[at] > wire.LABEL_LIMIT:
            raise wire.MalformedError("TSIG with a compressed name")
        at += 1 + packet[at]
    name = packet[start : at + 1].lower()
    if at >= len(packet) or len(name) > wire.NAME_LIMIT:
        raise wire.MalformedError("TSIG cut")
    return name, at + 1


def _past_name(packet: bytes, at: int) -> int:
    while at < len(packet):
        length = packet[at]
        if length == 0:
            return at + 1
        if length >= 0xC0:
            return at + 2
        if length > wire.LABEL_LIMIT:
            raise wire.MalformedError("unknown label")
        at += 1 + length
    raise wire.MalformedError("name cut")
