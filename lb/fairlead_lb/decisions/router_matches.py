"""What a leg of a router asks of a request: as conditions for HAProxy, and judged here, for `route explain`."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from urllib.parse import unquote

from fairlead_daemon.errors import Refused
from fairlead_discovery.policies import HeaderMatch, QueryMatch, RouteMatch, Router
from fairlead_lb.decisions import patterns
from fairlead_lb.decisions.conditions import Condition
from fairlead_lb.decisions.router_lines import header_name

MOST_REGEXES = 16
"""Of one router."""
MOST_MATCHES = 16
"""Of headers, of parameters, of methods."""
_TEXT = re.compile(r"[!-&(-~](?:[ -&(-~]*[!-&(-~])?", re.ASCII)
"""Printable ASCII without the single quote, no blanks at its ends."""
_PARAMETER = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}", re.ASCII)


def conditions(match: RouteMatch) -> tuple[Condition, ...]:
    """All of them must fit. Raises Refused naming the field."""
    for what, some in (("header", match.header), ("query_param", match.query_param), ("methods", match.methods)):
        if len(some) > MOST_MATCHES:
            raise Refused(f"{what}: {len(some)}; at most {MOST_MATCHES}")
    methods = tuple(dict.fromkeys(match.methods))
    return (
        *_path(match),
        *(_header(one) for one in match.header),
        *(_query(one) for one in match.query_param),
        *([Condition(subject="method", patterns=tuple(map(_method, methods)))] if methods else []),
    )


def regexes(match: RouteMatch) -> int:
    said = (match.path_regex, *(one.regex for one in match.header), *(one.regex for one in match.query_param))
    return sum(map(bool, said))


def _path(match: RouteMatch) -> tuple[Condition, ...]:
    kind, text = _one("path", exact=match.path_exact, prefix=match.path_prefix, regex=match.path_regex)
    if not kind:
        return ()
    if kind == "regex":
        made = Condition(
            subject="path", match="reg", patterns=(_regex("path_regex", text),), fold=match.case_insensitive
        )
    else:
        try:
            patterns.plain(text)
        except Refused as error:
            raise Refused(f"path_{kind} {text[:80]!r}: {error}") from error
        if not text.startswith("/") or len(text) > patterns.PATTERN_LIMIT or set(text) & set("?#"):
            raise Refused(f"path_{kind} {text[:80]!r}: not a path")
        made = Condition(subject="path", match=_MATCHES[kind], patterns=(text,), fold=match.case_insensitive)
    return (made,)


_MATCHES = {"exact": "str", "prefix": "beg", "suffix": "end", "contains": "sub", "regex": "reg"}


def _header(one: HeaderMatch) -> Condition:
    place = f"header {one.name[:80]!r}"
    header_name(one.name)
    kind, text = _one(
        place, exact=one.exact, prefix=one.prefix, suffix=one.suffix, contains=one.contains, regex=one.regex
    )
    subject = f"header:{one.name}"
    if not kind:
        _must_be_present(place, present=one.present)
        return Condition(subject=subject, match="found", negated=one.invert)
    _must_be_alone(place, present=one.present)
    made = _regex(place, text) if kind == "regex" else _text(place, text)
    return Condition(subject=subject, match=_MATCHES[kind], patterns=(made,), fold=one.ignore_case, negated=one.invert)


def _query(one: QueryMatch) -> Condition:
    place = f"query_param {one.name[:80]!r}"
    if not _PARAMETER.fullmatch(one.name):
        raise Refused(f"{place}: not a parameter's name")
    kind, text = _one(place, exact=one.exact, regex=one.regex)
    if not kind:
        _must_be_present(place, present=one.present)
        return Condition(subject="params", match="reg", patterns=(f"(^|&){one.name}(=|&|$)",))
    _must_be_alone(place, present=one.present)
    made = _regex(place, text) if kind == "regex" else _text(place, text)
    return Condition(subject=f"query:{one.name}", match=_MATCHES[kind], patterns=(made,))


def _must_be_present(place: str, *, present: bool) -> None:
    if not present:
        raise Refused(f"{place}: says neither a value nor present")


def _must_be_alone(place: str, *, present: bool) -> None:
    if present:
        raise Refused(f"{place}: says a value and present; one of them")


def _one(place: str, **given: str) -> tuple[str, str]:
    """Which of them is said, and what; ("", "") when none is. Raises Refused for several."""
    said = [(kind, text) for kind, text in given.items() if text]
    if len(said) > 1:
        raise Refused(f"{place}: says {' and '.join(kind for kind, _ in said)}; one of them")
    return said[0] if said else ("", "")


def _text(place: str, text: str) -> str:
    if len(text) > patterns.PATTERN_LIMIT or not _TEXT.fullmatch(text) or text in ("{", "}"):
        raise Refused(f"{place}: {text[:80]!r}: not a value this balancer compares with")
    return text


def _regex(place: str, text: str) -> str:
    """Of the whole value. Raises Refused also for one that could keep HAProxy busy (see `patterns`)."""
    try:
        patterns.expression(text)
        whole = patterns.regex(f"^({text})$")
    except Refused as error:
        raise Refused(f"{place}: {text[:80]!r}: {error}") from error
    if len(text) > patterns.PATTERN_LIMIT:
        raise Refused(f"{place}: an expression of more than {patterns.PATTERN_LIMIT} characters")
    return whole


def _method(text: str) -> str:
    try:
        return patterns.method(text)
    except Refused as error:
        raise Refused(f"methods: {text[:40]!r}: {error}") from error


# --- judged here -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """As a client sends it. `headers` by their names in lower case; `query` without the question mark."""

    path: str = "/"
    query: str = ""
    method: str = "GET"
    headers: Mapping[str, Sequence[str]] = field(default_factory=dict)


def taken(router: Router, request: Request) -> int:
    """The number of the leg that takes it, from 1; 0: none does."""
    fitting = (n for n, leg in enumerate(router.route, 1) if all(_fits(c, request) for c in conditions(leg.match)))
    return next(fitting, 0)


def _fits(one: Condition, request: Request) -> bool:
    values = _values(one, request)
    found = bool(values) if one.match == "found" else any(_compares(one, v, p) for v in values for p in one.patterns)
    return found is not one.negated


def _values(one: Condition, request: Request) -> Sequence[str]:
    kind, _, name = one.subject.partition(":")
    if kind == "header":
        return request.headers.get(name.lower(), ())
    if kind == "query":
        pairs = (pair.partition("=") for pair in request.query.split("&"))
        return [unquote(value) for key, equals, value in pairs if key == name and equals][:1]
    return [{"path": request.path, "params": request.query, "method": request.method}[kind]]


def _compares(one: Condition, value: str, pattern: str) -> bool:
    if one.match == "reg":
        return re.search(pattern, value, re.IGNORECASE if one.fold else 0) is not None
    if one.fold:
        value, pattern = value.lower(), pattern.lower()
    compares = {"beg": value.startswith, "end": value.endswith, "sub": value.__contains__}
    return compares.get(one.match, value.__eq__)(pattern)
