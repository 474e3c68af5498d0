"""HAProxy's ACL grammar, as Bamboo's users write it, to conditions that a balancer can hold.

    hdr(host) -i a.example b.example          path_beg -i /shop         { hdr(host) -i a.example } !{ method POST }
    hdr_end(host) -i .example.com || path_reg ^/v[0-9]/

A bare criterion takes what follows as its patterns, up to `or` or `||` before another one. Conditions side by side must
all fit, which needs braces. What cannot be taken is refused with its column.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from fairlead_daemon.errors import Refused
from fairlead_lb.decisions import patterns
from fairlead_lb.decisions.acl_words import Word, words
from fairlead_lb.decisions.conditions import Condition

Alternative = tuple[Condition, ...]
"""All of them must fit."""
ALTERNATIVES_LIMIT = 32
CONDITIONS_LIMIT = 8
PATTERNS_LIMIT = 64
OR = frozenset({"or", "||"})
_HOST_KINDS = {"": "str", "_beg": "beg", "_end": "end", "_dom": "dom", "_reg": "reg", "_sub": "sub", "_str": "str"}
_PATH_KINDS = {"": "str", "_beg": "beg", "_end": "end", "_dir": "dir", "_reg": "reg", "_sub": "sub", "_str": "str"}
CRITERIA: Mapping[str, tuple[str, str]] = {
    **{f"{r}hdr{kind}(host)": ("host", match) for kind, match in _HOST_KINDS.items() for r in ("", "req.", "req.f")},
    **{f"path{kind}": ("path", match) for kind, match in _PATH_KINDS.items()},
    **{f"url{kind}": ("url", match) for kind, match in _PATH_KINDS.items()},
    "method": ("method", ""),
    "src": ("src", ""),
    "dst_port": ("dst_port", ""),
    "ssl_fc": ("ssl", ""),
}
"""Criterion -> what is looked at, and how it is compared."""
MATCHES = frozenset({"str", "beg", "end", "dom", "dir", "reg", "sub"})
RAW = re.compile(
    r"(?:(?:req\.)?f?hdr|(?:req\.)?cook|urlp|url_param)(?:_(?:beg|end|dom|dir|reg|sub|str))?\([A-Za-z0-9_-]{1,64}\)"
    r"|query|base|base_beg|base_end|base_reg|base_sub|req\.ver|ssl_fc_sni|ssl_fc_sni_(?:end|reg)|src_port|dst",
    re.ASCII,
)
"""What operators may write besides (setting `allow_raw_acl`): fetches that read the request, no files, no variables."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Grammar:
    """How much may be said. `raw`: RAW's fetches too, and expressions of any cost."""

    raw: bool = False


def parse(text: str, grammar: Grammar) -> tuple[Alternative, ...]:
    """One of the alternatives must fit. Raises Refused with the column."""
    reader = _Reader(words(text), grammar)
    found = tuple(reader.alternatives())
    if len(found) > ALTERNATIVES_LIMIT:
        raise Refused(f"{len(found)} alternatives: at most {ALTERNATIVES_LIMIT}")
    return found


