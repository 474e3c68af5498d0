"""DNS over HTTPS (RFC 8484): a request into a query's bytes, a reply's bytes into headers. The same for HTTP/1.1 and 2."""

import binascii
from base64 import urlsafe_b64decode
from dataclasses import dataclass
from urllib.parse import parse_qs

from fairlead_dns.decisions import wire

MEDIA = "application/dns-message"
QUERY_BYTES = 4096  # no query of a client is near it
TARGET_CHARACTERS = 8192
PREFACE_BYTES, FRAME_HEAD_BYTES, FRAME_BYTES, CONTINUATION = 24, 9, 16384, 9


@dataclass(frozen=True, slots=True)
class Refusal:
    """What cannot be asked, as HTTP says it."""

    status: int
    text: str


NOT_HERE = Refusal(404, "no such page; DNS is asked elsewhere\n")
TOO_LONG = Refusal(413, f"a query of more than {QUERY_BYTES} bytes\n")


@dataclass(slots=True)
class Frames:
    """Follows HTTP/2's frames by their headers alone. h2 would first gather a frame of 16 MB, and a megabyte of
    CONTINUATION, before it says that they are too long.
    """

    _ahead: int = PREFACE_BYTES
    _head: bytes = b""
    _headers_bytes: int = 0

    def too_long(self, data: bytes) -> bool:
        """Of the next bytes of a connection."""
        at = 0
        while at < len(data):
            passed = min(self._ahead, len(data) - at)
            self._ahead -= passed
            at += passed
            missing = FRAME_HEAD_BYTES - len(self._head)
            if not self._ahead:
                self._head += data[at : at + missing]
                at += missing
            if len(self._head) == FRAME_HEAD_BYTES and self._begins_too_long():
                return True
        return False

    def _begins_too_long(self) -> bool:
        self._ahead = int.from_bytes(self._head[:3], "big")
        self._headers_bytes = self._ahead + (self._headers_bytes if self._head[3] == CONTINUATION else 0)
        self._head = b""
        return self._ahead > FRAME_BYTES or self._headers_bytes > 2 * FRAME_BYTES


def query(path: str, method: str, target: str, media: str, body: bytes) -> bytes | Refusal:
    """The query of a request for `target` (path and query string) with a body of type `media`; `path`: where DNS is."""
    at, _, parameters = target.partition("?")
    if at != path:
        return NOT_HERE
    if len(body) > QUERY_BYTES or len(target) > TARGET_CHARACTERS:
        return TOO_LONG
    if method == "POST":
        if media.partition(";")[0].strip().lower() != MEDIA:
            return Refusal(415, f"the body must be {MEDIA}\n")
        return body
    if method != "GET":
        return Refusal(405, "GET and POST only\n")
    given = parse_qs(parameters, max_num_fields=20).get("dns", [""])[0] if parameters.count("&") < 20 else ""
    try:
        decoded = urlsafe_b64decode(given.encode("ascii") + b"=" * (-len(given) % 4))
    except (ValueError, binascii.Error):
        decoded = b""
    return decoded or Refusal(400, "the parameter dns must be a query in base64url\n")


def max_age_s(reply: bytes) -> int:
    """How long HTTP caches may keep a reply: its least TTL; 0 for one without records, and for failures."""
    if reply[3] & 15 not in (wire.NOERROR, wire.NXDOMAIN):
        return 0
    try:
        return min(wire.ttls_s(reply), default=0)
    except wire.MalformedError:
        return 0
