"""Who may call whom: judged here in words, and compiled to the maps by which HAProxy judges each request.

One record's word counts for a caller: of the service's own record that for its name, else that for `*`; else the same of
the record for every service (`*`); else the default. Precedence as Consul's: a name before `*`, the called service before
the caller. Of a caller's sources that fit method and path the longest path decides, then one that names the method, then
`deny`; when none fits, the default does. A caller without a certificate is `anonymous`, and never `*`.
"""

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from urllib.parse import unquote_to_bytes

from fairlead_daemon.errors import Refused
from fairlead_discovery.decisions import identity
from fairlead_discovery.decisions.identity import ANONYMOUS, word
from fairlead_discovery.decisions.words import shown
from fairlead_discovery.policies import Intentions, Source

ALLOW, DENY = "allow", "deny"
ACTIONS = (ALLOW, DENY)
ANYBODY = "*"
RULES = "r:"
"""How a verdict begins that depends on method and path."""
OTHERS = "*"
"""In the table of rules: methods that no source names."""
MOST_SOURCES = 500
MOST_PATHS = 100
Heirs = Mapping[str, Sequence[str]]
"""Services that get others' requests and have no route of their own, and whose requests they get: theirs count."""
NO_HEIRS: Heirs = MappingProxyType({})
_METHOD = re.compile(r"[A-Z]{1,20}", re.ASCII)
_PATH = re.compile(r"(/[A-Za-z0-9._~!$&()+,=:@-]+)*/?", re.ASCII)
AMBIGUOUS = re.compile(r"(//|/\.\.?(/|$)|%2[5fF]|%5[cC]|%[01][0-9a-fA-F]|[\\;])")
"""In a path as it was sent, or decoded once: servers differ in what they take it for. Rules for paths refuse it."""
MALFORMED = re.compile(r"%([^0-9a-fA-F]|$|[0-9a-fA-F]([^0-9a-fA-F]|$))")
"""In a path as it was sent: nobody can decode it. Refused as well."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """`why` names what decided: `source marathon:/shop/web`, `default`."""

    allowed: bool
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Compiled:
    """Of all services. `verdicts`: `<service>=<caller>` -> allow, deny or `r:<id>`; `rules`: `r:<id><method><path>/`."""

    verdicts: Mapping[str, str] = field(default_factory=dict)
    rules: Mapping[str, str] = field(default_factory=dict)


def checked(record: Intentions) -> Intentions:
    """The record, if every word of it may stand in a map. Raises Refused naming the source and the field."""
    if record.service != ANYBODY:
        identity.service(record.service)
    if record.default not in ("", *ACTIONS):
        raise Refused(f"default {shown(record.default)}: allow or deny")
    if len(record.sources) > MOST_SOURCES:
        raise Refused(f"{len(record.sources)} sources, {MOST_SOURCES} at the most")
    for source in record.sources:
        try:
            _check(source)
        except Refused as error:
            raise Refused(f"source {source.name[:80]}: {error}") from error
    return record


def judge(
    service: str, records: Mapping[str, Intentions], default: str, caller: str, method: str = "", path: str = "/"
) -> Verdict:
    """`records`: by service, that for all under `*`. `caller`: a service key, or `anonymous`. No method: as TCP."""
    mine, fallback = _group(service, records, default, caller)
    if not mine:
        return Verdict(allowed=fallback == ALLOW, why="default")
    if not method and any(s.methods or s.paths for s in mine):
        return Verdict(allowed=False, why="a rule for methods or paths, which a TCP connection has none of")
    judged = decoded(path)
    if judged is None and any(s.methods or s.paths for s in mine):
        return Verdict(allowed=False, why="a path that servers take for different ones")
    best = _best(mine, method, judged or "/")
    if best is None:
        return Verdict(allowed=fallback == ALLOW, why=f"default: no source of {mine[0].name} fits")
    return Verdict(allowed=best.action == ALLOW, why=f"source {best.name}")


def covers(service: str, records: Mapping[str, Intentions], caller: str) -> bool:
    """Whether a source speaks of the caller, so that more than a default counts."""
    return bool(_group(service, records, ALLOW, caller)[0])


def guarded(service: str, records: Mapping[str, Intentions], default: str, heirs: Heirs = NO_HEIRS) -> bool:
    """Whether anybody could be refused: HAProxy looks no further for the others."""
    return default == DENY or ANYBODY in records or any(o in records for o in origins(service, records, heirs))


def origins(service: str, records: Mapping[str, Intentions], heirs: Heirs) -> Sequence[str]:
    """The services whose records count for this one: all of them must allow a call."""
    return (service,) if service in records else heirs.get(service) or (service,)


def compiled(
    services: Iterable[str], records: Mapping[str, Intentions], default: str, heirs: Heirs = NO_HEIRS
) -> Compiled:
    """For the services that are guarded."""
    verdicts: dict[str, str] = {}
    rules: dict[str, str] = {}
    for service in services:
        counting = origins(service, records, heirs)
        there = [r for r in (records.get(s) for s in (*counting, ANYBODY)) if r is not None]
        named = {s.name for r in there for s in r.sources}
        for caller in sorted({*named, ANYBODY, ANONYMOUS}):
            verdict, table = _table([_group(origin, records, default, caller) for origin in counting])
            verdicts[f"{word(service)}={_caller(caller)}"] = verdict
            rules.update(table)
    return Compiled(verdicts=verdicts, rules=rules)


def decoded(path: str) -> str | None:
    """The path that is judged, of one as it was sent; None when it is ambiguous."""
    judged = unquote_to_bytes(path).decode("latin-1")
    return None if MALFORMED.search(path) or AMBIGUOUS.search(path) or AMBIGUOUS.search(judged) else judged


def _caller(name: str) -> str:
    return name if name in (ANYBODY, ANONYMOUS) else identity.common_name(name)


def _check(source: Source) -> None:
    if source.name not in (ANYBODY, ANONYMOUS):
        identity.service(source.name)
    if source.action not in ACTIONS:
        raise Refused(f"action {shown(source.action)}: allow or deny")
    if bad := next((m for m in source.methods if not _METHOD.fullmatch(m)), None):
        raise Refused(f"method {bad[:40]!r}: upper case letters")
    for path in source.paths:
        if not path.startswith("/") or len(path) > 256 or not _PATH.fullmatch(path) or AMBIGUOUS.search(path):
            raise Refused(f"path {path[:80]!r}: not a plain path")
    if len(source.paths) > MOST_PATHS:
        raise Refused(f"{len(source.paths)} paths, {MOST_PATHS} at the most")


def _group(service: str, records: Mapping[str, Intentions], default: str, caller: str) -> tuple[Sequence[Source], str]:
    """The sources that speak of the caller, and what counts when none of them fits."""
    there = [r for r in (records.get(service), records.get(ANYBODY)) if r is not None]
    fallback = next((r.default for r in there if r.default), default)
    names = (caller,) if caller in (ANONYMOUS, ANYBODY) else (caller, ANYBODY)
    for record in there:
        for name in names:
            if mine := [s for s in record.sources if s.name == name]:
                return mine, fallback
    return (), fallback


def _best(sources: Iterable[Source], method: str, path: str) -> Source | None:
    fitting = [
        ((len(prefix), bool(s.methods), s.action == DENY), s)
        for s in sources
        if not s.methods or method in s.methods
        for prefix in (_trimmed(p) for p in s.paths or ("/",))
        if f"{path}/".startswith(f"{prefix}/")
    ]
    return max(fitting, key=lambda f: f[0])[1] if fitting else None


def _trimmed(path: str) -> str:
    return path.rstrip("/")


def _table(groups: Sequence[tuple[Sequence[Source], str]]) -> tuple[str, Mapping[str, str]]:
    """A verdict, and its rules when it depends. Each method has a table of its own, whole: the longest prefix decides."""
    sources = [s for group, _ in groups for s in group]
    if not any(s.methods or s.paths for s in sources):
        return _all(groups, OTHERS, "/"), {}
    paths = sorted({"", *(_trimmed(p) for s in sources for p in s.paths)})
    methods = sorted({OTHERS, *(m for s in sources for m in s.methods)})
    table = {f"{method}{path}/": _all(groups, method, path or "/") for method in methods for path in paths}
    text = repr(sorted(table.items())).encode()
    name = f"{RULES}{hashlib.sha256(text).hexdigest()[:16]}/"
    return name, {f"{name}{key}": verdict for key, verdict in table.items()}


def _all(groups: Sequence[tuple[Sequence[Source], str]], method: str, path: str) -> str:
    """Whether each of the groups allows it."""
    found = [(_best(group, method, path), fallback) for group, fallback in groups]
    return ALLOW if all((b.action if b is not None else f) == ALLOW for b, f in found) else DENY
