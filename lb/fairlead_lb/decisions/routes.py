"""From a snapshot to what the balancer shall serve. A bad route is refused alone, and its last good one stays."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import msgspec

from fairlead_daemon.errors import Refused
from fairlead_discovery import paths
from fairlead_discovery.decisions.identity import balancers_name
from fairlead_discovery.records import Member, Reason, Route
from fairlead_discovery.snapshots import Snapshot
from fairlead_lb.decisions import bamboo, colours, dials, last_good, map_keys, naming, resolvers, routers, splits, vips
from fairlead_lb.decisions import between as betweens
from fairlead_lb.decisions import mesh as meshes
from fairlead_lb.decisions.between import Between
from fairlead_lb.decisions.conditions import Condition, FrontRule
from fairlead_lb.decisions.dials import casing
from fairlead_lb.decisions.forbidden import Forbidden
from fairlead_lb.decisions.last_good import BY_HAPROXY, Kept, Past
from fairlead_lb.decisions.mesh import MeshRules
from fairlead_lb.decisions.nearness import Near, Placings, placings
from fairlead_lb.decisions.parts import Part, Parts, derive
from fairlead_lb.decisions.plain import with_plain
from fairlead_lb.decisions.resolvers import Resolved
from fairlead_lb.decisions.router_lines import FrontRouter
from fairlead_lb.decisions.routers import Leads
from fairlead_lb.decisions.values import DIALS, Backend, Key, Maps, Shape
from fairlead_lb.decisions.vips import VipRules

NO_ROUTE = Route(service="")
Derive = Callable[[str, Mapping[str, Member]], tuple[Route, tuple[str, ...]] | None]
"""A route for a service that nobody wrote one for, and what is wrong with the labels it is made of."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What of the surroundings decides over routes."""

    forbidden: Forbidden = field(default_factory=Forbidden)
    names_in_use: Collection[str] = ()
    """Backends that a running worker, old or new, knows."""
    refused_shapes: Mapping[tuple[Key, Shape], str] = field(default_factory=dict)
    """What HAProxy's own check turned down, with its words."""
    good: Mapping[str, Parts] = field(default_factory=dict)
    """What HAProxy has taken, by service."""
    vips: VipRules | None = None
    """None: nobody gets any."""
    spares: Mapping[str, Shape] = field(default_factory=dict)
    """Backends that stand empty for whoever comes next, and their casings."""
    aside: frozenset[tuple[Key, str]] = frozenset()
    """Tasks that get no requests for their errors."""
    passthrough: bool = False
    """Whether TLS can be passed on by name."""
    https: bool = True
    """Whether plain requests can be led to TLS, or nobody minds: on the machine itself they come by no network."""
    broken: Mapping[Key, int] = field(default_factory=dict)
    """Whose circuit breaker is not closed; as `breaking.tripped`."""
    spent: frozenset[Key] = frozenset()
    """Whose requests are not repeated any more."""
    callers: MeshRules = field(default_factory=MeshRules)
    between: Between | None = None
    """None: servers are asked in plain, wherever they are."""
    near: Near = field(default_factory=Near)
    groups: frozenset[str] = frozenset({"*"})
    """Of this balancer, as marathon-lb's `--group`; `*` serves every port."""
    manner: bamboo.Manner = field(default_factory=bamboo.Manner)
    refused_rules: Mapping[tuple[str, tuple[Condition, ...]], str] = field(default_factory=dict)
    """What HAProxy's own check turned down of a service's rules."""
    past: Past = field(default_factory=Past)
    lua: bool = True
    """Whether HAProxy was built with it: `delay` is made of it, and one line of it would be refused with everything."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What HAProxy shall serve at `revision`.

    `refused` names services (or nodes) with the reason; `dead` are tasks to be cut, not drained.
    """

    revision: int = -1
    backends: Mapping[str, Backend] = field(default_factory=dict)
    maps: Maps = field(default_factory=Maps)
    refused: Mapping[str, str] = field(default_factory=dict)
    dead: frozenset[str] = frozenset()
    names: naming.Names = field(default_factory=dict)
    vip_book: vips.Book = field(default_factory=dict)
    near: Placings = field(default_factory=dict)
    parts: Mapping[str, Parts] = field(default_factory=dict)
    rules: tuple[FrontRule, ...] = ()
    """Looked at in this order for what the maps do not take."""
    ruled: bamboo.Ruled = field(default_factory=bamboo.Ruled)
    force: meshes.InForce = field(default_factory=meshes.InForce)
    spread: betweens.Spread = field(default_factory=betweens.Spread)
    ways: splits.Ways = field(default_factory=dict)
    groups: colours.Groups = field(default_factory=colours.Groups)
    leads: Leads = field(default_factory=dict)
    kept: Mapping[str, Kept] = field(default_factory=dict)
    """Routers and resolvers that count, by their nodes' names; a last good one in the place of one that is refused."""
    resolved: Resolved = field(default_factory=Resolved)

    @property
    def fronts(self) -> tuple[FrontRouter, ...]:
        """What of the routers is rendered."""
        return routers.fronts(self.leads)


