"""Rules from TOML. An error names file, rule and, in a condition, the column."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import msgspec

from fairlead_daemon.errors import BadSettings
from fairlead_monitoring.decisions.expression import UNITS, BadExpression, Condition, parse

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}")
_SPAN = re.compile(r"(\d+(?:\.\d+)?)(s|m|h)")
LONGEST_S = 24 * 3600.0
Severity = Literal["critical", "warning", "info"]


class RuleText(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename={"for_": "for"}):
    """One `[[rule]]` as a person wrote it. Times are `30s`, `5m`, `1h`, or seconds."""

    name: str
    when: str = ""
    """The condition that is bad."""
    until: str = ""
    """The condition that is well again. Empty: `when` no longer holds. Between the two nothing changes (hysteresis)."""
    for_: str | float = 0.0
    """How long `when` must hold before it fires."""
    hold: str | float = 0.0
    """How long it must be well before it is resolved."""
    no_data: str | float = "30s"
    """How long a firing alert may be without data before it is told as no-data."""
    severity: Severity = "warning"
    summary: str = ""
    """One line; `{label}` and `{value}` are filled in."""
    enabled: bool = True
    """False switches a rule of this name off, also a default one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """`place` is where it was written, for people."""

    name: str
    when: Condition
    until: Condition | None = None
    when_text: str = ""
    for_s: float = 0.0
    hold_s: float = 0.0
    no_data_s: float = 30.0
    severity: str = "warning"
    summary: str = ""
    place: str = ""


class _File(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    rule: tuple[Mapping[str, Any], ...] = ()


def read_rules(values: Mapping[str, Any], *, place: str) -> dict[str, Rule | None]:
    """By name, None for one that is switched off. Raises BadSettings."""
    try:
        tables = msgspec.convert(values, _File).rule
    except msgspec.ValidationError as error:
        raise BadSettings(f"{place}: {error}; rules are [[rule]] tables") from error
    found: dict[str, Rule | None] = {}
    for number, table in enumerate(tables, 1):
        where = f"{place}: rule {table.get('name') or f'number {number}'}"
        text = _convert(table, where)
        if text.name in found:
            raise BadSettings(f"{where}: there are two of this name")
        found[text.name] = _rule(text, where) if text.enabled else None
    return found


def combine(parts: Iterable[Mapping[str, Rule | None]]) -> dict[str, Rule]:
    """Later ones replace or switch off earlier ones of the same name."""
    out: dict[str, Rule | None] = {}
    for part in parts:
        out.update(part)
    return {name: rule for name, rule in out.items() if rule is not None}


def _convert(table: Mapping[str, Any], where: str) -> RuleText:
    try:
        text = msgspec.convert(table, RuleText)
    except msgspec.ValidationError as error:
        message, _, key = str(error).partition(" - at `$.")
        raise BadSettings(f"{where}: {key.rstrip('`') + ': ' if key else ''}{message}") from error
    if not NAME.fullmatch(text.name):
        raise BadSettings(f"{where}: name: letters, digits, dots, dashes, at most 80")
    if text.enabled and not text.when:
        raise BadSettings(f"{where}: when: missing")
    return text


def _rule(text: RuleText, where: str) -> Rule:
    return Rule(
        name=text.name,
        when=_condition(text.when, f"{where}: when"),
        until=_condition(text.until, f"{where}: until") if text.until else None,
        when_text=text.when,
        for_s=span_s(text.for_, f"{where}: for"),
        hold_s=span_s(text.hold, f"{where}: hold"),
        no_data_s=span_s(text.no_data, f"{where}: no_data"),
        severity=text.severity,
        summary=text.summary,
        place=where,
    )


def _condition(text: str, where: str) -> Condition:
    try:
        return parse(text)
    except BadExpression as error:
        raise BadSettings(f"{where}: {error}") from error


def span_s(value: str | float, where: str) -> float:
    """Raises BadSettings naming `where`."""
    match = _SPAN.fullmatch(value) if isinstance(value, str) else None
    if isinstance(value, str) and match is None:
        raise BadSettings(f"{where}: {value!r} is no time, as 30s, 5m or 1h")
    seconds = float(match[1]) * UNITS[match[2]] if match else float(value)
    if not 0 <= seconds <= LONGEST_S:
        raise BadSettings(f"{where}: {seconds:g} s is not between 0 and a day")
    return seconds


def summary_of(rule: Rule, labels: Mapping[str, str], value: float) -> str:
    """`{service} lacks {value}` -> `/shop/web lacks 2`. What is no label stays as it is written. Without a
    summary the condition and the labels are told.
    """
    if not rule.summary:
        return " ".join([rule.when_text, *(f"{name}={text}" for name, text in sorted(labels.items()))])
    known = {**labels, "value": f"{value:g}", "rule": rule.name}
    return re.sub(r"\{(\w+)\}", lambda found: known.get(found[1], found[0]), rule.summary)
