"""What a route's traffic rules are called and how they are written, in labels and in route files alike.

rate=100/s   client_rate=600/m   timeout=1.5s   abort=5%:503   delay=10%:500ms   allow=10.0.0.0/8,192.168.1.7
"""

import ipaddress
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from fairlead_discovery.records import Abort, Delay, Rate, Traffic

PATH_LIMIT = 256
MOST_NETWORKS = 200
MOST_USERS = 100
RETRY_ON = (
    "conn-failure",
    "empty-response",
    "junk-response",
    "response-timeout",
    "0rtt-rejected",
    *("404", "408", "425", "500", "501", "502", "503", "504"),
)
"""What HAProxy repeats a request after."""
ACCESS = frozenset({"allow", "deny", "auth"})
"""Words that keep somebody out: a label of theirs that cannot be read keeps everybody out."""
EVERYBODY = ("0.0.0.0/0", "::/0")
MANY = "*"
"""Instead of a field's name: the reader gives several fields with their values."""
_PATH = re.compile(r"/[A-Za-z0-9._~!$&()*+,=:@%/-]*")
_DURATION = re.compile(r"(\d{1,9}(?:\.\d{1,3})?)(ms|s|m|h)", re.ASCII)
_UNITS_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_RATE = re.compile(r"(\d{1,7})/(s|m)", re.ASCII)
_PERCENT = re.compile(r"(\d{1,3}(?:\.\d{1,2})?)%?", re.ASCII)
_NAME = re.compile(r"[A-Za-z0-9_.*-]{1,64}", re.ASCII)
_USER = re.compile(r"([A-Za-z0-9_.@-]{1,64}):([A-Za-z0-9./$=_-]{1,256})", re.ASCII)
_HASH = re.compile(
    r"\$1\$[^$]{1,8}\$[./\w]{22}|\$2[abxy]\$\d\d\$[./\w]{53}|\$5\$(rounds=\d+\$)?[^$]{0,16}\$[./\w]{43}"
    r"|\$6\$(rounds=\d+\$)?[^$]{0,16}\$[./\w]{86}|\$g?y\$[./\w]+\$[./\w]{0,86}\$[./\w]{43}|\$7\$[./\w]{11,97}\$[./\w]{43}"
    r"|\$sha1\$\d+\$[./\w]{1,64}\$[./\w]{28}|[./\w]{12}[.26AEIMQUYcgkosw]",
    re.ASCII,
)
"""What crypt(3) makes, by its length: MD5, bcrypt, SHA-256, SHA-512, yescrypt, scrypt, SHA-1; DES, which has no mark, ends in
one of 16 letters.
"""
_REALM = re.compile(r"[A-Za-z0-9_.-]{1,64}", re.ASCII)
_TRUE, _FALSE = frozenset({"true", "1", "yes", "on"}), frozenset({"false", "0", "no", "off", ""})


class BadLabel(ValueError):  # noqa: N818  # named as the five errors are
    """The reason alone; whoever catches it adds the label."""


@dataclass(frozen=True, slots=True)
class Word:
    """`read` makes fields of Traffic of a text, and raises BadLabel; `write` is the way back, "" for the default."""

    read: Callable[[str], Mapping[str, Any]]
    write: Callable[[Traffic], str]


def shown(text: str) -> str:
    """Quoted, escaped, not endless."""
    return ascii(text if len(text) <= 60 else f"{text[:60]}...")


def flag(text: str) -> bool:
    word = text.strip().lower()
    if word not in _TRUE | _FALSE:
        raise BadLabel(f"{shown(text)} is neither true nor false")
    return word in _TRUE


def path(text: str) -> str:
    if not _PATH.fullmatch(text) or len(text) > PATH_LIMIT:
        raise BadLabel(f"{shown(text)} is no path: it begins with `/` and holds no blanks, quotes, braces or `#`")
    return text


def prefix(text: str) -> str:
    """A path to be cut off or put before: without the slash at its end; `/` is none."""
    return path(text).rstrip("/")


def seconds(text: str) -> float:
    found = _DURATION.fullmatch(text.strip())
    if found is None:
        raise BadLabel(f"{shown(text)} is no duration, as 500ms, 5s or 1m")
    return round(float(found[1]) * _UNITS_S[found[2]], 6)


def duration(value_s: float) -> str:
    """`90.0` -> `90s`, `0.5` -> `500ms`."""
    for unit in ("h", "m", "s"):
        if value_s >= _UNITS_S[unit] and (value_s / _UNITS_S[unit]).is_integer():
            return f"{value_s / _UNITS_S[unit]:.0f}{unit}"
    return f"{value_s * 1000:.12g}ms"


def whole(text: str) -> int:
    number = text.strip()
    if not (number.isascii() and number.isdigit() and len(number) <= len("999999999")):
        raise BadLabel(f"{shown(text)} is no whole number")
    return int(number)


def percent(text: str) -> float:
    found = _PERCENT.fullmatch(text.strip())
    if found is None or float(found[1]) > 100:
        raise BadLabel(f"{shown(text)} is no percentage, 0 to 100 with at most two decimals")
    return float(found[1])


def rate(text: str) -> Rate | None:
    """None for 0."""
    found = _RATE.fullmatch(text.strip())
    if found is None:
        raise BadLabel(f"{shown(text)} is no rate, as 100/s or 600/m")
    return Rate(count=int(found[1]), per_s=1 if found[2] == "s" else 60) if int(found[1]) else None


def names(text: str) -> tuple[str, ...]:
    """A comma list."""
    found = tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    for name in found:
        if not _NAME.fullmatch(name):
            raise BadLabel(f"{shown(name)} is no name: letters, digits, `_`, `-`, `.`, or `*`")
    return found


