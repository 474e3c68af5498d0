"""When the names of this moment may be given a serial, so that one serial means one content on every name server.

The serial is the registry's revision. What the registry's commits say is the same everywhere at a revision; what comes
from documents (frameworks, agents, masters) is not in the revision's order. So the digest of the latter stands in the
registry too, put there by a commit, which raises the revision, and with that revision beside it as soon as it is known.
A server may say serial R only if its own digest stands there and since R or before: whoever said R with another digest
had read that before the commit, so that R was below the commit's. One that is behind waits, one that is ahead commits.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from hashlib import sha256

from fairlead_dns.decisions.naming import Record

OWN = ("server", "dialects")
"""What each server says of itself: in no digest, for it stays while the server runs."""
DERIVED = ("query", "vip")
"""Made of the commits' members: the queries themselves are in the digest instead."""
PATIENCE_S = 1.0
LONGEST_S = 300.0


class Verdict(Enum):
    SETTLE = "settle"
    COMMIT = "commit"
    WAIT = "wait"


@dataclass(frozen=True, slots=True, kw_only=True)
class Shared:
    """What stands in the registry: `<digest> <commit's mark>[ <commit's revision>]`. `since` None: not yet known."""

    digest: str
    mark: str
    since: int | None = None

    @property
    def text(self) -> str:
        return f"{self.digest} {self.mark}" + ("" if self.since is None else f" {self.since}")


def parse_shared(text: str) -> Shared | None:
    """None for what nobody of ours wrote."""
    words = text.split(" ")
    if len(words) == 2:
        return Shared(digest=words[0], mark=words[1])
    if len(words) == 3 and words[2].isascii() and words[2].isdigit():
        return Shared(digest=words[0], mark=words[1], since=int(words[2]))
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """`own` is our digest, `revision` what is applied. `news`: our digest has changed since both were the same.
    `waited_s`: how long it has not been settled; `commits`: how often we have committed this very digest since.
    """

    own: str
    revision: int
    shared: Shared | None
    news: bool
    waited_s: float
    commits: int


def judge(standing: Standing) -> Verdict:
    shared = standing.shared
    same = shared is not None and shared.digest == standing.own
    if same and shared is not None and shared.since is not None:
        return Verdict.SETTLE if standing.revision >= shared.since else Verdict.WAIT
    if standing.commits == 0 and not same and (standing.news or shared is None):
        return Verdict.COMMIT
    patience_s = min(LONGEST_S, PATIENCE_S * 2.0**standing.commits)
    return Verdict.COMMIT if standing.waited_s >= patience_s else Verdict.WAIT


def digest(others: Mapping[str, Iterable[Record]], queries: str = "") -> str:
    """Of every record that comes from no commit, in no order; `others` by `<kind> <who>`."""
    made = sha256(queries.encode())
    for who in sorted(others):
        if not who.startswith((*OWN, *DERIVED)):
            made.update(repr((who, sorted(others[who]))).encode())
    return made.hexdigest()
