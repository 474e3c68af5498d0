"""The newest snapshot, ready to be told over HTTP: texts made once, and who waits for which service woken by its changes.

Whoever has snapshots gives them by `take`; `adapters/listing_http.py` answers from it. Nothing here waits.
"""

import asyncio
import secrets
import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import msgspec

from fairlead_daemon.errors import FairleadError, Refused
from fairlead_discovery.decisions.delta import differing
from fairlead_discovery.decisions.listing import NONE, Found, Index, Told, digest, told
from fairlead_discovery.decisions.nearest import nearest
from fairlead_discovery.decisions.picking import address_of
from fairlead_discovery.decisions.service_names import NameIndex, Naming, Wanted, instances, parse
from fairlead_discovery.decisions.trust import Confirmed
from fairlead_discovery.records import Member
from fairlead_discovery.snapshots import UNKNOWN, Snapshot, Trust

EVERYTHING = ""
"""The topic of whoever waits for any change."""
REMEMBERED = 10_000
"""Services that are gone, for streams that resume."""
Members = Mapping[str, Member]


class NotThere(FairleadError):  # noqa: N818  # named for what it is, as the five errors are
    """No such service, with the names most alike."""


@dataclass(frozen=True, slots=True)
class View:
    """What there is of one name at one moment."""

    name: str
    services: tuple[str, ...]
    endpoints: tuple[Found, ...]
    index: Index


@dataclass(slots=True)
class _Changed:
    number: int
    revision: int


@dataclass(slots=True)
class _Text:
    members: Members
    found: tuple[Found, ...]
    digest: str


