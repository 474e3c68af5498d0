"""What operators say about services beside their routes: how traffic is split, who may call whom.

Clocked as routes are, one node a kind and service (`/fairlead/policies/split~marathon:%2Fshop%2Fweb`), so that a
deployment, which writes the route, does not touch them, and a balancer's applied revision covers them.
"""

from collections.abc import Mapping
from typing import TypeVar

from fairlead_daemon.errors import Refused
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


class Target(Record, frozen=True, kw_only=True):
    """A port of another service."""

    service: str
    index: int = 0


class Split(Policy, frozen=True, kw_only=True, tag="split"):
    """Requests for the service's port `index` are shared with others; what is left over stays with the service."""

    index: int = 0
    shares: tuple[Share, ...] = ()
    sticky: str = ""
    """How a client stays where it was sent first: by `cookie`, by its address (`source`), by a `header`, or "" not."""


class Failover(Policy, frozen=True, kw_only=True, tag="failover"):
    """Where requests for the service's port `index` go while it has too few ready servers: the first of `to` that has
    one.
    """

    index: int = 0
    to: tuple[Target, ...] = ()
    min_ready: int = 1
    """Fewer ready servers than this are too few."""
    back_after_s: float = 10.0
    """How long there must be enough again before requests come back."""


class Canary(Policy, frozen=True, kw_only=True, tag="canary"):
    """An operator's order: requests go over to another service step by step, as long as that does well.

    Only operators write it; how far it is says the `CanaryStage` of the same `id`, which only the leading balancer
    writes. So nobody's write can undo the other's.
    """

    id: str
    to: Target
    index: int = 0
    steps: tuple[float, ...] = (1, 5, 25, 50, 100)
    """Percents, ascending; the last one stays."""
    every_s: float = 60.0
    """How long a step is watched at the least."""
    max_5xx_percent: float = 1.0
    """More 5xx answers of the canary's abort it. 100: they are not looked at."""
    max_p99_ratio: float = 1.5
    """A 99th percentile of the canary's answer times of more than so many times the service's own aborts it. 0: not looked at."""
    min_requests: int = 100
    """Answers the canary must have given in a step before it is judged."""
    sticky: str = "cookie"
    order: str = "run"
    """`run`, `abort` (all back at once) or `promote` (all over at once)."""


class CanaryStage(Policy, frozen=True, kw_only=True, tag="canary-stage"):
    """How far the canary `id` is. `state`: `running`, `promoted` or `aborted`, with the reason."""

    id: str
    state: str = "running"
    step: int = 0
    percent: float = 0.0
    reason: str = ""
    since_s: float = 0.0
    """Unix time, for people."""


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


class HeaderMatch(Record, frozen=True, kw_only=True):
    """A header of a request. One of `exact`, `prefix`, `suffix`, `contains`, `regex` (of the whole value), else
    `present`.
    """

    name: str
    exact: str = ""
    prefix: str = ""
    suffix: str = ""
    contains: str = ""
    regex: str = ""
    present: bool = False
    ignore_case: bool = False
    invert: bool = False
    """It must not fit; one that is not there does not."""


class QueryMatch(Record, frozen=True, kw_only=True):
    """A parameter of the query, decoded. One of `exact`, `regex` (of the whole value), else `present`."""

    name: str
    exact: str = ""
    regex: str = ""
    present: bool = False


class RouteMatch(Record, frozen=True, kw_only=True):
    """All that is said must fit; nothing said fits every request. One of the three paths at most, as the client sent it."""

    path_exact: str = ""
    path_prefix: str = ""
    """Of characters: `/v` is `/v1` too."""
    path_regex: str = ""
    """Of the whole path, without the query."""
    case_insensitive: bool = False
    """Of the path."""
    header: tuple[HeaderMatch, ...] = ()
    query_param: tuple[QueryMatch, ...] = ()
    methods: tuple[str, ...] = ()


class HeaderChange(Record, frozen=True, kw_only=True):
    """`add` beside what is there, `set` in its place, `remove`; in this order: remove, set, add."""

    add: Mapping[str, str] = {}
    set: Mapping[str, str] = {}
    remove: tuple[str, ...] = ()


