"""Records of the zone as `/v2/records` shows them: filtered, page by page."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from fairlead_dns.decisions import wire
from fairlead_dns.decisions.naming import Record
from fairlead_dns.decisions.why import text_of
from fairlead_dns.decisions.zone import Zone

KINDS = {name: kind for kind, name in wire.TYPE_NAMES.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """What to show. `name` that name alone, `under` it and all below, both in wire form; `contains` a part of its text;
    `kind` one type; `after` the last name of the page before.
    """

    name: bytes | None = None
    under: bytes | None = None
    contains: str = ""
    kind: int | None = None
    after: str = ""

    def fits(self, name: bytes, text: str, zone: Zone) -> bool:
        return (
            (self.under is None or name == self.under or name.endswith(self.under))
            and self.contains in text
            and text > self.after
            and (bool(zone.sets(name)) if self.kind is None else self.kind in zone.sets(name))
        )


def kind_of(text: str) -> int | None:
    """`srv`, `TYPE64`; None when it is no type."""
    upper = text.upper()
    if upper.startswith("TYPE") and upper[4:].isdigit() and len(upper) <= len("TYPE65535"):
        number = int(upper[4:])
        return number if number <= wire.HIGHEST_16 else None
    return KINDS.get(upper)


def fitting(zone: Zone, names: Iterable[bytes], wanted: Filter) -> list[tuple[str, bytes]]:
    """Those of `names` that are to be shown, with their texts; in no order."""
    found = ((wire.text(name), name) for name in names if wanted.under is None or name.endswith(wanted.under))
    return [(text, name) for text, name in found if wanted.fits(name, text, zone)]


def rows(zone: Zone, names: Sequence[bytes], kind: int | None, default_s: int) -> list[dict[str, Any]]:
    """One row a set. Names that have gone meanwhile are left out."""
    found = []
    for name in names:
        for known, data in sorted(zone.sets(name).items()):
            if kind in (None, known):
                found.append(
                    {
                        "name": wire.text(name),
                        "type": wire.TYPE_NAMES.get(known, f"TYPE{known}"),
                        "ttl_s": zone.ttl_s(name, known, default_s),
                        "data": [text_of(Record(name, known, d)).partition(" ")[2] for d in sorted(data)],
                    }
                )
    return found
