"""Conditions that maps cannot hold, as values, and as lines of the frontend. A value stands between single quotes,
where HAProxy knows no escape, no variable and no end but the quote.
"""

import re
from collections.abc import Iterable

import msgspec

from fairlead_daemon.errors import Refused

FETCHES = {
    "host": "var(txn.host)",
    "path": "path",
    "segment": "path,concat(/)",
    "url": "url",
    "method": "method",
    "src": "src",
    "dst_port": "dst_port",
    "ssl": "ssl_fc",
    "params": "query",
}
"""By subject. `segment` is the path with a slash at its end: its patterns end with one, so they end at segments."""
NAMED = {"header": "req.fhdr({})", "query": "url_param({}),url_dec"}
"""By the first half of a subject as `header:X-Version`: every occurrence of a header, whole; a parameter of the query,
decoded."""
_SUBJECT_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}", re.ASCII)
_FETCH = re.compile(r"[a-z_.]+(?:\([A-Za-z0-9_-]{1,64}\))?", re.ASCII)
_KINDS = frozenset({"", "str", "beg", "end", "dom", "dir", "reg", "sub", "found"})
_QUOTABLE = re.compile(r"[ -&(-~]+", re.ASCII)  # printable ASCII without the single quote
_NAME = re.compile(r"[A-Za-z0-9_.-]+", re.ASCII)


class Condition(msgspec.Struct, frozen=True, kw_only=True):
    """One of `patterns` fits; `negated`: none does. `subject` is one of FETCHES or NAMED, or `raw:<fetch>`
    (operators' only).
    """

    subject: str
    match: str = ""
    patterns: tuple[str, ...] = ()
    fold: bool = False
    """Without regard to case."""
    negated: bool = False


class FrontRule(msgspec.Struct, frozen=True, kw_only=True):
    """Requests that no host or path of a map takes, and all conditions fit, go to the backend."""

    service: str
    backend: str
    conditions: tuple[Condition, ...]


class Line(str):
    """Looked at value by value: `render.guard` lets it pass."""

    __slots__ = ()


def line(rule: FrontRule) -> Line:
    """Raises Refused when a value could leave its place."""
    if not _NAME.fullmatch(rule.backend):
        raise Refused(f"{rule.backend[:80]!r} is no backend's name")
    return Line(f"http-request set-var(txn.be) str({rule.backend}) if !{{ var(txn.be) -m found }} {told(rule)}")


def told(rule: FrontRule) -> str:
    """Its conditions as HAProxy is told them. Raises Refused as `line` does."""
    return conditions_text(rule.conditions)


def conditions_text(conditions: Iterable[Condition]) -> str:
    """All of them must fit. Raises Refused as `line` does."""
    return " ".join(map(_condition, conditions))


def _condition(one: Condition) -> str:
    raw = one.subject.removeprefix("raw:") if one.subject.startswith("raw:") else ""
    fetch = raw or FETCHES.get(one.subject, "") or _named(one.subject)
    if one.match not in _KINDS or not fetch or (raw and not _FETCH.fullmatch(raw)):
        raise Refused(f"{one.subject[:80]!r} {one.match[:20]!r} is no condition")
    words = [fetch, *(["-m", one.match] if one.match else []), *(["-i"] if one.fold else [])]
    if one.patterns:
        words += ["--", *map(_quoted, one.patterns)]
    return f"{'!' if one.negated else ''}{{ {' '.join(words)} }}"


def _named(subject: str) -> str:
    kind, _, name = subject.partition(":")
    return NAMED[kind].format(name) if kind in NAMED and _SUBJECT_NAME.fullmatch(name) else ""


def _quoted(pattern: str) -> str:
    if not _QUOTABLE.fullmatch(pattern) or pattern in ("{", "}"):
        raise Refused(f"{pattern[:80]!r} does not belong into a condition")
    return f"'{pattern}'"