@dataclass(slots=True)
class Listing:
    """`number` counts changes here; with `instance` it says where a stream stopped."""

    naming: Naming = field(default_factory=Naming)
    snapshot: Snapshot = UNKNOWN
    instance: str = field(default_factory=lambda: secrets.token_hex(4))
    number: int = 0
    forgotten: int = 0
    """Of what happened up to this number not all is known any more."""
    hints: bool = True
    """Whether a name that is not there is answered with names like it."""
    confirmed: Confirmed | None = None
    """What a person said last of what to believe: told to whoever judges for itself."""
    _names: NameIndex = field(init=False)
    _taken_s: float = 0.0
    _changed: dict[str, _Changed] = field(default_factory=dict)
    """The latest last."""
    _gone: dict[str, None] = field(default_factory=dict)
    _texts: dict[str, _Text] = field(default_factory=dict)
    _waiting: dict[str, set[asyncio.Event]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._names = NameIndex(self.naming.spec)

    # --- what comes in

    def take(self, snapshot: Snapshot) -> None:
        before, self.snapshot, self._taken_s = self.snapshot, snapshot, time.monotonic()
        services = differing(before.members, snapshot.members, snapshot.delta)
        changed = {s for s in services if before.members.get(s) is not snapshot.members.get(s)}
        topics = changed | {name for s in changed for name in self._names.names(s)}
        self._names.take(snapshot.members, changed)
        topics |= {name for s in changed for name in self._names.names(s)}
        self.number += 1
        for service in changed:
            self._note(service)
        trusted = (before.trust, before.why, before.cluster) == (snapshot.trust, snapshot.why, snapshot.cluster)
        if not trusted:
            topics = set(self._waiting)
        self._wake({*topics, EVERYTHING} if topics else ())

    def confirm(self, word: Confirmed) -> None:
        """Streams tell it at once."""
        if word != self.confirmed:
            self.confirmed = word
            self._wake((*self._waiting,))

    def _note(self, service: str) -> None:
        self._changed.pop(service, None)
        self._gone.pop(service, None)
        self._texts.pop(service, None)
        self._changed[service] = _Changed(self.number, self.snapshot.revision)
        if service not in self.snapshot.members:
            self._gone[service] = None
            if len(self._gone) > REMEMBERED:
                oldest = next(iter(self._gone))
                self.forgotten = max(self.forgotten, self._changed.pop(oldest).number)
                del self._gone[oldest]

    def _wake(self, topics: Iterable[str]) -> None:
        for topic in topics:
            for event in self._waiting.get(topic, ()):
                event.set()

    # --- what is asked

    @property
    def age_s(self) -> float:
        """Of what is told, at this moment."""
        past_s = time.monotonic() - self._taken_s
        return self.snapshot.age_s + past_s if self.snapshot.age_s or self.snapshot.trust is not Trust.LIVE else 0.0

    def parse(self, name: str) -> Wanted:
        """Raises NotThere for what is no name at all."""
        try:
            return parse(name, domain=self.naming.domain)
        except Refused as error:
            raise NotThere(f"{error}{self._hint(name)}") from error

    def view(self, name: str) -> View:
        """Without services: nothing is published under that name, and nothing is known of it."""
        wanted = self.parse(name)
        meant = sorted(self._names.meant(wanted), key=lambda one: (one.service, str(one.instance)))
        known = tuple(dict.fromkeys(one.service for one in meant if self._known(one.service)))
        plain = not wanted.port and all(one.instance is None for one in meant)
        if plain:
            texts = [self._text(service) for service in known]
            found = tuple(each for text in texts for each in text.found)
            word = digest(text.digest.encode() for text in texts)
        else:
            members = ((one.service, one.of(self.snapshot.members.get(one.service, {}).values())) for one in meant)
            every = (each for service, those in members for each in told_of(service, those, wanted.port))
            found = tuple({(each.service, each.task): each for each in every}.values())
            word = digest(map(msgspec.json.encode, found))
        revision = max((self._changed[s].revision for s in known if s in self._changed), default=0)
        index = Index(revision, word if known else NONE, self.snapshot.trust.value)
        return View(name=name, services=known, endpoints=found, index=index)

    def services(self) -> Mapping[str, tuple[tuple[str, ...], int]]:
        """Names with the domain, and how many endpoints, of every service."""
        return {
            service: (self.dns_names(service), len(members))
            for service, members in sorted(self.snapshot.members.items())
        }

    def dns_names(self, service: str) -> tuple[str, ...]:
        return tuple(sorted(f"{name}.{self.naming.domain}" for name in self._names.names(service)))

    def missing(self, name: str) -> NotThere:
        return NotThere(f"no service is called {name}{self._hint(name)}")

    def _known(self, service: str) -> bool:
        return service in self.snapshot.members or service in self.snapshot.routes

    def _hint(self, name: str) -> str:
        if not self.hints:
            return ""
        every = [*self.snapshot.members, *(dns for service in self.snapshot.members for dns in self.dns_names(service))]
        near = nearest(name, every)
        return f"; did you mean {' or '.join(near)}?" if near else ""

    def _text(self, service: str) -> _Text:
        members = self.snapshot.members.get(service, {})
        text = self._texts.get(service)
        if text is None or text.members is not members:
            found = told_of(service, members.values(), "")
            text = _Text(members, found, digest(map(msgspec.json.encode, found)))
            if members:
                self._texts[service] = text
        return text

    # --- what changed

    @contextmanager
    def watching(self, topics: Collection[str]) -> Iterator[asyncio.Event]:
        """An event that is set by the next change of one of them; clear it before you look."""
        event = asyncio.Event()
        for topic in topics:
            self._waiting.setdefault(topic, set()).add(event)
        try:
            yield event
        finally:
            for topic in topics:
                self._waiting[topic].discard(event)
                if not self._waiting[topic]:
                    del self._waiting[topic]

    def topics(self, names: Iterable[str]) -> frozenset[str]:
        """What to watch for these names; for none of them: everything."""
        return frozenset(topic for name in names for topic in _topics(self.parse(name))) or frozenset({EVERYTHING})

    def changed_since(self, number: int) -> list[str]:
        found = []
        for service in reversed(self._changed):
            if self._changed[service].number <= number:
                break
            found.append(service)
        return found

    def meant(self, names: Iterable[str]) -> frozenset[str]:
        return frozenset(one.service for name in names for one in self._names.meant(self.parse(name)))

    def telling(self, services: Iterable[str], *, whole: bool = False, more: bool = False) -> Told:
        """These services as they are now."""
        now = self.snapshot
        there = [service for service in services if service in now.members]
        return Told(
            cluster=now.cluster,
            revision=now.revision,
            trust=now.trust,
            why=now.why,
            age_s=self.age_s,
            whole=whole,
            more=more,
            services={service: self._text(service).found for service in there},
            gone=tuple(service for service in services if service not in now.members),
            bare=not (now.members or now.portless or now.routes or now.leaving),
            left=tuple(now.leaving) if whole and not more else (),
            confirmed=self.confirmed,
        )


def told_of(service: str, members: Iterable[Member], port: str) -> tuple[Found, ...]:
    """In order of address."""
    placed = ((member, address_of(member, port)) for member in members)
    found = (told(service, member, at) for member, at in placed if at is not None)
    return tuple(sorted(found, key=lambda each: (each.host, each.port, each.task)))


def _topics(wanted: Wanted) -> Iterator[str]:
    if wanted.service:
        yield wanted.service
        return
    yield wanted.dns
    for dns, _ in instances(wanted.dns):
        yield dns