def wanted(snapshot: Snapshot, last: Wanted, rules: Rules, derived: Derive) -> Wanted:
    """Unchanged services keep their very objects of `last`."""
    snapshot, groups = colours.merged(snapshot, last.groups, derived)
    ruled = bamboo.ruled(snapshot, last.ruled, rules.manner)
    snapshot, unrouted = last_good.believed(snapshot, rules.past)
    refused = {**snapshot.bad, **groups.problems, **ruled.refused}
    resolving, resolved = resolvers.resolved(bamboo.routed(snapshot, ruled.claims), derived)
    snapshot = splits.with_targets(resolving, derived)
    parts = dict(_all_parts(snapshot, last, rules, _deriving(derived, ruled), refused, ruled.claims))
    asked = [_claiming(part, parts[service], ruled) for service in sorted(parts) for part in parts[service].parts]
    spread = betweens.spread(asked, rules.between, last.spread)
    flat = list(spread.parts)
    names = naming.give(_bases(flat), last.names, rules.names_in_use, _lender(flat, rules.spares))
    named = _named(flat, names)
    modes = {part.key: part.shape.mode for part in asked}
    led = routers.leads(snapshot.policies, modes)
    named = _timed(named, routers.timed(led.leads))
    near = placings(((part.key, part.servers) for part in flat), last.near, rules.near)
    backends = {name: backend(name, part, last, rules, near) for part, name in named}
    book = vips.book(last.vip_book, snapshot.members) if rules.vips is not None else {}
    found = splits.ways(snapshot.policies, modes)
    instead, unmoved = resolvers.redirects(resolved, modes, {*found.ways, *led.leads})
    for problems in (found.problems, unrouted, led.problems, resolved.problems, unmoved, spread.missing):
        for service, why in problems.items():
            _note(refused, service, why)
    maps = _maps(named, backends.values(), last.maps, rules, refused)
    targets = splits.heirs(snapshot.policies, snapshot.routes.keys() - resolving.routes.keys(), parts)
    others = {**targets, **colours.heirs(groups)}
    heirs = {**others, **resolvers.heirs(resolved, others)}
    force = meshes.in_force(snapshot, frozenset(parts), last.force, rules.callers, heirs)
    for service, why in force.refused.items():
        _note(refused, service, why)
    for service in _unled(named, rules):
        _note(refused, service, "https_only: this balancer has no https_port to lead plain requests to: they pass")
    judged = meshes.maps([(part.key, name) for part, name in named], force, rules.callers)
    judged = {**judged, **_towards_servers(named, judged["targets"], rules, resolved)}
    return Wanted(
        revision=snapshot.revision,
        backends=backends,
        maps=with_plain(
            _with_ways(
                msgspec.structs.replace(_with_vips(maps, named, book, last.maps, rules, refused), **judged),
                found.ways,
                led.leads,
                instead,
                {part.key: name for part, name in named},
            )
        ),
        vip_book=book,
        near=near,
        refused=refused,
        dead=frozenset(t for t, record in snapshot.leaving.items() if record.reason is Reason.DEAD),
        names=names,
        parts=parts,
        spread=spread,
        ways=found.ways,
        groups=groups,
        leads=led.leads,
        kept=last_good.kept(snapshot.policies),
        resolved=resolved,
        rules=tuple(_rules(named, parts, ruled, rules, refused)),
        ruled=ruled,
        force=force,
    )


def _timed(named: list[tuple[Part, str]], timed: Collection[Key]) -> list[tuple[Part, str]]:
    if not timed:
        return named
    return [
        (replace(part, shape=msgspec.structs.replace(part.shape, timed=True)) if part.key in timed else part, name)
        for part, name in named
    ]


def _with_ways(
    maps: Maps, ways: splits.Ways, leads: Leads, instead: Mapping[Key, Key], names: Mapping[Key, str]
) -> Maps:
    return resolvers.redirected(routers.with_leads(splits.with_ways(maps, ways, names), leads, names), instead, names)


