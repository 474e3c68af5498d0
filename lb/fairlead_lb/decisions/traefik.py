"""What the balancer serves as Traefik's key-value tree (Traefik 3), and the steps that lead there from what is written.

http/routers/fairlead-<8 hex>/{rule,service,priority,entrypoints/0}
http/services/fairlead-shop_web_10100/loadbalancer/{passhostheader,servers/0/{url,weight},healthcheck/…,sticky/cookie/…}
http/services/fairlead-shop_web_10100-split/weighted/services/0/{name,weight}

Names that begin with `fairlead-` are ours; all others are left alone.
"""

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from fairlead_lb.decisions import buckets, map_keys
from fairlead_lb.decisions.routes import Wanted
from fairlead_lb.decisions.splits import Way
from fairlead_lb.decisions.values import Backend, Key

PREFIX = "fairlead-"
ROUTERS, SERVICES = "http/routers", "http/services"
MARK = "changed-"
"""Traefik looks at the root's own children alone: one of this name goes and comes with every change. Its decoder passes
over names that do not begin with http, tcp, udp or tls."""
EXACT, WILD = 2_000_000, 1_000_000
AT_ONCE = 400
Nodes = Mapping[str, str]
"""Path below the root -> data; folders are there with none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tree:
    """`left_out` says what of the routes Traefik is not told, by service."""

    nodes: Nodes = field(default_factory=dict)
    left_out: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Put:
    path: str
    data: str


@dataclass(frozen=True, slots=True)
class Remove:
    path: str


Step = Put | Remove


def tree(wanted: Wanted, entrypoints: Iterable[str] = ()) -> Tree:
    """HTTP services with a host or path, and those that they share requests with."""
    names = {backend.key: name for name, backend in wanted.backends.items()}
    leaves: dict[str, str] = {}
    used: dict[str, None] = {}
    for key, name in wanted.maps.hosts.items():
        ways = _ways(name, wanted, names)
        target = f"{PREFIX}{name}-split" if ways else f"{PREFIX}{name}"
        used |= dict.fromkeys((name, *(other for other, _ in ways)))
        leaves |= _router(key, target, entrypoints)
    for name in used:
        leaves |= _service(wanted.backends[name])
        leaves |= _split(name, _ways(name, wanted, names), wanted)
    return Tree(nodes=_with_folders(leaves), left_out=_left_out(wanted))


def _left_out(wanted: Wanted) -> dict[str, str]:
    found = {rule.service: "its rules that no map holds" for rule in wanted.rules}
    for service in sorted({key.service for key in wanted.leads}):
        found[service] = f"{found[service]}, its router" if service in found else "its router"
    ports = {b for b in wanted.maps.ports.values() if b in wanted.backends}
    for name in sorted(ports):
        service = wanted.backends[name].key.service
        found[service] = f"{found[service]}, its service port" if service in found else "its service port"
    return found


def _router(key: str, service: str, entrypoints: Iterable[str]) -> Iterator[tuple[str, str]]:
    folder = f"{ROUTERS}/{PREFIX}{hashlib.sha256(key.encode()).hexdigest()[:8]}"
    yield f"{folder}/rule", rule(key)
    yield f"{folder}/service", service
    yield f"{folder}/priority", str(priority(key))
    for number, name in enumerate(entrypoints):
        yield f"{folder}/entrypoints/{number}", name


def rule(key: str) -> str:
    """`a.example/cart/` -> Host(`a.example`) && (Path(`/cart`) || PathPrefix(`/cart/`)): ends at segments, as ours do."""
    parts = [_host(map_keys.host_of(key)), _path(key)]
    return " && ".join(part for part in parts if part) or "PathPrefix(`/`)"


def _host(host: str) -> str:
    if host in (map_keys.ANY_HOST, map_keys.EVERY_HOST):
        return ""
    if host.startswith("*."):
        return f"HostRegexp(`^.+{re.escape(host[1:])}$`)"
    return f"Host(`{host}`)"


def _path(key: str) -> str:
    host, _, rest = key.partition("/")
    path = f"/{rest.rstrip('/')}"
    if path == "/":
        return ""
    if host != map_keys.host_of(key):
        return f"PathRegexp(`(?i)^{re.escape(path)}(/|$)`)"
    return f"(Path(`{path}`) || PathPrefix(`{path}/`))"


def priority(key: str) -> int:
    """The exact host, then the longest wildcard, then any; below it the longest path."""
    host, _, path = key.partition("/")
    host = map_keys.host_of(key)
    if host == map_keys.EVERY_HOST:
        return 2 * EXACT + len(path)
    if host == map_keys.ANY_HOST:
        return 1 + len(path)
    return (WILD + 1000 * len(host) if host.startswith("*.") else EXACT) + len(path)


def _service(backend: Backend) -> Iterator[tuple[str, str]]:
    folder = f"{SERVICES}/{PREFIX}{backend.name}/loadbalancer"
    yield f"{folder}/passhostheader", "true"  # also what makes a service without servers one: it answers 503
    weighed = len({server.weight for server in backend.servers}) > 1  # Traefik 2 refuses all for a key it does not know
    for number, server in enumerate(backend.servers):
        host = f"[{server.host}]" if ":" in server.host else server.host
        yield f"{folder}/servers/{number}/url", f"http://{host}:{server.port}"
        if weighed:
            yield f"{folder}/servers/{number}/weight", str(server.weight)
    check = backend.shape.check
    if check is not None and check.path:
        yield f"{folder}/healthcheck/path", check.path
        yield f"{folder}/healthcheck/interval", f"{max(1, round(check.interval_s * 1000))}ms"
        yield f"{folder}/healthcheck/timeout", f"{max(1, round(check.timeout_s * 1000))}ms"
    if backend.shape.sticky:
        yield f"{folder}/sticky/cookie/name", "fairlead"
        yield f"{folder}/sticky/cookie/httponly", "true"


def _ways(name: str, wanted: Wanted, names: Mapping[Key, str]) -> tuple[tuple[str, int], ...]:
    """Others and their buckets of 10,000; () when all stays with the service."""
    way = wanted.ways.get(wanted.backends[name].key, Way())
    return tuple((names[key], size) for key, size in way.shares if size and key in names)


def _split(name: str, shares: tuple[tuple[str, int], ...], wanted: Wanted) -> Iterator[tuple[str, str]]:
    if not shares:
        return
    folder = f"{SERVICES}/{PREFIX}{name}-split/weighted"
    kept = buckets.BUCKETS - sum(size for _, size in shares)
    for number, (other, size) in enumerate([(name, kept), *shares] if kept else shares):
        yield f"{folder}/services/{number}/name", f"{PREFIX}{other}"
        yield f"{folder}/services/{number}/weight", str(size)
    if wanted.ways[wanted.backends[name].key].sticky:
        yield f"{folder}/sticky/cookie/name", "fairlead_split"


def _with_folders(leaves: Mapping[str, str]) -> dict[str, str]:
    """Every folder below a router's or service's own, which are ours too."""
    found = dict(leaves)
    for path in leaves:
        parts = path.split("/")
        found |= {"/".join(parts[:depth]): "" for depth in range(3, len(parts))}
    return found


# --- from what is written


def steps(there: Nodes, wanted: Nodes, mark: str, marks: Iterable[str]) -> list[list[Step]]:
    """Transactions, in order: services come before the routers that lead to them, and go after. The last one lets
    Traefik look: until then it sees nothing of this. Empty when nothing is to do.
    """
    batches = [
        *_batches(_puts(there, wanted, SERVICES) + _inner_removes(there, wanted)),
        *_batches(_puts(there, wanted, ROUTERS)),
        *_batches(_removes(there, wanted, ROUTERS)),
        *_batches(_removes(there, wanted, SERVICES)),
    ]
    if batches:
        batches.append([*(Remove(old) for old in marks if old != mark), Put(mark, "")])
    return batches


def _owner(path: str) -> str:
    return "/".join(path.split("/")[:3])


def _puts(there: Nodes, wanted: Nodes, folder: str) -> list[Step]:
    """Grouped by owner, so that one service's nodes change in one transaction."""
    changed = [p for p, data in wanted.items() if p.startswith(f"{folder}/") and there.get(p) != data]
    return [Put(path, wanted[path]) for path in sorted(changed)]


