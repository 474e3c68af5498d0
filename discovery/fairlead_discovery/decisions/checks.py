"""Health checks of what is announced: what is sent, what a good answer is, and when a service is up.

A check as text: `http:/health`, `https:/health`, `tcp`, `redis`, `rabbitmq`, `postgres`, `command:/usr/lib/check shop`, `none`.
"""

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import msgspec

from fairlead_daemon.errors import BadSettings

Kind = Literal["http", "https", "tcp", "command", "redis", "rabbitmq", "postgres", "none"]
HTTP = frozenset({"http", "https"})
MORE = None
"""A judge's answer: not enough bytes yet."""
GOOD = ""
"""A judge's answer: healthy. Any other text says what is wrong."""
ANSWER_LIMIT_BYTES = 65536


class Check(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One check. `host` and `port` default to the service's own."""

    type: Kind = "tcp"
    path: str = "/"
    """Of `http` and `https`: asked with GET; an answer from 200 to 399 is good."""
    ca: str = ""
    """Of `https`: a file with the authorities that vouch for the server. Empty: the system's."""
    verify: bool = True
    """Of `https`: whether the certificate is checked, and its name; off, any server will do."""
    server_name: str = ""
    """Of `https`: the name that the certificate is for. Empty: the host's."""
    command: str = ""
    """Of `command`: run without a shell; exit 0 is good."""
    user: str = "fairlead"
    """Of `postgres`: the user named in the handshake; it need not exist."""
    host: str = ""
    port: int = 0
    interval_s: float = 1.0
    timeout_s: float = 1.0
    rise: int = 1
    """So many good answers in a row make a service healthy."""
    fall: int = 2
    """So many bad ones in a row make it unhealthy."""

    @property
    def problem(self) -> str:
        """What is wrong with it, "" if nothing."""
        if self.interval_s <= 0 or self.timeout_s <= 0:
            return "interval_s and timeout_s are above 0"
        if self.rise < 1 or self.fall < 1:
            return "rise and fall are at least 1"
        if self.type == "command" and not self.command:
            return "a command check needs a command"
        if self.ca and self.type != "https":
            return "a ca is for https checks"
        if self.type in HTTP and (not self.path.startswith("/") or not _plain(self.path)):
            return f"{self.path!r} is no path"
        return ""


def _plain(text: str) -> bool:
    return text.isascii() and text.isprintable() and " " not in text


def parse(text: str) -> Check:
    """`http:/health` -> Check. Raises BadSettings naming the text."""
    kind, _, rest = text.partition(":")
    match kind:
        case "http" | "https":
            check = Check(type=kind, path=rest or "/")
        case "command":
            check = Check(type="command", command=rest)
        case "tcp" | "redis" | "rabbitmq" | "postgres" | "none" if not rest:
            check = Check(type=kind)
        case _:
            known = "http:/path, https:/path, tcp, redis, rabbitmq, postgres, command:…, none"
            raise BadSettings(f"check {text!r} is none of {known}")
    if check.problem:
        raise BadSettings(f"check {text!r}: {check.problem}")
    return check


def named(check: Check, host: str) -> Check:
    """An https check knows by which name the server is asked: that of its own host, else the service's."""
    if check.type != "https" or check.server_name:
        return check
    return msgspec.structs.replace(check, server_name=check.host or host)


# --- conversations ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Talk:
    """What is sent after connecting, and the judge of all bytes that came back: MORE, GOOD or what is wrong."""

    send: bytes
    judge: Callable[[bytes], str | None]


def talk(check: Check, host: str, port: int) -> Talk:
    """The conversation of every kind but `command` and `none`."""
    makers: Mapping[str, Callable[[], Talk]] = {
        "tcp": lambda: Talk(b"", lambda _answer: GOOD),
        "http": lambda: Talk(http_request(check.path, host, port), judge_http),
        "https": lambda: Talk(http_request(check.path, check.server_name or host, port), judge_http),
        "redis": lambda: Talk(b"*1\r\n$4\r\nPING\r\n", judge_redis),
        "rabbitmq": lambda: Talk(b"AMQP\x00\x00\x09\x01", judge_amqp),
        "postgres": lambda: Talk(postgres_startup(check.user), judge_postgres),
    }
    return makers[check.type]()


def http_request(path: str, host: str, port: int) -> bytes:
    address = f"[{host}]" if ":" in host else host
    head = (
        f"GET {path} HTTP/1.1\r\nHost: {address}:{port}\r\nUser-Agent: fairlead-announce\r\nConnection: close\r\n\r\n"
    )
    return head.encode()


def judge_http(answer: bytes) -> str | None:
    line, end, _ = answer.partition(b"\r\n")
    if not end:
        return MORE if answer.startswith(b"HTTP/"[: len(answer)]) else "no HTTP answer"
    words = line.split()
    if len(words) < 2 or not words[0].startswith(b"HTTP/1.") or not words[1].isdigit():
        return "no HTTP answer"
    status = int(words[1])
    return GOOD if 200 <= status < 400 else f"HTTP {status}"


def judge_redis(answer: bytes) -> str | None:
    """One that wants a password lives; one that loads its data, or has lost its master, serves nobody."""
    line, end, _ = answer.partition(b"\r\n")
    if not end:
        return MORE
    if line == b"+PONG" or line.startswith((b"-NOAUTH", b"-NOPERM")):
        return GOOD
    return f"redis says {_shown(line)}"


_AMQP_HEAD = struct.Struct(">BHIHH")
CONNECTION_START = (10, 10)


def judge_amqp(answer: bytes) -> str | None:
    """The broker opens with connection.start, on channel 0; one of another version answers its own `AMQP` header."""
    if answer.startswith(b"AMQP"):
        return "it speaks another AMQP"
    if len(answer) < _AMQP_HEAD.size:
        return MORE
    frame, channel, _, major, minor = _AMQP_HEAD.unpack_from(answer)
    good = frame == 1 and channel == 0 and (major, minor) == CONNECTION_START
    return GOOD if good else "no AMQP answer"


PROTOCOL_3 = 196608
NOT_SERVING = ("57P01", "57P02", "57P03", "53300")
"""SQLSTATEs: shutting down, crashed, starting up, no connection left."""


def postgres_startup(user: str) -> bytes:
    """The startup message itself: a server that starts or recovers answers an SSLRequest as if all were well."""
    body = b"".join(part.encode() + b"\0" for part in ("user", user, "database", "postgres")) + b"\0"
    return struct.pack(">II", len(body) + 8, PROTOCOL_3) + body


def judge_postgres(answer: bytes) -> str | None:
    """A demand to authenticate, or any refusal but that it is not serving."""
    if len(answer) < 5:
        return MORE
    if answer[:1] in {b"R", b"v"}:
        return GOOD
    if answer[:1] != b"E":
        return "no PostgreSQL answer"
    (length,) = struct.unpack_from(">I", answer, 1)
    if len(answer) < min(length, ANSWER_LIMIT_BYTES) + 1:
        return MORE
    fields = {f[:1]: f[1:].decode(errors="replace") for f in answer[5 : length + 1].split(b"\0") if f}
    state = fields.get(b"C", "")
    return f"PostgreSQL says {fields.get(b'M', state)}" if state in NOT_SERVING else GOOD


def _shown(line: bytes) -> str:
    return ascii(line[:60].decode(errors="replace"))


# --- rise and fall ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """`up` None: not decided yet. `streak`: answers in a row that speak against `up` (or for a first decision)."""

    up: bool | None = None
    streak: int = 0
    last: bool | None = None
    why: str = ""


def count(before: Tally, why: str, *, rise: int, fall: int) -> Tally:
    """After one more answer; `why` is GOOD, or what was wrong."""
    good = why == GOOD
    if good == before.up:
        return Tally(up=before.up, last=good, why=why)
    streak = before.streak + 1 if good == before.last else 1
    if streak >= (rise if good else fall):
        return Tally(up=good, last=good, why=why)
    return Tally(up=before.up, streak=streak, last=good, why=why)