def _towards_servers(
    named: list[tuple[Part, str]], targets: Mapping[str, str], rules: Rules, resolved: Resolved
) -> Mapping[str, Mapping[str, str]]:
    """What is said to servers that speak TLS, tasks or other machines' balancers; and how those name our tasks."""
    domain = rules.callers.trust_domain
    tasks = [(part.key, name) for part, name in named if part.shape.mtls and not part.shape.between]
    speaking = [(resolvers.base(resolved, key), name) for key, name in tasks]
    aims = betweens.aims(named) if domain else {}
    by_bytes = [(part.key, name) for part, name in named if part.shape.mode == "tcp"]
    guarded = {**meshes.tcp_targets(by_bytes, domain), **betweens.homes(named)}
    return {
        "server_names": {
            **meshes.server_names(speaking, rules.callers),
            **dict.fromkeys(aims, balancers_name(domain)),
        },
        "aims": aims,
        "targets": {**targets, **guarded} if domain else targets,
    }


def _deriving(derived: Derive, ruled: bamboo.Ruled) -> Derive:
    return lambda service, members: bamboo.derived(service, derived(service, members), ruled.claims)


def _claiming(part: Part, parts: Parts, ruled: bamboo.Ruled) -> Part:
    """A rule leads to the service's first port."""
    claims = ruled.claims.get(part.key.service)
    if claims is None or part.shape.mode != "http" or part.key.index != min(p.key.index for p in parts.parts):
        return part
    return replace(part, hosts=tuple(dict.fromkeys((*part.hosts, *claims.keys))))


def _rules(
    named: list[tuple[Part, str]],
    parts: Mapping[str, Parts],
    ruled: bamboo.Ruled,
    rules: Rules,
    refused: dict[str, str],
) -> Iterable[FrontRule]:
    for part, name in named:
        service = part.key.service
        if service not in ruled.claims or part.key.index != min(p.key.index for p in parts[service].parts):
            continue
        for conditions in ruled.claims[service].rules:
            if (why := rules.refused_rules.get((service, conditions))) is not None:
                _note(refused, service, f"bamboo rule: {BY_HAPROXY}: {why}")
            else:
                yield FrontRule(service=service, backend=name, conditions=conditions)


def pinned(wanted: Wanted, down: Collection[Key]) -> Wanted:
    """With requests for these ports kept at their fallbacks."""
    pins = splits.pin_table(down, {b.key: name for name, b in wanted.backends.items()}) if down else {}
    return wanted if wanted.maps.pins == pins else replace(wanted, maps=msgspec.structs.replace(wanted.maps, pins=pins))


def brought_home(wanted: Wanted, in_use: Collection[str]) -> Wanted:
    """The same under the services' own names: what a reload may bring to those who stand in spares."""
    lent = naming.lent_names(wanted.names)
    if not lent.keys() & {b.key for b in wanted.backends.values()}:
        return wanted
    asked = [part for service in sorted(wanted.parts) for part in wanted.parts[service].parts]
    flat = betweens.spread(asked, wanted.spread.between, wanted.spread).parts
    held = {n: k for n, k in wanted.names.items() if lent.get(k) != n}
    names = naming.give(_bases(flat), held, in_use, lambda _: None)
    own = {part.key: name for part, name in _named(flat, names)}
    moved = {name: own[backend.key] for name, backend in wanted.backends.items()}
    backends = {moved[n]: msgspec.structs.replace(b, name=moved[n]) for n, b in wanted.backends.items()}
    rules = tuple(msgspec.structs.replace(r, backend=moved.get(r.backend, r.backend)) for r in wanted.rules)
    return replace(wanted, backends=backends, maps=_moved(wanted.maps, moved), names=names, rules=rules)


def _moved(maps: Maps, moved: Mapping[str, str]) -> Maps:
    """With every backend under its new name."""
    pointing = ("hosts", "plain", "ports", "names", "vips", "targets")
    by_value = {name: {k: moved[b] for k, b in getattr(maps, name).items()} for name in pointing}
    by_key = {name: {moved[b]: v for b, v in getattr(maps, name).items()} for name in DIALS}
    return msgspec.structs.replace(
        maps, **by_value, **by_key, **splits.moved(maps, moved), **routers.moved(maps, moved)
    )


def _bases(flat: Sequence[Part]) -> list[tuple[Key, str]]:
    return [(p.key, naming.base_name(p.key, p.app, p.service_port)) for p in flat]


def _named(flat: Sequence[Part], names: naming.Names) -> list[tuple[Part, str]]:
    lent = naming.lent_names(names)
    return [
        (part, lent.get(key) or naming.name_of(key, base, names))
        for part, (key, base) in zip(flat, _bases(flat), strict=True)
    ]


