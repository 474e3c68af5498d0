"""DNS cookies (RFC 7873, 9018): a client that has one has been reached at its address before, so it is no spoofed one.

Every server with the same secrets takes the others' cookies. Rolling over: add the new secret to every server as the
second, then make it the first, then take the old one away.
"""

import hmac
import struct
from dataclasses import dataclass, field
from ipaddress import ip_address

OPTION = 10
CLIENT_BYTES, SERVER_BYTES, SECRET_BYTES = 8, 16, 16
LEAST_BYTES, MOST_BYTES = 16, 40
VERSION = b"\1\0\0\0"
REMEMBERED = 65_536
OLDEST_S, RENEWED_S, FUTURE_S = 3600, 1800, 300
_MASK = 2**64 - 1
_words = struct.Struct("<QQ")


class BadCookieError(ValueError):
    """No cookie at all by its length: FORMERR."""


@dataclass(frozen=True, slots=True)
class Cookie:
    """What a client's cookie was worth, and the one to give back."""

    valid: bool
    data: bytes


@dataclass(slots=True)
class Cookies:
    """`secrets`: 16 bytes each; the first makes cookies, all are accepted. Owned by one task."""

    secrets: tuple[bytes, ...]
    _known: dict[tuple[bytes, str], tuple[Cookie, int]] = field(default_factory=dict)
    """What a cookie was worth, and until when: a client shows the same one with every query."""

    def check(self, data: bytes, client: str, now_s: int) -> Cookie:
        """Of an option's data. Raises BadCookieError."""
        known = self._known.get((data, client))
        if known is not None and known[1] - RENEWED_S <= now_s < known[1]:
            return known[0]
        if len(data) != CLIENT_BYTES and not LEAST_BYTES <= len(data) <= MOST_BYTES:
            raise BadCookieError(f"a cookie of {len(data)} bytes")
        cookie, until_s = self._judged(data, _packed(client), now_s)
        if cookie.valid:
            if len(self._known) >= REMEMBERED:
                self._known.clear()
            self._known[data, client] = cookie, until_s
        return cookie

    def _judged(self, data: bytes, address: bytes, now_s: int) -> tuple[Cookie, int]:
        """The cookie, and until when one that is given back as it is stays so."""
        theirs, ours = data[:CLIENT_BYTES], data[CLIENT_BYTES:]
        age_s = _age_s(int.from_bytes(ours[4:8], "big"), now_s)
        by = self._maker(theirs, ours, address) if -FUTURE_S <= age_s <= OLDEST_S else None
        if by == 0 and age_s < RENEWED_S:
            return Cookie(True, data), now_s - max(age_s, 0) + RENEWED_S
        start = VERSION + (now_s & 0xFFFFFFFF).to_bytes(4, "big")
        return Cookie(by is not None, theirs + _made(self.secrets[0], theirs, start, address)), now_s + 1

    def _maker(self, theirs: bytes, ours: bytes, address: bytes) -> int | None:
        """Which secret made it."""
        if len(ours) != SERVER_BYTES or ours[0] != VERSION[0]:
            return None
        for number, secret in enumerate(self.secrets):
            if hmac.compare_digest(_made(secret, theirs, ours[:8], address), ours):
                return number
        return None


def parse_secrets(text: str) -> tuple[bytes, ...]:
    """A line of 32 hexadecimal digits each, `#` begins a comment. Raises ValueError naming the line."""
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        digits = line.partition("#")[0].strip()
        if not digits:
            continue
        if len(digits) != 2 * SECRET_BYTES or set(digits.lower()) - set("0123456789abcdef"):
            raise ValueError(f"line {number}: a secret is 32 hexadecimal digits")
        found.append(bytes.fromhex(digits))
    if not found:
        raise ValueError("no secret in it")
    return tuple(found)


def siphash(key: bytes, data: bytes) -> bytes:
    """SipHash-2-4 of `data` under 16 bytes of key, as 8 bytes (little endian, as its authors give it)."""
    k0, k1 = _words.unpack(key)
    v = (k0 ^ 0x736F6D6570736575, k1 ^ 0x646F72616E646F6D, k0 ^ 0x6C7967656E657261, k1 ^ 0x7465646279746573)
    whole = len(data) // 8 * 8
    last = data[whole:].ljust(7, b"\0") + bytes((len(data) & 0xFF,))
    for (word,) in struct.iter_unpack("<Q", data[:whole] + last):
        a, b, c, d = _rounds(2, (v[0], v[1], v[2], v[3] ^ word))
        v = (a ^ word, b, c, d)
    a, b, c, d = _rounds(4, (v[0], v[1], v[2] ^ 0xFF, v[3]))
    return (a ^ b ^ c ^ d).to_bytes(8, "little")


def _rounds(count: int, state: tuple[int, int, int, int]) -> tuple[int, int, int, int]:
    a, b, c, d = state
    for _ in range(count):
        a = a + b & _MASK
        c = c + d & _MASK
        b = (b << 13 & _MASK | b >> 51) ^ a
        d = (d << 16 & _MASK | d >> 48) ^ c
        a = (a << 32 & _MASK | a >> 32) + d & _MASK
        c = c + b & _MASK
        d = (d << 21 & _MASK | d >> 43) ^ a
        b = (b << 17 & _MASK | b >> 47) ^ c
        c = c << 32 & _MASK | c >> 32
    return a, b, c, d


def _made(secret: bytes, theirs: bytes, start: bytes, address: bytes) -> bytes:
    return start + siphash(secret, theirs + start + address)


def _age_s(made_s: int, now_s: int) -> int:
    """In serial arithmetic: both are 32 bits."""
    difference = (now_s - made_s) & 0xFFFFFFFF
    return difference - 2**32 if difference >= 2**31 else difference


def _packed(client: str) -> bytes:
    try:
        return ip_address(client).packed
    except ValueError:
        return b""
