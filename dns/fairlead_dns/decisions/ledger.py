"""The index of names as secondaries see it: at one serial, whatever has changed since.

`note` is called before a name changes and keeps what it had; `settle` gives what has gathered a serial. Between the
two, and while a long transfer runs, the zone at a serial is the live zone less what was noted. So no copy of the
zone is held, and a change costs only its own names.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from weakref import WeakSet

from fairlead_dns.decisions import wire
from fairlead_dns.decisions.answer import Authority
from fairlead_dns.decisions.compose import RRset
from fairlead_dns.decisions.journal import Change, Held, Journal, NameChange, later
from fairlead_dns.decisions.zone import Zone

NOTED = 500_000
"""Names a running transfer may hold besides the zone: a client slower than so many changes begins anew."""
STEP = 500  # names; about 5 ms
APEX_KINDS = frozenset({wire.SOA, wire.NS})


class Frozen:
    """The zone below one apex as it was at one serial, for as long as somebody reads it."""

    def __init__(self, ledger: "Ledger", apex: bytes) -> None:
        self.apex = apex
        self.soa = ledger.soa(apex)
        self.old: dict[bytes, Held] = {}
        self.outrun = False
        self._ledger = ledger
        self._names = list(ledger.zone.names)
        self._names += ledger.gone()

    def records(self) -> Iterator[RRset]:
        """Every set but the SOA. Ends early, `outrun`, when more has changed meanwhile than may be held."""
        yield self._ledger.servers(self.apex)
        for name in self._names:
            if self.outrun:
                return
            if self._ledger.apex_of(name) == self.apex:
                yield from self._held(name)

    def all_names(self) -> Iterator[tuple[bytes, Held]]:
        """What every name has that is transferred, of whatever zone. Ends early as `records`."""
        for name in self._names:
            if self.outrun:
                return
            held = self._held(name)
            if held and self._ledger.apex_of(name) is not None:
                yield name, held

    def keep(self, before: Mapping[bytes, Held]) -> None:
        for name, held in before.items():
            self.old.setdefault(name, held)
        self.outrun = len(self.old) > NOTED

    def _held(self, name: bytes) -> Held:
        held = self.old.get(name)
        return self._ledger.held(name) if held is None else held


@dataclass(slots=True)
class Ledger:
    """Owned by the daemon's loop. `serial` is None until the first settling: until then nothing is noted or transferred."""

    zone: Zone
    authority: Authority
    journals: dict[bytes, Journal]
    """One for each apex that is transferred."""
    serial: int | None = None
    begun_s: float = 0.0
    """Unix time of the first settling."""
    before: dict[bytes, Held] = field(default_factory=dict)
    """What each name that has changed since the last settling had then."""
    _leaving: dict[bytes, Held] = field(default_factory=dict)
    """The same of a settling that is under way; `before` then begins with it."""
    readers: "WeakSet[Frozen]" = field(default_factory=WeakSet)
    told: Callable[[int, int, float, Sequence[NameChange]], None] = lambda _before, _serial, _at_s, _names: None
    """Called with each change of all zones that has a serial now: serials, Unix time, names."""

    def note(self, name: bytes) -> None:
        """To be called before the name's records change."""
        if name not in self.before:
            self.before[name] = self.live(name)

    def settle(self, serial: int, *, at_s: float) -> bool:
        """What the zone holds now is what it holds at `serial`. Returns whether secondaries have something to fetch.

        A serial never goes back (the registry's last good state may be an older one): then secondaries stay where they
        are, and what has changed is settled with the next serial that is a later one.
        """
        *_, moved = self.settling(serial, at_s=at_s)
        return moved

    def settling(self, serial: int, *, at_s: float) -> Iterator[bool]:
        """The same in steps of STEP names; the zone may change between them. The last one yields what `settle` returns.
        To be run to the end.
        """
        known = self.serial
        if known is None:
            self.serial, self.zone.note, self.begun_s = serial, self.note, at_s
            yield True
            return
        if serial != known and not later(serial, known):
            yield False
            return
        self._leaving, self.before = self.before, {}
        changed: dict[bytes, list[NameChange]] = {apex: [] for apex in self.journals}
        for count, (name, held) in enumerate(self._leaving.items(), start=1):
            self._compare(name, held, changed)
            if count % STEP == 0:
                yield False
        for reader in tuple(self.readers):
            reader.keep(self._leaving)
        self.serial, self._leaving = serial, {}
        moved = serial != known or any(changed.values())
        for apex, journal in self.journals.items() if moved else ():
            journal.append(Change(self.soa(apex, known), self.soa(apex), at_s, tuple(changed[apex])))
        if moved:
            self.told(known, serial, at_s, [each for names in changed.values() for each in names])
        yield moved

    def frozen(self, apex: bytes) -> Frozen:
        """Held up to date by `settle` until it is dropped."""
        made = Frozen(self, apex)
        self.readers.add(made)
        return made

    def held(self, name: bytes) -> Held:
        """What the name had at the last settling."""
        before = self._leaving.get(name)
        if before is None:
            before = self.before.get(name)
        return self.live(name) if before is None else before

    def gone(self) -> set[bytes]:
        """Names that had records at the last settling and have none now."""
        return {*self._leaving, *self.before} - self.zone.names.keys()

    def soa(self, apex: bytes, serial: int | None = None) -> RRset:
        us = self.authority
        timers_s = (us.refresh_s, us.retry_s, us.expire_s, us.negative_ttl_s)
        number = self.serial if serial is None else serial
        assert number is not None
        return RRset(apex, wire.SOA, us.ttl_s, (wire.soa_rdata(us.mname, us.rname, number, timers_s),))

    def servers(self, apex: bytes) -> RRset:
        return RRset(apex, wire.NS, self.authority.ttl_s, (self.authority.mname,))

    def apex_of(self, name: bytes) -> bytes | None:
        """The longest of the transferred apexes that the name is at or below; None for names of no such zone."""
        while name not in self.journals:
            if len(name) == 1:
                return None
            name = wire.parent(name)
        return name

    def live(self, name: bytes) -> Held:
        """What the name has now, settled or not."""
        default_s = self.authority.ttl_s
        hidden = APEX_KINDS if name in self.journals else frozenset()
        return tuple(
            RRset(name, kind, self.zone.ttl_s(name, kind, default_s), tuple(sorted(data)))
            for kind, data in sorted(self.zone.sets(name).items())
            if kind not in hidden
        )

    def _compare(self, name: bytes, held: Held, changed: Mapping[bytes, list[NameChange]]) -> None:
        """With what it had when the settling began."""
        apex, now = self.apex_of(name), self.before.get(name)
        if now is None:
            now = self.live(name)
        if apex is not None and held != now:
            changed[apex].append(NameChange(name, held, now))


@dataclass(frozen=True, slots=True)
class LedgerSource:
    """One apex of the registry's names, as transfer.Source."""

    ledger: Ledger
    apex: bytes

    @property
    def journal(self) -> Journal:
        return self.ledger.journals[self.apex]

    @property
    def begun_s(self) -> float:
        return self.ledger.begun_s

    def held(self, name: bytes) -> Held:
        return self.ledger.held(name)

    def exists(self, name: bytes) -> bool:
        """Now, settled or not."""
        return self.ledger.zone.exists(name)

    def soa(self) -> RRset | None:
        return None if self.ledger.serial is None else self.ledger.soa(self.apex)

    def view(self) -> Frozen:
        return self.ledger.frozen(self.apex)