def _lender(flat: Sequence[Part], spares: Mapping[str, Shape]) -> Callable[[Key], str | None]:
    """Gives each spare once, to a service of its casing."""
    free = dict(spares)
    casings = {part.key: casing(part.shape) for part in flat} if free else {}

    def lend(key: Key) -> str | None:
        name = next((n for n, shape in free.items() if shape == casings[key]), None)
        if name is not None:
            del free[name]
        return name

    return lend


def _all_parts(
    snapshot: Snapshot, last: Wanted, rules: Rules, derived: Derive, refused: dict[str, str], claimed: Collection[str]
) -> Iterable[tuple[str, Parts]]:
    nothing: Mapping[str, Member] = {}
    for service in sorted({*snapshot.routes, *snapshot.members, *_unreadable(snapshot, last), *claimed}):
        members = snapshot.members.get(service, nothing)
        before = last.parts.get(service)
        try:
            parts = parts_of(service, snapshot, before, derived, rules)
        except Refused as error:
            good = _last_good((before, rules.good.get(service)), rules)
            refused[service] = f"{error}{'; its last good route stays' if good else ''}"
            parts = None if good is None else _again(service, good, members)
        if parts is not None:
            if parts.problems:
                refused.setdefault(service, "; ".join(parts.problems))
            yield service, of_groups(parts, rules.groups)


def parts_of(service: str, snapshot: Snapshot, before: Parts | None, derived: Derive, rules: Rules) -> Parts | None:
    """Of every group. None when nothing routes to the service. Raises Refused."""
    parts = _parts(service, snapshot, before, derived)
    if parts is not None:
        _check_shapes(parts, rules)
    return parts


def of_groups(parts: Parts, mine: frozenset[str]) -> Parts:
    """Without ports that other balancers serve; the very same when there are none."""
    if "*" in mine:
        return parts
    served = tuple(p for p in parts.parts if "*" in p.groups or mine & (p.groups or {""}))
    return parts if len(served) == len(parts.parts) else replace(parts, parts=served)


def _parts(service: str, snapshot: Snapshot, before: Parts | None, derived: Derive) -> Parts | None:
    """None when nothing routes to the service. Raises Refused."""
    members = snapshot.members.get(service, {})
    given = snapshot.routes.get(service)
    if given is None and (why := snapshot.bad.get(paths.route(service)) or snapshot.bad.get(service)) is not None:
        raise Refused(why)
    if before is not None and before.members is members and given is (None if before.derived else before.route):
        return before
    found = (given, ()) if given is not None else derived(service, members)
    if found is None:
        return None
    route, problems = found
    mine = given is None
    if before is not None and _same(members, before.members) and (route, mine) == (before.route, before.derived):
        return before
    made = derive(service, route, members, derived=mine)
    return replace(made, problems=problems + made.problems) if problems else made


def _same(members: Mapping[str, Member], before: Mapping[str, Member]) -> bool:
    return members is before or members.keys() == before.keys()  # a member's name says its content


def _again(service: str, before: Parts, members: Mapping[str, Member]) -> Parts:
    """The last good route with today's members."""
    return before if before.members is members else derive(service, before.route, members, derived=before.derived)


def _unreadable(snapshot: Snapshot, last: Wanted) -> Iterable[str]:
    return (s for s in (last.parts if snapshot.bad else ()) if snapshot.bad.get(paths.route(s)) or snapshot.bad.get(s))


def _last_good(candidates: Iterable[Parts | None], rules: Rules) -> Parts | None:
    for parts in candidates:
        if parts is not None and not any(_why_not(p, rules) for p in parts.parts):
            return parts
    return None


def _check_shapes(parts: Parts, rules: Rules) -> None:
    for part in parts.parts if rules.refused_shapes or not rules.lua else ():
        if why := _why_not(part, rules):
            raise Refused(f"port {part.key.index}: {why}")


def _why_not(part: Part, rules: Rules) -> str:
    if part.shape.traffic.delay is not None and not rules.lua:
        return "delay: this HAProxy is built without Lua"
    why = rules.refused_shapes.get((part.key, casing(part.shape))) if rules.refused_shapes else None
    return "" if why is None else f"{BY_HAPROXY}: {why}"


