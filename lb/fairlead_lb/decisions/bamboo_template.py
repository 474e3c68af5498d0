"""Bamboo's templates in Jinja2: the same objects and functions, in a sandbox. Values cannot begin a new line.

{% for app in Apps %}{% if hasKey(Services, app.Id) %}
acl {{ app.EscapedId }}-aclrule {{ getService(Services, app.Id).Acl }}
{% endif %}{% endfor %}
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jinja2
from jinja2.sandbox import ImmutableSandboxedEnvironment

from fairlead_daemon.errors import Refused
from fairlead_lb.decisions.acl import Grammar
from fairlead_lb.decisions.bamboo import claims_of, default_acl

SIZE_LIMIT = 8 * 1024 * 1024


class Texts(dict[str, Any]):
    """As a Go map: a key that is not there is empty."""

    def __missing__(self, _key: str) -> str:
        return ""


FUNCTIONS: Mapping[str, Callable[..., Any]] = {
    "hasKey": lambda mapping, key: key in mapping,
    "getService": lambda mapping, key: mapping[key] if key in mapping else {"Id": key, "Acl": "", "Config": Texts()},
    "Split": lambda text, sep: text.split(sep),
    "Contains": lambda text, part: part in text,
    "Join": lambda parts, sep: sep.join(map(str, parts)),
    "Replace": lambda text, old, new, count: text.replace(old, new, count),
    "ToUpper": lambda text: text.upper(),
    "ToLower": lambda text: text.lower(),
    "ToInt": int,
}
"""Bamboo's, by their names there. `Replace`'s count -1 is all."""


def render(template: str, apps: Sequence[Mapping[str, Any]], services: Mapping[str, Mapping[str, Any]]) -> str:
    """Raises Refused with the line: of what is no template, of a value that is not there or would begin a new line."""
    environment = ImmutableSandboxedEnvironment(
        finalize=_one_line,
        undefined=jinja2.StrictUndefined,
        autoescape=False,  # no HTML; `_one_line` refuses instead of escaping
        keep_trailing_newline=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(FUNCTIONS)
    try:
        text = environment.from_string(template).render(Apps=[_wrapped(a) for a in apps], Services=_wrapped(services))
    except jinja2.TemplateSyntaxError as error:
        raise Refused(f"line {error.lineno}: {error.message}") from error
    except Refused:
        raise
    except Exception as error:  # whatever an expression of the template raises is the template's fault
        raise Refused(f"line {_line_of(error)}: {type(error).__name__}: {error}") from error
    if len(text) > SIZE_LIMIT:
        raise Refused(f"{len(text)} characters: at most {SIZE_LIMIT}")
    return text


def usable(services: Mapping[str, Mapping[str, Any]]) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
    """Services whose ACL is one (with the default's where it is empty), and why the others are left out."""
    good: dict[str, dict[str, Any]] = {}
    refused: dict[str, str] = {}
    for app, service in services.items():
        try:
            claims_of(str(service["Acl"]), app, Grammar(raw=True))
        except Refused as error:
            refused[app] = str(error)
        else:
            good[app] = {**service, "Acl": service["Acl"] or default_acl(app)}
    return good, refused


def _wrapped(value: Any) -> Any:
    if isinstance(value, Mapping):
        kept = ((k, _wrapped(v)) for k, v in value.items() if not (isinstance(v, str) and _breaks(v)))
        return Texts(kept)
    if isinstance(value, list | tuple):
        return [_wrapped(v) for v in value]
    return value


def _one_line(value: Any) -> Any:
    if isinstance(value, str) and _breaks(value):
        raise Refused(f"{value[:80]!r}: a value with a control character")
    return value


def _breaks(text: str) -> bool:
    return any(ord(char) < 0x20 or ord(char) in (0x7F, 0x85, 0x2028, 0x2029) for char in text)


def _line_of(error: BaseException) -> int:
    """Of the template; 0 when nobody knows."""
    lines = (frame for frame in _frames(error) if frame[0] == "<template>")
    return next((line for _, line in lines), 0)


def _frames(error: BaseException) -> Iterable[tuple[str, int]]:
    trace = error.__traceback__
    while trace is not None:
        yield trace.tb_frame.f_code.co_filename, trace.tb_lineno
        trace = trace.tb_next
