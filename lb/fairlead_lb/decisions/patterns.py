"""What a pattern of a condition may look like, by what it is compared with. What fits stands between single quotes."""

import ipaddress
import re
import warnings
from collections.abc import Callable, Mapping

from fairlead_daemon.errors import Refused

PATTERN_LIMIT = 256
UNBOUNDED_LIMIT = 2
"""Of `*`, `+`, `{n,}` in one expression, an open beginning counted: HAProxy tries them in its only event loop, and each
multiplies the time with the length of what the client sends."""
_PLAIN = re.compile(r"[!\"#$%&()*+,\-./0-9:;<=>?@A-Z\[\\\]^_`a-z{|}~]+", re.ASCII)  # printable, no blank, no `'`
_HOST = re.compile(r"[A-Za-z0-9._-]+", re.ASCII)
_METHOD = re.compile(r"[A-Z]{1,20}", re.ASCII)
_PORTS = re.compile(r"(\d{1,5})(?::(\d{1,5}))?", re.ASCII)
_QUANTIFIER = re.compile(r"[*+?]|\{\d*,?\d*\}")
_MANY = re.compile(r"[*+]|\{\d*,\}|\{\d{3,}|\{\d*,\d{3,}\}")


def plain(text: str) -> str:
    if not _PLAIN.fullmatch(text) or text in ("{", "}"):
        raise Refused("a blank, a quote or a lone brace cannot stand in a pattern")
    return text


def host(text: str) -> str:
    if not _HOST.fullmatch(text):
        raise Refused("not a part of a host name (without a port)")
    return text.lower()


def path(text: str) -> str:
    return plain(text)


def method(text: str) -> str:
    if not _METHOD.fullmatch(text):
        raise Refused("not a method, as GET")
    return text


def network(text: str) -> str:
    try:
        return str(ipaddress.ip_network(text, strict=False))
    except ValueError as error:
        raise Refused("not an address or network, as 10.0.0.0/8") from error


def port(text: str) -> str:
    found = _PORTS.fullmatch(text)
    if found is None or not all(0 < int(n) < 65_536 for n in found.groups() if n is not None):
        raise Refused("not a port or range, as 80 or 8000:8099")
    return text


def nothing(_text: str) -> str:
    raise Refused("takes no pattern")


def expression(text: str) -> str:
    """Of any cost. Python's rules are not quite HAProxy's, which has the last word at its check."""
    plain(text)
    try:
        with warnings.catch_warnings(action="ignore", category=FutureWarning):  # [[:alpha:]] is no set of Python's
            re.compile(text)
    except (re.error, OverflowError, RecursionError) as error:
        raise Refused(f"not a regular expression: {error}") from error
    return text


def regex(text: str) -> str:
    """An expression that cannot keep HAProxy busy: no repetition in a repetition, no references, few open ends."""
    expression(text)
    if re.search(r"\(\?(?!:)", text) or re.search(r"\\[1-9gkKQEGXRCz]", text):
        raise Refused("only plain groups, (?:…), classes and repetitions are taken")
    many = _scan(text) + (0 if text.startswith(("^", "\\A")) else 1)
    if many > UNBOUNDED_LIMIT:
        raise Refused(f"at most {UNBOUNDED_LIMIT} of `*`, `+`, `{{n,}}`: more can keep HAProxy busy for seconds")
    return text


def _scan(text: str) -> int:
    """How many unbounded repetitions. Raises Refused for one around a repetition or a choice."""
    many, at = 0, 0
    groups: list[bool] = [False]  # whether each open group holds a repetition or a choice
    closed = False  # whether the last thing is a group that does
    while at < len(text):
        char = text[at]
        found = _QUANTIFIER.match(text, at) if at else None
        if found is not None and not (char == "?" and text[at - 1] == "("):
            if closed and char != "?":
                raise Refused("a repetition of what holds a repetition or a choice can keep HAProxy busy for ever")
            many += bool(_MANY.match(found[0]))
            groups[-1], closed, at = True, False, found.end()
            continue
        closed, at = _step(text, at, groups)
    return many


def _step(text: str, at: int, groups: list[bool]) -> tuple[bool, int]:
    """Past one character, class or bracket; whether that closed a group which holds a repetition or a choice."""
    match text[at]:
        case "\\":
            return False, at + 2
        case "[":
            return False, _after_class(text, at)
        case "(":
            groups.append(False)
        case ")" if len(groups) > 1:
            held = groups.pop()
            groups[-1] = groups[-1] or held
            return held, at + 1
        case "|":
            groups[-1] = True
    return False, at + 1


def _after_class(text: str, at: int) -> int:
    at += 2 if text.startswith("[^", at) else 1
    at += text.startswith("]", at)
    while at < len(text) and text[at] != "]":
        at += 2 if text[at] == "\\" else 1
    return at + 1


CHECKS: Mapping[str, Callable[[str], str]] = {
    "host": host,
    "path": path,
    "url": path,
    "method": method,
    "src": network,
    "dst_port": port,
    "ssl": nothing,
}
"""By subject; an expression (`reg`) is looked at by `regex` whatever its subject."""