class _Reader:
    def __init__(self, found: Sequence[Word], grammar: Grammar) -> None:
        self._words = found
        self._at = 0
        self._grammar = grammar

    def alternatives(self) -> Iterator[Alternative]:
        """Raises Refused."""
        while True:
            yield tuple(self._conditions())
            if self._at == len(self._words):
                return
            self._at += 1  # past the `or`

    def _conditions(self) -> Iterator[Condition]:
        count = 0
        while self._at < len(self._words) and not self._at_or():
            count += 1
            if count > CONDITIONS_LIMIT:
                raise Refused(f"{self._words[self._at]}: at most {CONDITIONS_LIMIT} conditions side by side")
            yield self._one()
        if not count:
            where = self._words[self._at] if self._at < len(self._words) else "the end"
            raise Refused(f"{where}: a condition is missing")

    def _one(self) -> Condition:
        negated = self._negation()
        word = self._next("a criterion")
        if _is(word, "{"):
            inner = self._until_brace(word)
            negated ^= _is(inner[0], "!") if inner else False
            return self._condition(inner[1:] if inner and _is(inner[0], "!") else inner, word, negated=negated)
        return self._condition([word, *self._bare_patterns()], word, negated=negated)

    def _negation(self) -> bool:
        """`!` alone, or in front of a brace or criterion; it is cut off there."""
        word = self._words[self._at]
        if word.quoted or not word.text.startswith("!"):
            return False
        if word.text == "!":
            self._at += 1
        else:
            rest = Word(word.text[1:], word.column + 1)
            self._words = [*self._words[: self._at], rest, *self._words[self._at + 1 :]]
        return True

    def _next(self, what: str) -> Word:
        if self._at == len(self._words):
            raise Refused(f"the end: {what} is missing")
        self._at += 1
        return self._words[self._at - 1]

    def _until_brace(self, opened: Word) -> list[Word]:
        inner: list[Word] = []
        while not _is(word := self._next(f"the brace of column {opened.column} is not closed, `}}`"), "}"):
            if _is(word, "{"):
                raise Refused(f"{word}: a brace within braces")
            inner.append(word)
        return inner

    def _bare_patterns(self) -> Iterator[Word]:
        """HAProxy would take an `or` for a pattern too; before a plain value it says nothing, before a criterion it
        is meant.
        """
        while self._at < len(self._words) and not self._at_or():
            word = self._next("a pattern")
            if word.text in ("{", "}", "&&", "and") and not word.quoted:
                raise Refused(f"{word}: conditions that must all fit stand in braces, as {{ … }} {{ … }}")
            if not (word.text in OR and not word.quoted):
                yield word

    def _at_or(self) -> bool:
        word = self._words[self._at]
        if word.quoted or word.text not in OR:
            return False
        after = self._words[self._at + 1] if self._at + 1 < len(self._words) else None
        return after is None or after.text[:1] in ("{", "!") or self._criterion(after.text) is not None

    # --- one condition

    def _criterion(self, text: str) -> tuple[str, str] | None:
        known = CRITERIA.get(text.lower() if text.lower().endswith("(host)") else text)
        if known is None and self._grammar.raw and RAW.fullmatch(text):
            return f"raw:{text}", ""
        return known

    def _condition(self, given: Sequence[Word], where: Word, *, negated: bool) -> Condition:
        if not given:
            raise Refused(f"{where}: a criterion is missing")
        subject, match = self._known(given[0])
        flags, rest = _flags(given[1:])
        if len(rest) > PATTERNS_LIMIT:
            raise Refused(f"{given[0]}: at most {PATTERNS_LIMIT} patterns")
        match = flags.match or match
        if subject == "dst_port":
            rest = _equal(rest)
        made = tuple(self._pattern(subject, match, word) for word in rest)
        if not made and subject != "ssl" and match != "found":
            raise Refused(f"{given[0]}: a pattern is missing")
        fold = flags.fold or subject == "host"
        return Condition(subject=subject, match=match, patterns=made, fold=fold, negated=negated)

    def _known(self, word: Word) -> tuple[str, str]:
        found = self._criterion(word.text)
        if found is not None:
            return found
        if RAW.fullmatch(word.text):
            raise Refused(f"{word}: only where the balancer's operator says allow_raw_acl")
        raise Refused(f"{word}: not a criterion this balancer takes, as hdr(host), path_beg, path_reg, method, src")

    def _pattern(self, subject: str, match: str, word: Word) -> str:
        check = patterns.CHECKS.get(subject, patterns.plain)
        if match == "reg":
            check = patterns.expression if self._grammar.raw else patterns.regex
        if len(word.text) > patterns.PATTERN_LIMIT:
            raise Refused(f"column {word.column}: a pattern of more than {patterns.PATTERN_LIMIT} characters")
        try:
            return check(word.text)
        except Refused as error:
            raise Refused(f"column {word.column}: {word.text[:40]!r}: {error}") from error


@dataclass(frozen=True, slots=True)
class _Flags:
    fold: bool = False
    match: str = ""


def _flags(given: Sequence[Word]) -> tuple[_Flags, Sequence[Word]]:
    """`-i`, `-m beg`, `--`; those that read files or turn checks off are refused."""
    fold, match, at = False, "", 0
    while at < len(given) and given[at].text.startswith("-") and not given[at].quoted:
        word = given[at]
        at += 1
        match word.text:
            case "--":
                break
            case "-i":
                fold = True
            case "-m" if at < len(given) and given[at].text in MATCHES:
                match, at = given[at].text, at + 1
            case _:
                raise Refused(f"{word}: only the flags -i, -m {'|'.join(sorted(MATCHES))} and -- are taken")
    return _Flags(fold, match), given[at:]


def _equal(given: Sequence[Word]) -> Sequence[Word]:
    """`eq 80` is 80; other comparisons are ranges."""
    if given and given[0].text in ("gt", "ge", "lt", "le"):
        raise Refused(f"{given[0]}: write a range, as 8000:8099")
    return given[1:] if given and given[0].text == "eq" else given


def _is(word: Word, sign: str) -> bool:
    return word.text == sign and not word.quoted
