"""What is wrong with a definition, in Marathon's words: `{"path": "/healthChecks(0)/path", "errors": ["…"]}`."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from fairlead_daemon.errors import Refused

_EXPECTED = {
    "int": "error.expected.jsnumber",
    "float": "error.expected.jsnumber",
    "str": "error.expected.jsstring",
    "bool": "error.expected.jsboolean",
    "array": "error.expected.jsarray",
    "object": "error.expected.jsobject",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """`path` as `/healthChecks(0)/path`; `kind` "json" is a value of the wrong type, "rule" one that breaks a rule."""

    path: str
    error: str
    kind: str = "rule"


class Invalid(Refused):
    """A definition is not taken: 422 with every problem's path."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("; ".join(f"{p.path}: {p.error}" for p in problems))

    def body(self) -> dict[str, Any]:
        """Marathon's answer. One entry a path, in the order they were found."""
        grouped: dict[str, list[str]] = {}
        for problem in self.problems:
            grouped.setdefault(problem.path, []).append(problem.error)
        wrong_type = all(p.kind == "json" for p in self.problems)
        return {
            "message": "Invalid JSON" if wrong_type else "Object is not valid",
            "details": [{"path": path, "errors": errors} for path, errors in grouped.items()],
        }


def raise_if_any(problems: Iterable[Problem]) -> None:
    found = tuple(problems)
    if found:
        raise Invalid(found)


def of_conversion(message: str, *, path: str) -> Problem:
    """A problem from msgspec's message about the value at `path`.

    "Expected `int`, got `str` - at `$[0].portIndex`", "/healthChecks" -> "/healthChecks(0)/portIndex".
    """
    text, _, place = message.rpartition(" - at `$")
    text = text or message
    where = path + _worded(place.rstrip("`")) if place and text != message else path
    expected = re.match(r"Expected `(\w+)", text)
    if expected and expected[1] in _EXPECTED and "got `" in text:
        return Problem(path=where, error=_EXPECTED[expected[1]], kind="json")
    unknown = re.search(r"unknown field `(.+)`", text)
    if unknown:
        return Problem(path=f"{where}/{unknown[1]}", error="is not a field of an app that this server knows")
    missing = re.search(r"missing required field `(.+)`", text)
    if missing:
        return Problem(path=f"{where}/{missing[1]}", error="error.path.missing", kind="json")
    return Problem(path=where, error=text[:1].lower() + text[1:])


def _worded(place: str) -> str:
    return re.sub(r"\[(\d+)\]", r"(\1)", place).replace(".", "/").replace("[...]", "")
