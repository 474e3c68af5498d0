"""Several balancers, one structural change: one tries it, the others follow when it went well. Rules, no registry.

The registry holds one document: who reloads (or did last), which structure, and how that went. It is taken by writing
it at the version that was read, so that never two reload at once.
"""

import enum
import hashlib
from collections.abc import Iterable, Mapping

import msgspec

from fairlead_discovery.records import Record
from fairlead_lb.decisions.dials import casing
from fairlead_lb.decisions.routes import Wanted

LEASE_S = 30.0
"""So long a balancer that said it reloads may be silent; then it is taken for dead, and the next one begins."""
STOP_S = 600.0
"""So long a structure that did harm is left to the one that tried it."""
LONGEST_WAIT_S = 60.0
"""Rather two at once than routes that never come: without the registry nobody waits longer."""
HARM_SHARE = 0.05
HARM_LEAST = 10


class Phase(enum.StrEnum):
    TRYING = "trying"
    GOOD = "good"
    HARMED = "harmed"


class Rollout(Record, frozen=True, kw_only=True):
    """The document. `structure` is a digest of what is wanted, the same for all balancers of one registry."""

    balancer: str
    structure: str
    phase: Phase
    why: str = ""
    at_s: float = 0.0
    """Unix time, for people."""


class Answer(enum.Enum):
    TAKE = enum.auto()
    WAIT = enum.auto()
    STOP = enum.auto()


def may(said: Rollout | None, *, me: str, structure: str, seen_for_s: float) -> Answer:
    """Whether `me` may take the document, which has stood as it is for `seen_for_s` by our own clock."""
    if said is None or said.balancer == me or said.phase is Phase.GOOD:
        return Answer.TAKE
    if said.phase is Phase.TRYING:
        return Answer.TAKE if seen_for_s > LEASE_S else Answer.WAIT
    return Answer.STOP if said.structure == structure and seen_for_s < STOP_S else Answer.TAKE


def tried(said: Rollout | None, structure: str) -> bool:
    """Whether another balancer serves by it and nothing was wrong."""
    return said is not None and said.phase is Phase.GOOD and said.structure == structure


class Served(msgspec.Struct, frozen=True):
    """Requests and answers of 5xx, over some time."""

    requests: int
    failed: int

    @property
    def share(self) -> float:
        return self.failed / self.requests if self.requests else 0.0


ByService = Mapping[str, Served]


def between(before: ByService, after: ByService) -> ByService:
    """What came meanwhile, of services that are in both: whoever was not there before says nothing about before."""
    return {
        service: Served(max(0, now.requests - then.requests), max(0, now.failed - then.failed))
        for service, now in after.items()
        if (then := before.get(service)) is not None
    }


def harm(before: ByService, after: ByService) -> str:
    """Why a reload did harm, "" when it did not: clearly more answers of 5xx than before, of all services of `after`."""
    there = _sum(after.values())
    was = _sum(one for service, one in before.items() if service in after)
    if there.failed < HARM_LEAST or there.share <= was.share + HARM_SHARE:
        return ""
    return f"{there.share:.0%} of {there.requests} requests were answered with 5xx, {was.share:.0%} before"


def _sum(found: Iterable[Served]) -> Served:
    counts = list(found)
    return Served(sum(c.requests for c in counts), sum(c.failed for c in counts))


def structure_of(wanted: Wanted) -> str:
    """The digest: services and their shapes, ports, rules; neither servers nor what maps turn."""
    backends = sorted((str(b.key), casing(b.shape)) for b in wanted.backends.values())
    shape = (backends, sorted(wanted.maps.ports), sorted(wanted.maps.vips), wanted.rules, wanted.fronts)
    return hashlib.sha256(msgspec.json.encode(shape)).hexdigest()[:16]
