"""What RabbitMQ says, in words: its reasons are Erlang terms, with HTML's escapes around them."""

import html
import re
from collections.abc import Sequence

_TABLE: Sequence[tuple[str, str]] = (
    (r"econnrefused", "connection refused"),
    (r"ehostunreach", "no route to the host"),
    (r"enetunreach", "no route to the network"),
    (r"e?timed?_?out|etimedout", "no answer in time"),
    (r"nxdomain", "the host name is unknown"),
    (r"econnreset|closed", "the connection was closed"),
    (r"not_allowed", "the upstream refuses: unknown virtual host, or no permission for it"),
    (r"access_refused", "the upstream refuses: no permission"),
    (r"vhost_not_found", "there is no such virtual host"),
    (r"vhost_down.*", "the virtual host is down"),
    (r"Not Found", "there is no such thing"),
    (r"Not_Authorized|Access refused\.?|Login failed", "user or password is wrong, or the user may not do this"),
)
_PATTERNS: Sequence[tuple[re.Pattern[str], str]] = (
    (re.compile(r"^Unrecognised terms (\[.*\]) in (.+)$"), r"{0}: unknown in this version of RabbitMQ"),
    (
        re.compile(r"^(\[.*\]) are not recognised policy settings$"),
        r"{0}: no such policy key in this version of RabbitMQ",
    ),
    (re.compile(r"^apply-to '(.+)' unrecognised; should be (.+)$"), r"apply-to: {0}: expected {1}"),
    (
        re.compile(r"^pattern should be regular expression but is invalid: (.+)$"),
        r"pattern: no regular expression: {0}",
    ),
    (re.compile(r"^(.+?) should be (.+), actually was (.+)$"), r"{0}: expected {1}, got {2}"),
    (re.compile(r"^(.+) is not a valid (.+)$"), r"{0}: not a valid {1}"),
    (re.compile(r"^\"?(\S+?)\"? not a valid URI: (.+)$"), r"{0}: not a valid URI: {1}"),
    (
        re.compile(r"^inequivalent arg '(.+)' for (.+): received (.+) but current is (.+)$"),
        r"{1} stands there with {0} {3}, not {2}",
    ),
    (re.compile(r"^invalid arg '(.+)' for (.+): (.+)$"), r"{1}: {0}: {2}"),
    (re.compile(r"^component (.+) not found$"), r"{0}: the plugin for it is not enabled"),
    (re.compile(r"^\{auth_failure,\s*(.+)\}$"), r"user or password is wrong: {0}"),
)


def reason_in_words(reason: str) -> str:
    """One line. `[{&lt;&lt;"max-len"&gt;&gt;,7}] are not recognised …` -> `max-len: no such policy key …`."""
    lines = [line.strip() for line in html.unescape(reason).splitlines()]
    told = [_line(line) for line in lines if line and line != "Validation failed"]
    return "; ".join(dict.fromkeys(told)) or "no reason given"


def _line(line: str) -> str:
    for word, text in _TABLE:
        if re.fullmatch(word, line):
            return text
    for pattern, form in _PATTERNS:
        if found := pattern.match(line):
            return form.format(*(_term(part) for part in found.groups()))
    return _term(line)


def _term(text: str) -> str:
    """Erlang's terms without their dress: `[{<<"a">>,1},{<<"b">>,2}]` -> `a, b`; `<<"x">>` -> `x`; `{"missing )",2}` -> `missing ) at 2`."""
    bare = re.sub(r'<<"(.*?)">>', r"\1", text.strip())
    if bare.startswith("[{") and bare.endswith("}]"):
        return ", ".join(re.findall(r"\{([^,{}]+),", bare))
    if position := re.fullmatch(r'\{"(.*)",(\d+)\}', bare):
        return f"{position[1]} at {position[2]}"
    if scheme := re.match(r'\{\{unexpected_uri_scheme,"(.+?)"\}', bare):
        return f"unknown scheme {scheme[1]}"
    quoted = re.fullmatch(r"(['\"])(.*)\1", bare)
    return quoted[2] if quoted and quoted[1] not in quoted[2] else bare