def networks(text: str) -> tuple[str, ...]:
    """Commas or blanks between; an address is a network of one. Canonical, sorted."""
    found: set[str] = set()
    for part in re.split(r"[,\s]+", text.strip()):
        try:
            found.add(str(ipaddress.ip_network(part, strict=False)))
        except ValueError:
            raise BadLabel(f"{shown(part)} is no network, as 10.0.0.0/8 or 192.168.1.7") from None
    if len(found) > MOST_NETWORKS:
        raise BadLabel(f"{len(found)} networks, {MOST_NETWORKS} at the most")
    return tuple(sorted(found))


def credentials(text: str) -> Mapping[str, Any]:
    """marathon-lb's `realm:user:hash`, and more users after commas: `shop:joe:$5$…,ann:$5$…`."""
    realm, colon, rest = text.strip().partition(":")
    users = tuple(sorted(part.strip() for part in rest.split(",")))
    if not colon or not _REALM.fullmatch(realm):
        raise BadLabel("is no realm:user:hash, with the password's hash as of crypt(3)")
    found = [match for match in map(_USER.fullmatch, users) if match is not None]
    if len(found) < len(users):
        raise BadLabel("a user is name:hash, with the password's hash as of crypt(3)")
    if len({user[1] for user in found}) < len(users) or len(users) > MOST_USERS:
        raise BadLabel(f"a user is there twice, or there are more than {MOST_USERS}")
    if plain := [user[1] for user in found if not _HASH.fullmatch(user[2])]:
        raise BadLabel(f"the password of {plain[0]} is no hash of crypt(3), as `openssl passwd -6` makes one")
    return {"realm": realm, "users": users}


def abort(text: str) -> Abort | None:
    """`5%:503`; None for 0 %."""
    share, colon, status = text.strip().partition(":")
    number = whole(status) if colon else Abort(percent=0).status
    if not 400 <= number <= 599:
        raise BadLabel(f"{number} is no status of an error, 400 to 599")
    return Abort(percent=percent(share), status=number) if percent(share) else None


def delay(text: str) -> Delay | None:
    """`10%:500ms`; None for 0 %."""
    share, _, wait = text.strip().partition(":")
    found = Delay(percent=percent(share), delay_s=seconds(wait))
    return found if found.percent else None


def conditions(text: str) -> tuple[str, ...]:
    found = tuple(dict.fromkeys(re.split(r"[,\s]+", text.strip())))
    for name in found:
        if name not in RETRY_ON:
            raise BadLabel(f"{shown(name)} is none of {', '.join(RETRY_ON)}")
    return found


def protocol(text: str) -> str:
    known = {"h2": "h2", "grpc": "h2", "http1": "", "http/1.1": ""}
    if text.strip().lower() not in known:
        raise BadLabel(f"{shown(text)} is none of h2, grpc, http1")
    return known[text.strip().lower()]


def _one(field: str, read: Callable[[str], Any], write: Callable[[Any], str]) -> Word:
    default = getattr(Traffic(), field)

    def text(traffic: Traffic) -> str:
        value = getattr(traffic, field)
        return "" if value == default else write(value)

    return Word(lambda given: {field: read(given)}, text)


def _auth(traffic: Traffic) -> str:
    return f"{traffic.realm}:{','.join(traffic.users)}" if traffic.users else ""


TRAFFIC: Mapping[str, Word] = {
    "allow": _one("allow", networks, ",".join),
    "deny": _one("deny", networks, ",".join),
    "auth": Word(credentials, _auth),
    "https_only": _one("https_only", flag, lambda value: str(value).lower()),
    "hsts": _one("hsts", flag, lambda value: str(value).lower()),
    "rate": _one("rate", rate, lambda value: f"{value.count}/{'s' if value.per_s == 1 else 'm'}"),
    "client_rate": _one("client_rate", rate, lambda value: f"{value.count}/{'s' if value.per_s == 1 else 'm'}"),
    "server_connections": _one("server_connections", whole, str),
    "server_queue": _one("server_queue", whole, str),
    "queue_timeout": _one("queue_timeout_s", seconds, duration),
    "connect_timeout": _one("connect_timeout_s", seconds, duration),
    "tunnel_timeout": _one("tunnel_timeout_s", seconds, duration),
    "retries": _one("retries", whole, str),
    "retry_on": _one("retry_on", conditions, ",".join),
    "retry_budget": _one("retry_budget_percent", percent, lambda value: f"{value:g}%"),
    "eject_after": _one("eject_after", whole, str),
    "eject_share": _one("eject_share_percent", percent, lambda value: f"{value:g}%"),
    "eject_least": _one("eject_least", whole, str),
    "eject_for": _one("eject_s", seconds, duration),
    "eject_at_most": _one("eject_at_most_percent", percent, lambda value: f"{value:g}%"),
    "max_connections": _one("max_connections", whole, str),
    "max_pending": _one("max_pending", whole, str),
    "break_at": _one("break_at_percent", percent, lambda value: f"{value:g}%"),
    "break_for": _one("break_s", seconds, duration),
    "break_least": _one("break_least", whole, str),
    "abort": _one("abort", abort, lambda value: f"{value.percent:g}%:{value.status}"),
    "delay": _one("delay", delay, lambda value: f"{value.percent:g}%:{duration(value.delay_s)}"),
    "strip_path": _one("strip_path", prefix, str),
    "location_prefix": _one("location_prefix", prefix, str),
    "deadlines": _one("deadlines", flag, lambda value: str(value).lower()),
    "protocol": _one("protocol", protocol, str),
}
"""`FAIRLEAD_{n}_RATE`, `FAIRLEAD_RATE`, or `rate = "100/s"` in a route file's `[route.traffic]`."""
FIELDS = frozenset(Traffic.__struct_fields__)