def _inner_removes(there: Nodes, wanted: Nodes) -> list[Step]:
    """Servers that a service has no more."""
    owners = {_owner(p) for p in wanted}
    gone = [p for p in there if p not in wanted and p.startswith(f"{SERVICES}/") and _owner(p) in owners]
    return [Remove(path) for path in _deepest_first(gone)]


def _removes(there: Nodes, wanted: Nodes, folder: str) -> list[Step]:
    owners = {_owner(p) for p in wanted}
    gone = [
        p
        for p in there
        if p not in wanted and p.startswith(f"{folder}/") and (folder == ROUTERS or _owner(p) not in owners)
    ]
    return [Remove(path) for path in _deepest_first(gone)]


def _deepest_first(paths: Iterable[str]) -> list[str]:
    return sorted(paths, key=lambda p: (-p.count("/"), p))


def _batches(found: list[Step]) -> Iterator[list[Step]]:
    """What belongs to one service stays together, unless it alone is larger."""
    by_owner: dict[str, list[Step]] = {}
    for step in found:
        by_owner.setdefault(_owner(step.path), []).append(step)
    batch: list[Step] = []
    for group in by_owner.values():
        for start in range(0, len(group), AT_ONCE):
            part = group[start : start + AT_ONCE]
            if len(batch) + len(part) > AT_ONCE:
                yield batch
                batch = []
            batch += part
    if batch:
        yield batch


def applied(there: Nodes, batch: Iterable[Step]) -> dict[str, str]:
    """What is written after it."""
    after = dict(there)
    for step in batch:
        if isinstance(step, Put):
            after[step.path] = step.data
        else:
            after.pop(step.path, None)
    return after
