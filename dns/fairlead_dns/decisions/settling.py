"""When the names of this moment may be given a serial, so that one serial means one content on every name server.

The serial is the registry's revision. What the registry's commits say is the same everywhere at a revision; what comes
from documents (frameworks, agents, masters) is not in the revision's order. So the digest of the latter stands in the
registry too, and is put there by a commit, which raises the revision: at revision R a server may say serial R only if
its own digest is the one that stands there. One that is behind waits, one that is ahead commits its digest.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from hashlib import sha256

from fairlead_dns.decisions.naming import Record

OWN = ("server", "dialects")
"""What each server says of itself: in no digest, for it stays while the server runs."""
DERIVED = "query"
"""Made of the commits' members: the queries themselves are in the digest instead."""
PATIENCE_S = 1.0
LONGEST_S = 300.0


class Verdict(Enum):
    SETTLE = "settle"
    COMMIT = "commit"
    WAIT = "wait"


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """`own` and `shared` are digests, `shared` None when there is none yet. `news`: our own has changed since both were
    the same. `waited_s`: how long they have differed; `commits`: how often we have committed this very digest since.
    """

    own: str
    shared: str | None
    news: bool
    waited_s: float
    commits: int


def judge(standing: Standing) -> Verdict:
    if standing.own == standing.shared:
        return Verdict.SETTLE
    if standing.commits == 0 and (standing.news or standing.shared is None):
        return Verdict.COMMIT
    patience_s = min(LONGEST_S, PATIENCE_S * 2.0**standing.commits)
    return Verdict.COMMIT if standing.waited_s >= patience_s else Verdict.WAIT


def digest(others: Mapping[str, Iterable[Record]], queries: str = "") -> str:
    """Of every record that comes from no commit, in no order; `others` by `<kind> <who>`."""
    made = sha256(queries.encode())
    for who in sorted(others):
        if not who.startswith((*OWN, DERIVED)):
            made.update(repr((who, sorted(others[who]))).encode())
    return made.hexdigest()
