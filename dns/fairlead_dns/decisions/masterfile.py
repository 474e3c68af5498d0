"""Master files (RFC 1035, 5; RFC 2308, 4) into records. Pure: who opens the files is an argument.

The lines are read here; what a record's data means is dnspython's affair, which knows every type.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import dns.exception
import dns.name
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import dns.rdtypes.ANY.SOA
import dns.tokenizer
import dns.ttl

from fairlead_dns.decisions import wire
from fairlead_dns.decisions.static import BadZoneError as BadZoneError  # noqa: PLC0414  # callers of `parse` catch it
from fairlead_dns.decisions.static import Entry

INCLUDE_DEPTH = 8
INCLUDES = 256
GENERATED = 65_536  # records of one $GENERATE
RECORDS = 2_000_000
NO_DATA_TYPES = range(128, 256)
"""Questions and signatures: they stand in messages only."""


Open = Callable[[str], str]
"""A file's name, as the zone or an $INCLUDE gives it, into its text. Raises BadZoneError with the reason alone."""


def parse(file: str, apex: bytes, read: Open) -> tuple[Entry, ...]:
    """Every record of a zone in the order of its files. Raises BadZoneError."""
    return tuple(_Reader(apex, read).entries(file))


@dataclass(slots=True)
class _Place:
    """Where one file's reading is: its tokens, its own origin and last owner."""

    file: str
    tokens: dns.tokenizer.Tokenizer
    origin: dns.name.Name
    owner: dns.name.Name | None
    line: int = 0

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


@dataclass(slots=True)
class _Reader:
    apex: bytes
    read: Open
    depth: int = 0
    includes: int = 0
    records: int = 0
    default_ttl_s: int | None = None
    last_ttl_s: int | None = None
    origin: dns.name.Name = field(init=False)

    def __post_init__(self) -> None:
        self.origin = dns.name.from_wire(self.apex, 0)[0]

    def entries(self, file: str) -> Iterator[Entry]:
        yield from self._file(file, self.origin, None, f"{file}:0")

    def _file(self, file: str, origin: dns.name.Name, owner: dns.name.Name | None, asker: str) -> Iterator[Entry]:
        try:
            text = self.read(file)
        except BadZoneError as error:
            raise BadZoneError(f"{asker}: {error}") from error
        place = _Place(file, dns.tokenizer.Tokenizer(text, file), origin, owner)
        while True:
            try:
                token = place.tokens.get(want_leading=True)
                if token.is_eof():
                    return
                place.line = place.tokens.where()[1]
                if token.is_eol():
                    continue
                if token.is_identifier() and token.value.startswith("$"):
                    yield from self._directive(place, token.value.upper())
                else:
                    yield from self._line(place, token)
            except BadZoneError:
                raise
            except Exception as error:  # whatever dnspython makes of a line: it is that file's error, nobody else's
                raise BadZoneError(f"{place}: {_reason(error)}") from error

    def _directive(self, place: _Place, directive: str) -> Iterator[Entry]:
        if directive == "$TTL":
            self.default_ttl_s = dns.ttl.from_text(place.tokens.get_string())
            place.tokens.get_eol()
        elif directive == "$ORIGIN":
            place.origin = place.tokens.get_name(place.origin)
            place.tokens.get_eol()
        elif directive == "$INCLUDE":
            yield from self._include(place)
        elif directive == "$GENERATE":
            yield from self._generate(place)
        else:
            raise BadZoneError(f"{place}: unknown directive {directive}")

    def _include(self, place: _Place) -> Iterator[Entry]:
        """Origin and owner of the including file are not changed by the included one (RFC 1035, 5.1)."""
        file = place.tokens.get_string()
        token = place.tokens.get()
        origin = place.origin
        if not token.is_eol_or_eof():
            origin = place.tokens.as_name(token, place.origin)
            place.tokens.get_eol()
        self.includes += 1
        if self.depth >= INCLUDE_DEPTH or self.includes > INCLUDES:
            raise BadZoneError(f"{place}: more than {INCLUDE_DEPTH} files deep or {INCLUDES} in all: a loop?")
        self.depth += 1
        yield from self._file(file, origin, place.owner, str(place))
        self.depth -= 1

    def _line(self, place: _Place, first: dns.tokenizer.Token) -> Iterator[Entry]:
        if not first.is_whitespace():
            place.owner = place.tokens.as_name(first, place.origin)
        else:
            token = place.tokens.get()
            if token.is_eol_or_eof():
                return
            place.tokens.unget(token)
        if place.owner is None:
            raise BadZoneError(f"{place}: a record without an owner")
        ttl_s, kind = self._ttl_and_type(place)
        data = dns.rdata.from_text(
            dns.rdataclass.IN, kind, place.tokens, place.origin, relativize=False, relativize_to=None
        )
        yield self._entry(place, place.owner, ttl_s, data)

    def _generate(self, place: _Place) -> Iterator[Entry]:
        """`$GENERATE 1-10/2 host-$ [ttl] [class] type data`, with BIND's `${offset,width,base}`."""
        numbers = _range(place.tokens.get_string())
        if len(numbers) > GENERATED:
            raise BadZoneError(f"{place}: $GENERATE makes more than {GENERATED} records")
        owner = place.tokens.get().value
        ttl_s, kind = self._ttl_and_type(place)
        rest = _remainder(place.tokens)
        for number in numbers:
            name = dns.name.from_text(_numbered(owner, number), place.origin)
            data = dns.rdata.from_text(
                dns.rdataclass.IN, kind, _numbered(rest, number), place.origin, relativize=False, relativize_to=None
            )
            yield self._entry(place, name, ttl_s, data)

    def _ttl_and_type(self, place: _Place) -> tuple[int | None, dns.rdatatype.RdataType]:
        """`[ttl] [class] type` or `[class] [ttl] type`."""
        ttl_s: int | None = None
        classed = False
        while True:
            text = place.tokens.get_identifier()
            if ttl_s is None and text[0].isdigit():
                ttl_s = self.last_ttl_s = dns.ttl.from_text(text)
            elif not classed and text.upper() in ("IN", "CLASS1"):
                classed = True
            elif text.upper() in ("CH", "HS", "CS", "ANY") or text.upper().startswith("CLASS"):
                raise BadZoneError(f"{place}: class {text} is not served, only IN")
            else:
                return ttl_s, _type(place, text)

    def _entry(self, place: _Place, name: dns.name.Name, ttl_s: int | None, data: dns.rdata.Rdata) -> Entry:
        if not name.is_subdomain(self.origin):
            raise BadZoneError(f"{place}: {name} is outside of the zone {self.origin}")
        if isinstance(data, dns.rdtypes.ANY.SOA.SOA) and self.default_ttl_s is None:
            self.default_ttl_s = data.minimum  # as before RFC 2308, and as every server still reads it
        ttl_s = next((t for t in (ttl_s, self.default_ttl_s, self.last_ttl_s) if t is not None), None)
        if ttl_s is None:
            raise BadZoneError(f"{place}: no TTL: neither here nor before, and no $TTL")
        self.records += 1
        if self.records > RECORDS:
            raise BadZoneError(f"{place}: more than {RECORDS} records")
        rdata = data.to_wire()
        owner = name.to_wire()
        assert rdata is not None
        assert owner is not None
        return Entry(owner=owner.lower(), kind=data.rdtype, ttl_s=ttl_s, rdata=rdata, place=str(place))


