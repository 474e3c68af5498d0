"""The names of this moment: what the registry says, the zone made of it, the answers made of that."""

import asyncio
import random
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from fairlead_discovery.decisions.delta import differing
from fairlead_discovery.decisions.vips import VipNames, addresses, parse_range
from fairlead_discovery.records import Agent, Framework, MasterInfo, Member, Portless
from fairlead_discovery.snapshots import UNKNOWN, Snapshot, Trust
from fairlead_dns.decisions import hosts, wire
from fairlead_dns.decisions.answer import Answers, Authority
from fairlead_dns.decisions.choosing import Chooser
from fairlead_dns.decisions.clients import Clients, Locality
from fairlead_dns.decisions.dialects import l4lb
from fairlead_dns.decisions.front import Front, Route
from fairlead_dns.decisions.journal import Held, Journal, later
from fairlead_dns.decisions.ledger import Ledger, LedgerSource
from fairlead_dns.decisions.naming import (
    ZONE_TTL,
    Dialect,
    Record,
    Rules,
    agent_name,
    of_framework,
    of_masters,
    of_server,
)
from fairlead_dns.decisions.queries import Queries, Query
from fairlead_dns.decisions.settling import OWN
from fairlead_dns.decisions.sources import Sources
from fairlead_dns.decisions.speaking import of_agent, of_ourselves
from fairlead_dns.decisions.static import StaticSource
from fairlead_dns.decisions.traits import Traits
from fairlead_dns.decisions.zone import ARPA, Zone

SERIALS = 2**32


@dataclass(frozen=True, slots=True, kw_only=True)
class Manner:
    """How answers depend on who asks and on who gives: where clients stand, what is chosen, how long newcomers warm up."""

    localities: tuple[Locality, ...] = ()
    chooser: Chooser = field(default_factory=Chooser)
    warm_up_s: float = 0.0


