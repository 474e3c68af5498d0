"""What a reader gets of the registry: one value, with how far it may be believed (architecture 3.6)."""

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field

from fairlead_discovery.decisions.delta import Delta
from fairlead_discovery.policies import AnyPolicy
from fairlead_discovery.records import Leaving, Member, Portless, Route


class Trust(enum.StrEnum):
    LIVE = "live"
    STALE = "stale"
    """The registry is out of sight: the last good state, also from disk after a restart."""
    HELD = "held"
    """The reading is not to be believed (another cluster, a mass disappearance): the last good, until confirmed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """The clocked tree at one revision: it holds every commit up to `revision`, and perhaps later ones.

    Keys are service keys (`marathon:/shop/web`), node names below them, task ids for `leaving`, and
    `<kind>~<service key>` for `policies`. A service's
    mapping that did not change is the very same object as in the snapshot before: find what changed by identity.
    `members` leaves out what is leaving and, without a leading master, what sits on agents whose lease ended.
    `bad` names nodes that could not be read, with the reason.
    """

    revision: int
    trust: Trust
    why: str = ""
    age_s: float = 0.0
    """Seconds since this was last known to be true; 0 while live."""
    cluster: str = ""
    committed_s: float = field(default=0.0, compare=False)
    """Unix time of the commit that made `revision`, by the registry's clock; 0: it does not say."""
    members: Mapping[str, Mapping[str, Member]] = field(default_factory=dict)
    portless: Mapping[str, Mapping[str, Portless]] = field(default_factory=dict)
    leaving: Mapping[str, Leaving] = field(default_factory=dict)
    routes: Mapping[str, Route] = field(default_factory=dict)
    policies: Mapping[str, AnyPolicy] = field(default_factory=dict)
    bad: Mapping[str, str] = field(default_factory=dict)
    delta: Delta | None = field(default=None, compare=False, repr=False)
    """Which services of `members` differ from those of the snapshot before: see delta.differing, which takes it."""


UNKNOWN = Snapshot(revision=-1, trust=Trust.STALE, why="out of sight, nothing was read yet")
"""Before anything was seen."""
