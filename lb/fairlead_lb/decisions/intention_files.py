"""Who may call whom as an operator writes it in a route file: `[[intention]]`, in the words of `fairlead intention`."""

from collections.abc import Iterable, Iterator, Mapping, Sequence

import msgspec

from fairlead_daemon.errors import Refused
from fairlead_discovery.policies import Intentions, Source
from fairlead_lb.decisions.intentions import ALLOW, checked


class IntentionEntry(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    forbid_unknown_fields=True,
    omit_defaults=True,
    rename={"caller": "from"},
):
    """One `[[intention]]`: that `from` may call `to` or not, or what counts for callers that no other entry names."""

    to: str
    """A service, or `*` for every one."""
    caller: str = ""
    """`from`: a service, `*` for anybody with an identity, `anonymous` for who has none."""
    action: str = ""
    """`allow` or `deny`."""
    methods: tuple[str, ...] = ()
    paths: tuple[str, ...] = ()
    default: str = ""
    """`allow` or `deny`, without `from`."""


def intentions_of(entries: Iterable[tuple[IntentionEntry, str]]) -> Sequence[Intentions]:
    """Entries with their places, as one record for each service that is called. Raises Refused naming the place."""
    made: dict[str, Intentions] = {}
    for entry, place in entries:
        before = made.get(entry.to, Intentions(service=entry.to))
        try:
            made[entry.to] = checked(_with(before, entry))
        except Refused as error:
            raise Refused(f"{place}: {error}") from error
    return list(made.values())


def entries_of(record: Intentions) -> Iterator[IntentionEntry]:
    """The other way."""
    if record.default:
        yield IntentionEntry(to=record.service, default=record.default)
    for s in record.sources:
        yield IntentionEntry(to=record.service, caller=s.name, action=s.action, methods=s.methods, paths=s.paths)


def ordered(record: Intentions) -> Intentions:
    """Two that say the same are the same: the order of sources means nothing."""
    return msgspec.structs.replace(record, sources=tuple(sorted(record.sources, key=_words)))


def told(record: Intentions) -> str:
    """`marathon:/shop/web may GET below /items, others may not`."""
    said = [_told(source) for source in record.sources]
    others = {"": [], ALLOW: ["others may"]}.get(record.default, ["others may not"])
    return ", ".join([*said, *others])


def _told(source: Source) -> str:
    below = f" below {' or '.join(source.paths)}" if source.paths else ""
    may = "may" if source.action == ALLOW else "may not"
    return f"{source.name} {may} {' or '.join(source.methods) or 'call'}{below}"


def _with(record: Intentions, entry: IntentionEntry) -> Intentions:
    if bool(entry.caller) == bool(entry.default):
        raise Refused("needs `from` with `action`, or `default`")
    if entry.default:
        if entry.action or entry.methods or entry.paths:
            raise Refused("`default` stands alone")
        if record.default:
            raise Refused(f"the default of {record.service} is there twice")
        return msgspec.structs.replace(record, default=entry.default)
    methods = tuple(method.upper() for method in entry.methods)
    source = Source(name=entry.caller, action=entry.action, methods=methods, paths=entry.paths)
    if any((s.name, s.methods, s.paths) == (source.name, methods, source.paths) for s in record.sources):
        raise Refused(f"{source.name} to {record.service} is there twice")
    return msgspec.structs.replace(record, sources=(*record.sources, source))


def _words(source: Source) -> tuple[str, tuple[str, ...], tuple[str, ...], str]:
    return source.name, source.methods, source.paths, source.action


def from_file(found: Iterable[object], place: str) -> Mapping[str, Intentions]:
    """By the service that is called. Raises Refused naming file, entry and field."""
    entries = []
    for number, one in enumerate(found, 1):
        here = f"{place}: intention {number}"
        try:
            entries.append((msgspec.convert(one, IntentionEntry), here))
        except msgspec.ValidationError as error:
            raise Refused(f"{here}: {error}") from error
    return {record.service: record for record in intentions_of(entries)}