def _type(place: _Place, text: str) -> dns.rdatatype.RdataType:
    try:
        kind = dns.rdatatype.from_text(text)
    except (dns.exception.DNSException, ValueError) as error:
        raise BadZoneError(f"{place}: unknown type {text}") from error
    if kind == wire.OPT or kind in NO_DATA_TYPES or kind == 0:
        raise BadZoneError(f"{place}: type {text} is for messages, not for zones")
    return kind


def _remainder(tokens: dns.tokenizer.Tokenizer) -> str:
    """The rest of a line as text again, for it is read once for every number."""
    parts: list[str] = []
    while True:
        token = tokens.get()
        if token.is_eol_or_eof():
            return " ".join(parts)
        parts.append(f'"{token.value}"' if token.is_quoted_string() else token.value)


_RANGE = re.compile(r"([0-9]{1,10})-([0-9]{1,10})(?:/([0-9]{1,10}))?")


def _range(text: str) -> range:
    """`1-10/2`. Raises ValueError with the reason."""
    found = _RANGE.fullmatch(text)
    if found is None:
        raise ValueError(f"$GENERATE: {text[:40]!r} is no range, expected START-STOP or START-STOP/STEP")
    start, stop, step = (int(part or 1) for part in found.groups())
    if step < 1 or start > stop:
        raise ValueError(f"$GENERATE: {text}: {'STEP is less than 1' if step < 1 else 'START is more than STOP'}")
    return range(start, stop + 1, step)


_NUMBER = re.compile(r"\\.|\$\$|\$\{(-?\d{1,9})(?:,(\d{1,3})(?:,([doxX]))?)?\}|\$")


def _numbered(template: str, number: int) -> str:
    def replaced(found: "re.Match[str]") -> str:
        if found[0] == "$$":
            return "$"
        if found[0][0] == "\\":
            return found[0]
        offset, width, base = found[1] or "0", found[2] or "0", found[3] or "d"
        return format(number + int(offset), base).zfill(min(int(width), wire.LABEL_LIMIT))

    return _NUMBER.sub(replaced, template)


def _reason(error: Exception) -> str:
    text = str(error) or type(error).__name__
    return f"{text[:1].lower()}{text[1:]}".removesuffix(".")