@dataclass(slots=True)
class Names:
    """Owned by the daemon's loop; every `take_…` makes the names true to one more thing heard."""

    rules: Rules
    authority: Authority
    manner: Manner = field(default_factory=Manner)
    zone: Zone = field(init=False)
    answers: Answers = field(init=False)
    front: Front = field(init=False)
    sources: Sources = field(init=False)
    queries: Queries = field(init=False)
    frameworks: Mapping[str, Framework] = field(default_factory=dict)
    agents: Mapping[str, Agent] = field(default_factory=dict)
    masters: tuple[MasterInfo, ...] = ()
    leader: MasterInfo | None = None
    snapshot: Snapshot = UNKNOWN
    """The newest; its endpoints may be on their way into the zone."""
    documents_changed: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when frameworks, agents or masters have; whoever acts on it clears it."""
    ledger: Ledger = field(init=False)
    """The same names as secondaries see them."""
    files: dict[bytes, StaticSource] = field(default_factory=dict)
    """The zones of files, by apex; whoever serves them puts them here."""
    applied: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the names are others, or the revision is; whoever acts on it clears it."""
    settled: asyncio.Event = field(default_factory=asyncio.Event)
    """Set, and replaced by a new one, when the names have a new serial and the journal a new change."""
    share: Callable[[Collection[bytes], bool], None] = lambda _names, _everything: None
    """Told of names whose answers may be others now, after they are; with True when no answer of before is true."""
    applying: bool = False
    """A snapshot is on its way into the zone: it is at no revision."""
    ahead: int = 0
    """What serials are more than the registry's revision: 0 unless it has begun anew."""
    version: int = 0
    """Counts all changes; `others_version` those that come from no commit."""
    others_version: int = 0
    vips: VipNames = field(default_factory=VipNames)
    _followed: dict[str, set[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.zone = Zone(set(self.authority.apexes))
        self.ledger = Ledger(self.zone, self.authority, {apex: Journal() for apex in self.authority.apexes})
        traits = Traits(places=bool(self.manner.localities), warm_up_s=self.manner.warm_up_s)
        clients = Clients(self.manner.localities)
        self.answers = Answers(self.zone, self.authority, random.random, traits, clients, self.manner.chooser)
        self.sources = Sources(self.rules, self.zone, traits)
        self.queries = Queries(self.rules)
        self.front = Front(time.time)
        if self.manner.localities:
            self.front.views.classify = lambda client: clients.of(client).place
        for apex in self.authority.apexes:
            self.front.serve(apex, self.answers)
        self._replace("dialects", {"": of_ourselves(self.rules)})

    def source(self, name: bytes) -> LedgerSource | StaticSource | None:
        """The longest zone of ours that has the name, with its journal; None for a name of none of ours."""
        while name not in self.files and name not in self.ledger.journals:
            if len(name) == 1:
                return None
            name = wire.parent(name)
        return self.files[name] if name in self.files else LedgerSource(self.ledger, name)

    def held(self, name: bytes) -> Held:
        """What the name had at the serial of this moment."""
        return self.ledger.held(name)

    def settle(self) -> bool:
        """The names of this moment are those of the snapshot's revision. Returns whether anything has a new serial."""
        *_, moved = self.settling()
        return moved

    @property
    def serial_now(self) -> int:
        """Of the registry's revision; see `ahead`."""
        return (self.snapshot.revision + self.ahead) % SERIALS

    def settling(self, *, alone: bool = False, serial: int | None = None) -> Iterator[bool]:
        """The same in steps, as Ledger.settling. `alone`: the revision is ours, and says nothing of frameworks, agents
        and masters; what changes besides gets the next serial. `serial`: given by who knows better.
        """
        known = self.ledger.serial
        serial = self.serial_now if serial is None else serial
        if alone and known is not None and self.ledger.before and not later(serial, known):
            serial = (known + 1) % SERIALS
        for moved in self.ledger.settling(serial, at_s=time.time()):
            self._answered(())  # before anybody is told: who asks then is answered with it
            if moved:
                self.settled.set()
                self.settled = asyncio.Event()
            yield moved

    def take_snapshot(self, snapshot: Snapshot) -> int:
        """Returns how many names have other answers now. A snapshot of nothing known yet (revision -1) is none."""
        return sum(self.steps(snapshot))

    def steps(self, snapshot: Snapshot, *, now_s: float | None = None) -> Iterator[int]:
        """The same in steps between which queries may be answered: each name as it was, or as it is now. The serial
        and the trust come with the last step. To be run to the end. `now_s`: see Sources.steps.
        """
        if snapshot.revision < 0:
            return
        self.snapshot, self.applying = snapshot, True
        concerned = self._concerned(snapshot)
        moved = self._with_vips_moved(snapshot)
        for touched in self.sources.steps(snapshot, now_s=now_s):
            self._point(touched)
            self._answered(touched)
            yield len(touched)
        self._answer_queries(concerned)
        if moved:
            self._answer_vips()
        self.applying = False
        self._answered((), snapshot.trust)
        self._changed()

    def warm_up(self, now_s: float) -> Iterator[int]:
        """In steps, as above; yields how many names have other answers by each newcomer that is less of one."""
        for touched in self.answers.traits.tick(now_s):
            self._answered(touched)
            yield len(touched)

    def take_frameworks(self, frameworks: Mapping[str, Framework]) -> None:
        """Names of those with a literal address; a host name is not an address (Mesos-DNS published it as one)."""
        self.frameworks = frameworks
        rivals = self.sources.claims.host("framework", hosts.frameworks(frameworks, self.rules))
        records = {
            key: of_framework(f, (f.ip or f.hostname,), self.rules, rival=f.name in rivals)
            for key, f in frameworks.items()
        }
        self._replace("framework", records)

    def take_agents(self, agents: Mapping[str, Agent]) -> None:
        self.agents = agents
        rivals = self.sources.claims.host("agent", hosts.agents(agents))
        records = {key: of_agent(a, self.rules, rival=agent_name(a) in rivals) for key, a in agents.items()}
        self._replace("agent", records)

    def take_masters(self, masters: tuple[MasterInfo, ...], leader: MasterInfo | None) -> None:
        self.masters, self.leader = masters, leader
        self._replace("master", {"": of_masters(masters, leader, self.rules)})

    def take_own(self, mname: str, addresses: tuple[str, ...]) -> None:
        self._replace("server", {"": of_server(mname, addresses)})

    def take_records(self, records: tuple[Record, ...]) -> None:
        """Those that a person has written down, each of `records` once; with TTLs of their own."""
        fixed: dict[tuple[bytes, int], list[int]] = {}
        for record in records:
            fixed.setdefault((record.owner, record.kind), []).append(record.ttl_s)
        self._note({name for name, _ in (*self.zone.fixed_ttls, *fixed)})
        self.zone.fixed_ttls = {key: (min(ttls), len(ttls)) for key, ttls in fixed.items()}
        self._replace("settings", {"": tuple(record._replace(ttl_s=ZONE_TTL) for record in records)})

    @property
    def largest_service_ttl_s(self) -> int:
        """The largest TTL that a service asks for, 0 when none does."""
        return self.zone.largest_given_ttl_s

    def allow_ttl(self, most_s: int) -> None:
        """No service gets a larger TTL from now on."""
        if most_s != self.zone.longest_ttl_s:
            self._note({name for name, _ in self.zone.given_ttls})
            self.zone.longest_ttl_s = most_s
            self.answers.forget()
            self.share({name for name, _ in self.zone.given_ttls}, True)
            self._changed()

    def take_queries(self, queries: Iterable[tuple[Query, Dialect]]) -> None:
        """Prepared queries, all of them."""
        before = set(self.queries.known)
        self.queries.put(queries)
        self.others_version += 1
        self._answer_queries(before | set(self.queries.known))

    def tasks(self) -> Iterator[Member | Portless]:
        for services in (self.sources.members, self.sources.portless):
            for tasks in services.values():
                yield from tasks.values()

    def master_places(self) -> list[str]:
        return [f"{m.address.ip}:{m.address.port}" for m in self.masters]

    def _concerned(self, snapshot: Snapshot) -> set[str]:
        """Prepared queries of services that have changed."""
        if not self.queries.known:
            return set()
        found: set[str] = set()
        for service in differing(self.sources.members, snapshot.members, snapshot.delta):
            for tasks in (self.sources.members.get(service, {}), snapshot.members.get(service, {})):
                found |= self.queries.concerned({(t.task.name, t.discovery.name): t for t in tasks.values()}.values())
        return found

    def _with_vips_moved(self, snapshot: Snapshot) -> bool:
        """Whether there may be other VIPs now."""
        if all(dialect.kind != "l4lb" for dialect in self.rules.dialects):
            return False
        return self.vips.take(differing(self.sources.members, snapshot.members, snapshot.delta), snapshot.members)

    def _answer_vips(self) -> None:
        touched: set[bytes] = set()
        records = {
            f"vip {dialect.domain} {name}": l4lb(name, address, dialect)
            for dialect in self.rules.dialects
            if dialect.kind == "l4lb"
            for name, address in addresses(self.vips.counts.keys(), parse_range(dialect.vip_range)).items()
        }
        for key in self._followed.get("vip", set()) | records.keys():
            touched |= self.sources.take_other(key, records.get(key, ()))
        self._followed["vip"] = set(records)
        self._touched(touched)

    def _answer_queries(self, keys: Iterable[str]) -> None:
        touched: set[bytes] = set()
        for key in keys:
            records: tuple[Record, ...] = ()
            if key in self.queries.known:
                services = self.sources.claims.holders.get(self.queries.service(key), ())
                members = (
                    m for s in services for m in self.sources.members.get(s, {}).values() if isinstance(m, Member)
                )
                records = self.queries.records(key, members)
            touched |= self.sources.take_other(f"query {key}", records)
        self._touched(touched)

    def _answered(self, touched: Collection[bytes], trust: Trust | None = None) -> None:
        """No answer of before is given of `touched`. SOA says the serial that can be fetched: what is asked for it by
        who has been told of a new one. Until there is one it is the revision that is answered.
        """
        trust, serial = trust or self.answers.trust, self.ledger.serial
        if trust is None:
            return
        if serial is None:
            serial = self.answers.serial if self.applying else self.serial_now
        self.answers.changed(touched, serial=serial, trust=trust)
        self.share(touched, False)

    def _note(self, names: Iterable[bytes]) -> None:
        """Of names whose TTLs are about to change."""
        for name in names:
            if self.zone.note is not None:
                self.zone.note(name)

    def _changed(self) -> None:
        self.version += 1
        self.applied.set()

    def _touched(self, touched: set[bytes]) -> None:
        self._point(touched)
        if touched:
            self._changed()
            self._answered(touched)

    def _replace(self, kind: str, records: Mapping[str, tuple[Record, ...]]) -> None:
        self.documents_changed.set()
        keys = set(records)
        touched: set[bytes] = set()
        for key in self._followed.get(kind, set()) | keys:
            touched |= self.sources.take_other(f"{kind} {key}", records.get(key, ()))
        self._followed[kind] = keys
        self.others_version += bool(touched) and not kind.startswith(OWN)
        self._touched(touched)

    def _point(self, touched: Iterable[bytes]) -> None:
        """The reverse name of a known address is a zone of its own that comes and goes with its records."""
        for name in touched:
            if not name.endswith(ARPA) or name in self.authority.apexes:
                continue
            if name in self.zone.points:
                self.front.routes[name] = Route(self.answers, recursive=False, notify=False)
            else:
                self.front.routes.pop(name, None)