def backend(name: str, part: Part, last: Wanted, rules: Rules, near: Placings) -> Backend:
    servers = near[part.key][-1] if part.key in near else part.servers
    aside = rules.aside
    if aside and any((part.key, server.task) in aside for server in servers):
        servers = tuple(msgspec.structs.replace(s, weight=0) if (part.key, s.task) in aside else s for s in servers)
    made = Backend(name=name, key=part.key, app=part.app, shape=part.shape, servers=servers)
    before = last.backends.get(name)
    return before if before is not None and before == made else made


def _maps(
    named: list[tuple[Part, str]], backends: Collection[Backend], last: Maps, rules: Rules, refused: dict[str, str]
) -> Maps:
    hosts = _hosts(named, last.hosts, refused)
    asking = [(str(part.service_port), name, part) for part, name in named if part.service_port]
    for port, _, part in asking:
        if why := rules.forbidden.why(int(port)):
            _note(refused, part.key.service, why)
    free = [a for a in asking if not rules.forbidden.why(int(a[0]))]
    ports = _claimed(free, last.ports, refused)
    modes = {name: part.shape.mode for part, name in named}
    return Maps(
        hosts=hosts,
        wilds=_wilds(hosts),
        ports=ports,
        modes={port: "http" for port, name in ports.items() if modes[name] == "http"},
        names=_names(named, last, rules, refused),
        **dials.dials(backends),
        breakers={b.name: str(rules.broken[b.key]) for b in backends if b.key in rules.broken} if rules.broken else {},
        budgets={b.name: "spent" for b in backends if b.key in rules.spent} if rules.spent else {},
    )


def _names(named: list[tuple[Part, str]], last: Maps, rules: Rules, refused: dict[str, str]) -> Mapping[str, str]:
    claims = [(n, name, part) for part, name in named for n in part.names]
    if rules.passthrough or not claims:
        return _claimed(claims, last.names, refused)
    for service in sorted({part.key.service for _, _, part in claims}):
        _note(refused, service, "mode tls: this balancer does not pass on TLS (setting tls_passthrough)")
    return {}


def _unled(named: list[tuple[Part, str]], rules: Rules) -> Sequence[str]:
    if rules.https:
        return ()
    return sorted({part.key.service for part, _ in named if part.shape.traffic.https_only})


def _with_vips(
    maps: Maps, named: list[tuple[Part, str]], book: vips.Book, last: Maps, rules: Rules, refused: dict[str, str]
) -> Maps:
    if rules.vips is None or not any(part.vips for part, _ in named):
        return maps
    addresses = vips.addresses(book, rules.vips.network)
    claims: list[tuple[str, str, Part]] = []
    for part, name in named:
        for vip in part.vips:
            place = vips.place(vip, addresses)
            if why := rules.vips.why_not(vip) or ("" if place else f"VIP {vip}: vip_range has no address left"):
                _note(refused, part.key.service, why)
            else:
                claims.append((place, name, part))
    held = _claimed(claims, last.vips, refused)
    modes = {name: part.shape.mode for part, name in named}
    http = {place: "http" for place, name in held.items() if modes[name] == "http"}
    return msgspec.structs.replace(maps, vips=held, modes={**maps.modes, **http})


def _hosts(named: list[tuple[Part, str]], last: Mapping[str, str], refused: dict[str, str]) -> Mapping[str, str]:
    claims = [(h, name, part) for part, name in named for h in part.hosts]
    folding = map_keys.folding(h for h, _, _ in claims)
    if folding:
        claims = [(map_keys.spelled(h, folding), name, part) for h, name, part in claims]
    held = {map_keys.spelled(h, folding): name for h, name in last.items()} if folding else last
    return _claimed(claims, held, refused)


def _claimed(
    claims: list[tuple[str, str, Part]], last: Mapping[str, str], refused: dict[str, str]
) -> Mapping[str, str]:
    """Who has it keeps it; else the first in order of keys. The others are told."""
    owners = {name: part.key.service for _, name, part in claims}
    held = {claim: name for claim, name, _ in claims if last.get(claim) == name}
    for claim, name, part in claims:
        holder = held.setdefault(claim, name)
        if holder != name:
            _note(refused, part.key.service, f"{map_keys.shown(claim)} belongs to {owners[holder]}")
    return held


def _note(refused: dict[str, str], service: str, why: str) -> None:
    refused[service] = f"{refused[service]}; {why}" if service in refused else why


def _wilds(hosts: Mapping[str, str]) -> Mapping[str, str]:
    """`*.a.example.com/x/` -> {`.a.example.com`: `*.a.example.com`}, longest first: the first match wins."""
    wild = {map_keys.host_of(host) for host in hosts if host.startswith("*.")}
    return {w[1:]: w for w in sorted(wild, key=lambda w: (-len(w), w))}
