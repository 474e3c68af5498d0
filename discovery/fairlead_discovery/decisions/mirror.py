"""What servers of the HTTP watch API told, as snapshots: the last good state, whichever of them goes away or lags behind.

A server judges only what it saw itself. What another one tells, or the same after a restart, is judged here again, by
the rules of trust.py: another cluster, or much that is gone without a leaving record, is `held` until confirmed.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from fairlead_discovery.decisions.listing import Found, Told, member_of, told
from fairlead_discovery.decisions.sharing import NOTHING, Shared
from fairlead_discovery.decisions.trust import Comparison, Doubt, Reading, Tasks, judge, settles
from fairlead_discovery.records import Member
from fairlead_discovery.snapshots import UNKNOWN, Snapshot, Trust

BEHIND_S = 10.0
"""So long a server may be at an older revision than we are: longer, and the registry of this cluster was put back."""
Members = Mapping[str, Mapping[str, Member]]


@dataclass(slots=True)
class Mirror:
    """Pieces in, snapshots out. A service that was told again as it was stays the same object."""

    snapshot: Snapshot = UNKNOWN
    place: str = ""
    """Where the stream stopped, for its server to go on: what `_theirs` is."""
    known_s: float = 0.0
    """When the snapshot was last known to be true."""
    _theirs: Members | None = None
    _pending: Shared[Mapping[str, Member]] | None = None
    _behind_s: float | None = None
    _left: frozenset[str] = frozenset()
    """Tasks that the server saw leaving in order."""
    _doubt: Doubt | None = None

    def begin(self) -> None:
        """A new stream: what an older one had not finished does not count."""
        self._pending = None

    def take(self, piece: Told, place: str, *, now_s: float) -> Snapshot | None:
        """None while more is to come."""
        if self._pending is None:
            self._pending = NOTHING if piece.whole else Shared.of(self._theirs or NOTHING)
        before = self._theirs or self.snapshot.members
        found_now = {service: _same(before.get(service), _members(found)) for service, found in piece.services.items()}
        self._pending = self._pending.changed(found_now).changed({}, piece.gone)
        if piece.more:
            return None
        self._theirs, self._pending = self._pending, None
        self.place = place or self.place
        if piece.whole:
            self._left = frozenset(piece.left)
        if self._lags(piece, now_s=now_s):
            return self.lost(piece.why or f"the server is at revision {piece.revision} yet", now_s=now_s)
        self._doubt = self._doubted(piece, now_s=now_s)
        if self._doubt is not None:
            return self.lost(self._doubt.why, now_s=now_s)
        live = piece.trust is Trust.LIVE
        self.known_s = now_s if live else now_s - piece.age_s
        self.snapshot = Snapshot(
            revision=piece.revision,
            trust=piece.trust,
            why=piece.why,
            age_s=0.0 if live else piece.age_s,
            cluster=piece.cluster,
            members=self._theirs,
        )
        return self.snapshot

    def lost(self, why: str, *, now_s: float) -> Snapshot:
        """Out of sight, or not to be believed: the last good state, and how old it is. What is held stays held."""
        age_s = max(0.0, now_s - self.known_s) if self.known_s else 0.0
        trust = Trust.STALE if self._doubt is None else Trust.HELD
        why = why if self._doubt is None else self._doubt.why
        self.snapshot = replace(self.snapshot, trust=trust, why=why, age_s=age_s)
        return self.snapshot

    def restore(self, kept: Told, *, known_s: float) -> None:
        """What was kept on disk."""
        self.known_s = known_s
        members = {service: _members(found) for service, found in kept.services.items()}
        self.snapshot = Snapshot(
            revision=kept.revision, trust=Trust.STALE, why="kept on disk", cluster=kept.cluster, members=members
        )

    def _lags(self, piece: Told, *, now_s: float) -> bool:
        """A server that knows less of our cluster than another one did: believed when it sees the registry so and stays
        by it. One that knows nothing never is.
        """
        ours = self.snapshot
        if piece.revision >= 0 and (piece.cluster != ours.cluster or piece.revision >= ours.revision):
            self._behind_s = None
            return False
        self._behind_s = now_s if self._behind_s is None else self._behind_s
        if piece.revision < 0 or piece.trust is not Trust.LIVE or now_s - self._behind_s < BEHIND_S:
            return True
        self._behind_s = None
        return False

    def _doubted(self, piece: Told, *, now_s: float) -> Doubt | None:
        """Changes of what was believed are the server's to judge; a whole, and all that follows on a doubt, is ours."""
        ours = self.snapshot
        if ours.revision < 0 or (self._doubt is None and not piece.whole and piece.cluster == ours.cluster):
            return None
        doubt = judge(
            Comparison(
                good=Reading(cluster=ours.cluster, revision=0, tasks=_tasks(ours.members), bare=False),
                new=Reading(cluster=piece.cluster, revision=0, tasks=_tasks(self._theirs or {}), bare=piece.bare),
                recorded=self._left,
                gap_s=now_s - self.known_s,
            )
        )
        if doubt is None or piece.trust is not Trust.LIVE:
            return doubt
        new = Reading(cluster=piece.cluster, revision=piece.revision, tasks={}, bare=piece.bare)
        return None if settles(piece.confirmed, doubt, new, good_s=self.known_s) else doubt


def _tasks(members: Members) -> Tasks:
    return {service: {m.task.id: m.task.agent for m in those.values()} for service, those in members.items()}


def kept(snapshot: Snapshot) -> Told:
    """What is written to disk."""
    services = {
        service: tuple(told(service, member, member.serviceEndpoint) for member in members.values())
        for service, members in snapshot.members.items()
    }
    return Told(
        cluster=snapshot.cluster, revision=snapshot.revision, trust=snapshot.trust, whole=True, services=services
    )


def _members(found: tuple[Found, ...]) -> Mapping[str, Member]:
    return {f"{each.task} {each.host}:{each.port}": member_of(each) for each in found}


def _same(before: Mapping[str, Member] | None, now: Mapping[str, Member]) -> Mapping[str, Member]:
    return before if before is not None and before == now else now
