"""Prebuilt replies: under which questions, for which clients, under which whole packets, until what changes.

A table for others to answer from: `Cache.tables()` gives every whole packet that is answered without asking anyone,
with the replies it gets in turn, both less the id.
"""

from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, field

from fairlead_dns.decisions.asked import Next
from fairlead_dns.decisions.clients import UNKNOWN, Client

ROUNDS = 64  # how often the same orders are given before new ones are drawn
ENTRIES = 50_000
CACHE_BYTES = 64 * 1024 * 1024
CLIENTS_PER_ENTRY = 4096  # networks and places that get replies of their own to one question
PACKETS_PER_ENTRY = 16  # header flags and offered sizes differ between clients; more than this is someone playing

Key = tuple[bytes, int, int, int, int, frozenset[bytes]]
"""Folded name, type, room, EDNS (0: none, 1: yes, 2: with DO), flags, zones that the client may not ask for."""


@dataclass(slots=True, eq=False)
class Rotation:
    """Replies to one question, given in turn. `draw` builds one round of them, in an order of chance."""

    draw: Callable[[], Iterator[bytes]]
    next: Next = field(init=False)
    packets: dict[tuple[int, bytes], dict[bytes, Next]] = field(default_factory=dict)
    """Under which packets it stands in which view's `fast`, which is told by its identity; it may be gone from there."""

    def __post_init__(self) -> None:
        self.next = self._turns().__next__

    def _turns(self) -> Iterator[bytes]:
        """Replies are built when they are first given."""
        while True:
            made: list[bytes] = []
            for body in self.draw():
                made.append(body)
                yield body
            for _ in range(ROUNDS):
                yield from made

    def enter_fast(self, fast: dict[bytes, Next], packet: bytes) -> None:
        key = id(fast), packet
        if key in self.packets or len(self.packets) < PACKETS_PER_ENTRY:
            self.packets[key] = fast
            fast[packet] = self.next

    def leave_fast(self) -> None:
        for (_, packet), fast in self.packets.items():
            fast.pop(packet, None)


@dataclass(frozen=True, slots=True)
class Plan:
    """How one question is answered. `draw` builds a round of replies for a client; `names` are what they depend on."""

    draw: Callable[[Client], Iterator[bytes]]
    names: tuple[bytes, ...]
    lasting: bool = True
    """Worth keeping."""
    by_place: bool = False
    """Clients of different places get different replies."""
    by_network: bool = False
    """So do clients of different networks: each gets a part."""
    own: frozenset[bytes] = frozenset()
    """Addresses of machines whose clients get replies of their own."""
    bytes_each: int = 0
    """About what the replies for one kind of client take."""

    def variant(self, client: Client) -> Hashable:
        """The same for clients that get the same replies."""
        return (
            client.place if self.by_place else None,
            client.network if self.by_network else None,
            client.address if client.address in self.own else None,
        )

    @property
    def varies(self) -> bool:
        return self.by_place or not self.by_view

    @property
    def by_view(self) -> bool:
        """All clients of one view get the same replies, so that the packet alone finds them."""
        return not (self.by_network or self.own)


@dataclass(slots=True, eq=False)
class Prepared:
    """A question's plan, with what has been built by it: one rotation for each kind of client that asked."""

    key: Key
    plan: Plan
    turns: dict[Hashable, Rotation] = field(default_factory=dict)

    def leave_fast(self) -> None:
        for rotation in self.turns.values():
            rotation.leave_fast()


@dataclass(slots=True)
class Cache:
    """Bounded: at a limit it begins anew. `drop(name)` costs what depends on that name."""

    entries: dict[Key, Prepared] = field(default_factory=dict)
    _dependents: dict[bytes, set[Prepared]] = field(default_factory=dict)
    _bytes: int = 0

    def keep(self, key: Key, plan: Plan) -> Prepared:
        if len(self.entries) >= ENTRIES:
            self.forget()
        prepared = self.entries[key] = Prepared(key, plan)
        for name in plan.names:
            self._dependents.setdefault(name, set()).add(prepared)
        return prepared

    def rotation(self, prepared: Prepared, client: Client = UNKNOWN) -> Rotation:
        """Of this kind of client."""
        variant = prepared.plan.variant(client)
        found = prepared.turns.get(variant)
        if found is not None:
            return found
        draw = prepared.plan.draw
        made = Rotation(lambda: draw(client))
        if self._bytes + prepared.plan.bytes_each > CACHE_BYTES:
            self.forget()
            prepared = self.keep(prepared.key, prepared.plan)
        if len(prepared.turns) >= CLIENTS_PER_ENTRY:
            prepared.leave_fast()
            prepared.turns.clear()
        self._bytes += prepared.plan.bytes_each
        prepared.turns[variant] = made
        return made

    def drop(self, name: bytes) -> None:
        for prepared in tuple(self._dependents.get(name, ())):
            del self.entries[prepared.key]
            self._bytes -= len(prepared.turns) * prepared.plan.bytes_each
            prepared.leave_fast()
            for other in prepared.plan.names:
                self._forget_dependent(other, prepared)

    def forget(self) -> None:
        for prepared in self.entries.values():
            prepared.leave_fast()
        self.entries.clear()
        self._dependents.clear()
        self._bytes = 0

    def tables(self) -> Iterator[tuple[dict[bytes, Next], bytes, list[bytes]]]:
        """Every view's table, packet, and one round of its replies."""
        for prepared in tuple(self.entries.values()):
            for rotation in tuple(prepared.turns.values()):
                bodies = list(rotation.draw()) if rotation.packets else []
                yield from ((fast, packet, bodies) for (_, packet), fast in rotation.packets.items())

    def _forget_dependent(self, name: bytes, prepared: Prepared) -> None:
        dependents = self._dependents.get(name, set())
        dependents.discard(prepared)
        if not dependents:
            self._dependents.pop(name, None)
