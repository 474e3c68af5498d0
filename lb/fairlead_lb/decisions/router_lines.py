"""A router as lines of the frontend: which leg a request takes, and what is done to it on its way.

A leg sets `req.hop` (that scope holds little, so it is found soon) to `<router>.<number>`; the map `hops` says which
backend that is, so that a destination can be changed while HAProxy runs. Which router a service has says the map
`routers`: a service without one, and without a split, has left these rules before the first of them.
"""

import re
from collections.abc import Iterable, Iterator

import msgspec

from fairlead_daemon.errors import Refused
from fairlead_lb.decisions.conditions import Condition, Line, conditions_text

_ID = re.compile(r"[0-9a-f]{16}", re.ASCII)
_REWRITE = re.compile(r"/[A-Za-z0-9._~!$&()*+,=:@%/-]*", re.ASCII)
_HEADER = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}", re.ASCII)
_VALUE = re.compile(
    r"[A-Za-z0-9._~!$&()*+,=:@/;?%-](?:[A-Za-z0-9 ._~!$&()*+,=:@/;?%-]*[A-Za-z0-9._~!$&()*+,=:@/;?%-])?"
)
_DOTS = "^([.]|%2[eE]){1,2}(/|%2[fF]|$)"
"""A rest that would be a step upwards behind a slash, though it was none in what the client sent."""
VALUE_LIMIT = 256
VERBS = ("del-header", "set-header", "add-header")

HeaderLine = tuple[str, str, str]
"""One of VERBS, the header's name, and the value ("" of del-header)."""


class FrontLeg(msgspec.Struct, frozen=True, kw_only=True):
    """All `conditions` fit, none fits always. `rewrite` stands in the place of the path's first `taken` characters."""

    conditions: tuple[Condition, ...] = ()
    taken: int = 0
    rewrite: str = ""
    timeout_ms: int = 0
    """0: as the destination's own."""
    once: bool = False
    """What reached a server is not repeated."""
    request: tuple[HeaderLine, ...] = ()
    response: tuple[HeaderLine, ...] = ()


class FrontRouter(msgspec.Struct, frozen=True, kw_only=True):
    """All of a router but its destinations; another `id` is another router."""

    id: str
    service: str
    legs: tuple[FrontLeg, ...] = ()


def hop(router: FrontRouter, number: int) -> str:
    """`0123456789abcdef.1`; legs are counted from 1."""
    return f"{router.id}.{number}"


def request_lines(routers: Iterable[FrontRouter]) -> Iterator[Line]:
    """Raises Refused when a value could leave its place."""
    there = [(_checked(router), number, leg) for router in routers for number, leg in enumerate(router.legs, 1)]
    for router, number, leg in there:
        yield _choice(router, number, leg)
    for router, number, leg in there:
        yield from (
            Line(f"{text} if {{ var(req.hop) -m str {hop(router, number)} }}{more}") for text, more in _done(leg)
        )


def response_lines(routers: Iterable[FrontRouter]) -> Iterator[Line]:
    """Raises Refused as `request_lines` does."""
    for router in routers:
        for number, leg in enumerate(_checked(router).legs, 1):
            for one in leg.response:
                yield Line(f"http-response {_header(one)} if {{ var(txn.hop) -m str {hop(router, number)} }}")


def header_name(text: str) -> str:
    """Raises Refused."""
    if not _HEADER.fullmatch(text):
        raise Refused(f"header {text[:80]!r}: not a header's name")
    return text


def header_value(text: str) -> str:
    """Raises Refused."""
    if len(text) > VALUE_LIMIT or not _VALUE.fullmatch(text):
        raise Refused(f"value {text[:80]!r}: not a value this balancer writes")
    return text


def rewrite(text: str) -> str:
    """Raises Refused."""
    if len(text) > VALUE_LIMIT or not _REWRITE.fullmatch(text):
        raise Refused(f"prefix_rewrite {text[:80]!r}: not a path this balancer writes")
    return text


def _checked(router: FrontRouter) -> FrontRouter:
    if not _ID.fullmatch(router.id):
        raise Refused(f"{router.id[:80]!r} is no router's name")
    return router


def _choice(router: FrontRouter, number: int, leg: FrontLeg) -> Line:
    first = f"{{ var(req.router) -m str {router.id} }}" + (" !{ var(req.hop) -m found }" if number > 1 else "")
    when = " ".join(filter(None, (first, conditions_text(leg.conditions))))
    return Line(f"http-request set-var(req.hop) str({hop(router, number)}) if {when}")


def _done(leg: FrontLeg) -> Iterator[tuple[str, str]]:
    """Actions, and what else must be so for each."""
    if leg.rewrite:
        yield from _rewriting(leg)
    if leg.timeout_ms:
        yield f"http-request set-var(txn.hop_ms) int({int(leg.timeout_ms)})", ""
    if leg.once:
        yield "http-request disable-l7-retry", ""
    yield from ((f"http-request {_header(one)}", "") for one in leg.request)


def _rewriting(leg: FrontLeg) -> Iterator[tuple[str, str]]:
    """Where both the new beginning and the rest have a slash, one is enough. `/files../x` becomes no `/data/../x`."""
    new = _literal(rewrite(leg.rewrite))
    yield f"http-request set-var(txn.rest) path,bytes({int(leg.taken)})", ""
    if not new.endswith("/"):
        yield f"http-request set-path {new}%[var(txn.rest)]", ""
        return
    yield "http-request return status 400", f" {{ var(txn.rest) -m reg {_DOTS} }}"
    yield f"http-request set-path {new}%[var(txn.rest)]", " !{ var(txn.rest) -m beg / }"
    yield f"http-request set-path {new[:-1]}%[var(txn.rest)]", " { var(txn.rest) -m beg / }"


def _header(one: HeaderLine) -> str:
    verb, name, value = one
    if verb not in VERBS:
        raise Refused(f"{verb[:40]!r} is nothing that is done to a header")
    return f"{verb} {header_name(name)}" + ("" if verb == VERBS[0] else f" '{_literal(header_value(value))}'")


def _literal(text: str) -> str:
    return text.replace("%", "%%")
