"""The language of conditions: text -> typed tree. Errors name the column.

    fairlead_up{source="lb"} < 1
    fairlead_service_wanted - fairlead_service_instances{state="healthy"} > 0
    sum by (service) (rate(fairlead_service_requests_total[60s])) > 100

A condition compares two numbers-by-labels. `rate`, `increase`, `average`, `lowest`, `highest` take a metric with a span
(`[60s]`, `[5m]`, `[1h]`); `sum`, `min`, `max`, `count` take anything, optionally `by (labels)`. `time()` is the moment of
judging in Unix seconds, for metrics that tell when something ends.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

COMPARISONS = ("<=", ">=", "==", "!=", "<", ">")
OVER_TIME = ("rate", "increase", "average", "lowest", "highest")
OVER_SERIES = ("sum", "min", "max", "count")
TIME = "time"
UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0}
DEEPEST = 20


class BadExpression(ValueError):  # noqa: N818  # like BadSettings, which it becomes
    """`column` counts from 1."""

    def __init__(self, column: int, why: str) -> None:
        super().__init__(f"column {column}: {why}")
        self.column = column


@dataclass(frozen=True, slots=True)
class Number:
    value: float


@dataclass(frozen=True, slots=True)
class Time:
    """The moment of judging, Unix seconds."""


@dataclass(frozen=True, slots=True)
class Matcher:
    """`op` is =, !=, =~ or !~; with the last two the whole value must match the regular expression."""

    label: str
    op: str
    value: str


@dataclass(frozen=True, slots=True)
class Metric:
    name: str
    matchers: tuple[Matcher, ...] = ()


@dataclass(frozen=True, slots=True)
class OverTime:
    function: str
    metric: Metric
    span_s: float


@dataclass(frozen=True, slots=True)
class OverSeries:
    """`by` None: into one."""

    function: str
    of: "Value"
    by: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class Arithmetic:
    op: str
    left: "Value"
    right: "Value"


@dataclass(frozen=True, slots=True)
class Condition:
    op: str
    left: "Value"
    right: "Value"


Value = Number | Time | Metric | OverTime | OverSeries | Arithmetic


class _Token(NamedTuple):
    kind: str
    text: str
    column: int


_TOKENS = re.compile(
    r"(?P<space>\s+)|(?P<number>\d+\.\d+|\d+|\.\d+)|(?P<name>[A-Za-z_:][A-Za-z0-9_:]*)"
    r'|(?P<string>"(?:[^"\\\n]|\\.)*")|(?P<op><=|>=|==|!=|=~|!~|[<>=+\-*/(){}\[\],])'
)


def parse(text: str) -> Condition:
    """Raises BadExpression."""
    parser = _Parser(_tokens(text))
    left = parser.value()
    token = parser.take()
    if token.text not in COMPARISONS:
        raise BadExpression(token.column, f"expected one of {' '.join(COMPARISONS)}, found {_shown(token)}")
    condition = Condition(token.text, left, parser.value())
    if (rest := parser.take()).kind != "end":
        raise BadExpression(rest.column, f"expected the end, found {_shown(rest)}")
    return condition


def _tokens(text: str) -> list[_Token]:
    out: list[_Token] = []
    place = 0
    while place < len(text):
        match = _TOKENS.match(text, place)
        if match is None:
            what = "a string without its closing quote" if text[place] == '"' else f"unexpected {text[place]!r}"
            raise BadExpression(place + 1, what)
        if match.lastgroup != "space":
            out.append(_Token(str(match.lastgroup), match.group(), place + 1))
        place = match.end()
    return [*out, _Token("end", "", len(text) + 1)]


def _shown(token: _Token) -> str:
    return "the end" if token.kind == "end" else repr(token.text)


class _Parser:
    """Recursive descent; `depth` keeps a hostile rule from exhausting the stack."""

    def __init__(self, tokens: Sequence[_Token]) -> None:
        self._tokens = tokens
        self._next = 0
        self._depth = 0

    @property
    def ahead(self) -> _Token:
        return self._tokens[self._next]

    def take(self) -> _Token:
        token = self.ahead
        self._next = min(self._next + 1, len(self._tokens) - 1)
        return token

    def expect(self, text: str) -> _Token:
        token = self.take()
        if token.text != text or token.kind == "string":
            raise BadExpression(token.column, f"expected {text!r}, found {_shown(token)}")
        return token

    def value(self) -> Value:
        return self._chain(("+", "-"), lambda: self._chain(("*", "/"), self._factor))

    def _chain(self, operators: Sequence[str], part: "object") -> Value:
        assert callable(part)
        left: Value = part()
        while self.ahead.kind == "op" and self.ahead.text in operators:
            operator = self.take().text
            left = Arithmetic(operator, left, part())
        return left

    def _factor(self) -> Value:
        self._depth += 1
        token = self.take()
        if self._depth > DEEPEST:
            raise BadExpression(token.column, f"nested deeper than {DEEPEST}")
        try:
            return self._from(token)
        finally:
            self._depth -= 1

    def _from(self, token: _Token) -> Value:
        if token.kind == "number":
            return Number(float(token.text))
        if token.text == "-" and self.ahead.kind == "number":
            return Number(-float(self.take().text))
        if token.text == "(" and token.kind == "op":
            inner = self.value()
            self.expect(")")
            return inner
        if token.kind != "name":
            raise BadExpression(token.column, f"expected a metric, a number or a function, found {_shown(token)}")
        if token.text in OVER_TIME and self.ahead.text == "(":
            return self._over_time(token.text)
        if token.text in OVER_SERIES and self.ahead.text in {"(", "by"}:
            return self._over_series(token.text)
        if token.text == TIME and self.ahead.text == "(":
            self.take()
            self.expect(")")
            return Time()
        if self.ahead.text == "(":
            known = ", ".join((*OVER_TIME, *OVER_SERIES, TIME))
            raise BadExpression(token.column, f"no such function: {token.text}; there are {known}")
        metric = self._metric(token)
        if self.ahead.text == "[":
            raise BadExpression(self.ahead.column, f"a span needs a function around it: {', '.join(OVER_TIME)}")
        return metric

    def _metric(self, name: _Token) -> Metric:
        if self.ahead.text != "{":
            return Metric(name.text)
        self.take()
        found: list[Matcher] = []
        while self.ahead.text != "}":
            found.append(self._matcher())
            if self.ahead.text != "}":
                self.expect(",")
        self.take()
        return Metric(name.text, tuple(found))

    def _matcher(self) -> Matcher:
        label, operator, value = self.take(), self.take(), self.take()
        if label.kind != "name":
            raise BadExpression(label.column, f"expected a label, found {_shown(label)}")
        if operator.text not in {"=", "!=", "=~", "!~"}:
            raise BadExpression(operator.column, f"expected = != =~ or !~, found {_shown(operator)}")
        if value.kind != "string":
            raise BadExpression(value.column, f"expected a value in double quotes, found {_shown(value)}")
        text = re.sub(r"\\(.)", r"\1", value.text[1:-1]) if operator.text in {"=", "!="} else value.text[1:-1]
        if operator.text in {"=~", "!~"}:
            _check_pattern(text, value.column)
        return Matcher(label.text, operator.text, text)

    def _over_time(self, function: str) -> OverTime:
        self.expect("(")
        name = self.take()
        if name.kind != "name":
            raise BadExpression(name.column, f"{function} takes a metric with a span, found {_shown(name)}")
        metric = self._metric(name)
        bracket = self.take()
        if bracket.text != "[":
            raise BadExpression(bracket.column, f"{function} takes a metric with a span, as in {metric.name}[60s]")
        span_s = self._span()
        self.expect("]")
        self.expect(")")
        return OverTime(function, metric, span_s)

    def _span(self) -> float:
        number, unit = self.take(), self.take()
        if number.kind != "number" or unit.text not in UNITS:
            raise BadExpression(number.column, "expected a span, as 30s, 5m or 1h")
        span_s = float(number.text) * UNITS[unit.text]
        if not 0 < span_s <= UNITS["h"]:
            raise BadExpression(number.column, "a span is over 0 and at most 1h: no more is kept")
        return span_s

    def _over_series(self, function: str) -> OverSeries:
        by: tuple[str, ...] | None = None
        if self.ahead.text == "by":
            self.take()
            by = self._labels()
        self.expect("(")
        inner = self.value()
        self.expect(")")
        return OverSeries(function, inner, by)

    def _labels(self) -> tuple[str, ...]:
        self.expect("(")
        found: list[str] = []
        while self.ahead.text != ")":
            label = self.take()
            if label.kind != "name":
                raise BadExpression(label.column, f"expected a label, found {_shown(label)}")
            found.append(label.text)
            if self.ahead.text != ")":
                self.expect(",")
        self.take()
        return tuple(found)


def _check_pattern(text: str, column: int) -> None:
    try:
        re.compile(text)
    except re.error as error:
        raise BadExpression(column, f"no regular expression: {error}") from error