class Destination(Record, frozen=True, kw_only=True):
    """Port `index` of `service` ("": of the router's own) or of a subset of it, and what is done to a request on its way there."""

    service: str = ""
    service_subset: str = ""
    index: int = 0
    prefix_rewrite: str = ""
    """In place of what `path_exact` or `path_prefix` took."""
    request_timeout_s: float = 0.0
    """How long the server may take; 0: as long as its route says."""
    num_retries: int = -1
    """0: a request that reached a server is not repeated; -1: as its route says."""
    request_headers: HeaderChange = HeaderChange()
    response_headers: HeaderChange = HeaderChange()


class RouterLeg(Record, frozen=True, kw_only=True):
    """Requests that fit go there."""

    match: RouteMatch = RouteMatch()
    destination: Destination = Destination()


class Router(Policy, frozen=True, kw_only=True, tag="router"):
    """Where requests for the service's port `index` lead: the first leg that fits, else the service itself."""

    index: int = 0
    route: tuple[RouterLeg, ...] = ()


class Subset(Record, frozen=True, kw_only=True):
    """Tasks of a service that the filter takes: `version == v2 and zone != north`, of labels and of what is known of tasks."""

    filter: str = ""


class Redirect(Record, frozen=True, kw_only=True):
    """Another service, or a subset of one, answers."""

    service: str
    service_subset: str = ""


class HashPolicy(Record, frozen=True, kw_only=True):
    """By what requests stay with a server: `field` is `header`, `cookie`, `query_parameter` (named by `field_value`) or
    `path`; or the client's address.
    """

    field: str = ""
    field_value: str = ""
    source_ip: bool = False


class LoadBalancer(Record, frozen=True, kw_only=True):
    """`policy`: `round_robin`, `least_request`, `random`, `ring_hash` or `maglev`; "": as the route says."""

    policy: str = ""
    hash_policies: tuple[HashPolicy, ...] = ()


class Resolver(Policy, frozen=True, kw_only=True, tag="resolver"):
    """Which tasks answer for the service, and how one of them is chosen. Who stands in for it is said by its Failover."""

    default_subset: str = ""
    """Without it all tasks do."""
    subsets: Mapping[str, Subset] = {}
    redirect: Redirect | None = None
    connect_timeout_s: float = 0.0
    """0, here and below: as the route says."""
    request_timeout_s: float = 0.0
    load_balancer: LoadBalancer = LoadBalancer()


def subset_of(service: str, subset: str) -> str:
    """How everything else names a subset: `marathon:/shop/web@v2`."""
    return f"{service}@{subset}" if subset else service


class Bamboo(Policy, frozen=True, kw_only=True, tag="bamboo"):
    """A Bamboo rule: which requests go to the service's first port, besides those its own route asks for."""

    acl: str = ""
    """HAProxy's ACL text as it was given; each balancer parses it. Empty: `path_beg -i <app id>`."""
    config: Mapping[str, str] = {}
    """What else Bamboo's record says, for its templates."""


AnyPolicy = Split | Failover | Canary | CanaryStage | Intentions | Router | Resolver | Bamboo
"""What a node may hold. One of another kind (a newer version's) is named among a snapshot's `bad`."""


def name_of(policy: Policy) -> str:
    """The node's name, not escaped: `split~marathon:/shop/web`."""
    return f"{type(policy).__struct_config__.tag}~{policy.service}"


def path_of(policy: Policy) -> str:
    return paths.below(paths.POLICIES, name_of(policy))


def well_placed(policy: Policy, path: str) -> None:
    """Raises Refused where the node's name promises another kind or service than the record is of."""
    name = paths.unescape(path.rpartition("/")[2])
    if name != name_of(policy):
        raise Refused(f"{path}: it holds what belongs under {name_of(policy)}")


def of_kind(policies: Mapping[str, Policy], kind: type[P]) -> Mapping[str, P]:
    """Service -> its policy of that kind. One that stands under another's name is left out."""
    return {p.service: p for name, p in policies.items() if isinstance(p, kind) and name == name_of(p)}
