"""The words of an ACL as HAProxy's own parser cuts them: blanks, quotes, backslashes. Every word knows its column."""

import re
from dataclasses import dataclass

from fairlead_daemon.errors import Refused
from fairlead_discovery.decisions.words import shown

TEXT_LIMIT = 4096
_ESCAPED = " \\#\"'"
_ENVIRONMENT = re.compile(r"\$[A-Za-z_{]", re.ASCII)


@dataclass(frozen=True, slots=True)
class Word:
    """`column` counts from 1. A quoted word is a value, whatever it looks like."""

    text: str
    column: int
    quoted: bool = False

    def __str__(self) -> str:
        return f"column {self.column}: {shown(self.text)}"


def words(text: str) -> list[Word]:
    """Raises Refused naming the column: of what could end a line, of a comment, of a quote without an end."""
    if len(text) > TEXT_LIMIT:
        raise Refused(f"{len(text)} characters: at most {TEXT_LIMIT}")
    for column, char in enumerate(text, 1):
        if not " " <= char <= "~":
            raise Refused(f"column {column}: {char!r}: only printable ASCII, and no line break")
    found: list[Word] = []
    at = 0
    while at < len(text):
        if text[at] == " ":
            at += 1
            continue
        word, at = _word(text, at)
        found.append(word)
    return found


def _word(text: str, start: int) -> tuple[Word, int]:
    made, at, quoted = "", start, False
    while at < len(text) and text[at] != " ":
        if text[at] in "\"'":
            part, at = _quoted(text, at)
            quoted = True
        elif text[at] == "#":
            raise Refused(f"column {at + 1}: a comment; write \\# for the character")
        else:
            part, at = _plain(text, at)
        made += part
    return Word(made, start + 1, quoted), at


def _plain(text: str, at: int) -> tuple[str, int]:
    """One character, or the one that a backslash protects; before others the backslash is a character of its own."""
    if text[at] == "\\" and at + 1 < len(text) and text[at + 1] in _ESCAPED:
        return text[at + 1], at + 2
    return text[at], at + 1


def _quoted(text: str, start: int) -> tuple[str, int]:
    """Between single quotes all is plain; between double ones backslashes protect, and variables are refused."""
    sign, made, at = text[start], "", start + 1
    while at < len(text) and text[at] != sign:
        if sign == '"' and _ENVIRONMENT.match(text, at):
            raise Refused(f"column {at + 1}: variables of the environment are not read here")
        part, at = _plain(text, at) if sign == '"' else (text[at], at + 1)
        made += part
    if at == len(text):
        raise Refused(f"column {start + 1}: the quote does not end")
    return made, at + 1
