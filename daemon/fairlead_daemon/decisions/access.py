"""May this HTTP request be served? A web page that a user happens to visit must start nothing."""

import hmac
from base64 import b64decode
from collections.abc import Collection
from dataclasses import dataclass
from ipaddress import ip_address
from urllib.parse import urlsplit

READS = frozenset({"GET", "HEAD", "OPTIONS"})
FORMS = frozenset({"", "application/x-www-form-urlencoded", "multipart/form-data", "text/plain"})
ALWAYS_OPEN = frozenset({"/health", "/ready", "/ping"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What the decision needs of a request. Headers are "" when absent; `token_query` is `?token=`."""

    method: str
    path: str
    host: str
    origin: str = ""
    content_type: str = ""
    has_body: bool = False
    authorization: str = ""
    token_query: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """Names under which we are addressed (lower case, no port), the token ("" is off), bodies we take."""

    names: Collection[str]
    token: str = ""
    content_types: Collection[str] = ("application/json",)
    own_proof: Collection[str] = ()
    """Paths whose handlers ask for a proof of their own instead of the token."""
    closed: tuple[str, ...] = ()
    """Beginnings of paths whose reads too want the token."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Denied:
    status: int
    message: str


def judge(request: Request, rules: Rules) -> Denied | None:
    """None when it may be served; else the status and a message for the person who called."""
    if not is_ours(request.host, rules.names):
        return Denied(
            status=403, message=f"host {request.host!r} is not a name of this server; see the `hosts` setting"
        )
    if request.origin and not is_ours(_origin_host(request.origin), rules.names):
        return Denied(status=403, message=f"origin {request.origin!r} is foreign to this server")
    reads = request.method in READS
    if reads and not request.path.startswith(rules.closed):
        return None
    if request.path not in rules.own_proof and not _token_fits(request, rules.token):
        return Denied(
            status=401, message="this server wants its token: `Authorization: Bearer …`, see the `token` setting"
        )
    return None if reads else _judge_body(request, rules.content_types)


def _judge_body(request: Request, allowed: Collection[str]) -> Denied | None:
    kind = request.content_type.partition(";")[0].strip().lower()
    if not request.has_body or kind in allowed:
        return None
    if kind == "":
        return Denied(status=400, message=f"a body needs a Content-Type, one of {', '.join(sorted(allowed))}")
    return Denied(status=415, message=f"content type {kind!r} is not taken here, only {', '.join(sorted(allowed))}")


def is_ours(host: str, names: Collection[str]) -> bool:
    """An address cannot be rebound by a foreign DNS server, so any literal is ours; names must be known."""
    name = _without_port(host).lower().rstrip(".")
    if name in {"", "localhost"} or name in names:
        return name != ""
    try:
        ip_address(name)
    except ValueError:
        return False
    return True


def _without_port(host: str) -> str:
    if host.startswith("["):
        name, closed, _ = host[1:].partition("]")
        return name if closed else host
    return host.partition(":")[0] if host.count(":") == 1 else host


def _origin_host(origin: str) -> str:
    try:
        return urlsplit(origin).netloc
    except ValueError:
        return ""


def _token_fits(request: Request, token: str) -> bool:
    if not token or request.path in ALWAYS_OPEN:
        return True
    given = (request.token_query, *_tokens_of(request.authorization))
    return any(hmac.compare_digest(g.encode(), token.encode()) for g in given if g)


def _tokens_of(header: str) -> tuple[str, ...]:
    scheme, _, rest = header.partition(" ")
    rest = rest.strip()
    match scheme.lower():
        case "bearer":
            return (rest,)
        case "token":
            return (rest.removeprefix("token=").strip('"'),)
        case "basic":
            try:
                return (b64decode(rest, validate=True).decode().partition(":")[2],)
            except ValueError:
                return ()
    return (header.removeprefix("token="),) if header.startswith("token=") else ()
