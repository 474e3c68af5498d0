"""What operators say about services beside their routes: how traffic is split, who may call whom.

Clocked as routes are, one node a kind and service (`/fairlead/policies/split~marathon:%2Fshop%2Fweb`), so that a
deployment, which writes the route, does not touch them, and a balancer's applied revision covers them.
"""

from collections.abc import Mapping
from typing import TypeVar

from fairlead_discovery import paths
from fairlead_discovery.records import Record

P = TypeVar("P", bound="Policy")


class Policy(Record, frozen=True, kw_only=True, tag_field="kind"):
    """Base of every kind; `kind` in the JSON says which."""

    service: str


class Share(Record, frozen=True, kw_only=True):
    """So many of a hundred requests go to that service's port `index`; hundredths count."""

    service: str
    percent: float
    index: int = 0


class Split(Policy, frozen=True, kw_only=True, tag="split"):
    """Requests for the service's port `index` are shared with others; what is left over stays with the service."""

    index: int = 0
    shares: tuple[Share, ...] = ()
    sticky: bool = False
    """A client stays where it was sent first (by a cookie)."""


class Source(Record, frozen=True, kw_only=True):
    """A caller: a service key, or `*` for anybody with an identity. `methods` and `paths` empty: all."""

    name: str
    action: str = "allow"
    """`allow` or `deny`."""
    methods: tuple[str, ...] = ()
    paths: tuple[str, ...] = ()
    """Prefixes that end at segments."""


class Intentions(Policy, frozen=True, kw_only=True, tag="intentions"):
    """Who may call the service. The most precise source that fits decides, else `default`."""

    default: str = ""
    """`allow`, `deny`, or empty for the balancer's setting."""
    sources: tuple[Source, ...] = ()


class Bamboo(Policy, frozen=True, kw_only=True, tag="bamboo"):
    """A Bamboo rule: which requests go to the service's first port, besides those its own route asks for."""

    acl: str = ""
    """HAProxy's ACL text as it was given; each balancer parses it. Empty: `path_beg -i <app id>`."""
    config: Mapping[str, str] = {}
    """What else Bamboo's record says, for its templates."""


AnyPolicy = Split | Intentions | Bamboo
"""What a node may hold. One of another kind (a newer version's) is named among a snapshot's `bad`."""


def name_of(policy: Policy) -> str:
    """The node's name, not escaped: `split~marathon:/shop/web`."""
    return f"{type(policy).__struct_config__.tag}~{policy.service}"


def path_of(policy: Policy) -> str:
    return paths.below(paths.POLICIES, name_of(policy))


def of_kind(policies: Mapping[str, Policy], kind: type[P]) -> Mapping[str, P]:
    """Service -> its policy of that kind. One that stands under another's name is left out."""
    return {p.service: p for name, p in policies.items() if isinstance(p, kind) and name == name_of(p)}
