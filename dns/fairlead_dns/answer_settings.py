"""What `fairlead dns` can be told about its answers: who gets which, how many, and who may ask for them over HTTP."""

from ipaddress import ip_network

import msgspec

from fairlead_daemon.errors import BadSettings
from fairlead_discovery.decisions.localities import Place
from fairlead_dns.decisions.acl import Acl, parse_networks
from fairlead_dns.decisions.choosing import Chooser
from fairlead_dns.decisions.clients import Locality
from fairlead_dns.front_settings import FrontSettings
from fairlead_dns.names import Manner

CLOSED = ("/v2/", *(f"/v1/{page}" for page in ("axfr", "config", "enumerate", "hosts/", "services/")))
NEGATIVE_TTL_S = (1, 5)
"""Shorter, and every typing error is asked anew; longer, and a new service is invisible to who asked too early."""


class Network(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where the clients of one network stand."""

    network: str
    """As `10.1.0.0/16`; of several that fit, the longest counts."""
    zone: str = ""
    region: str = ""


class AnswerSettings(FrontSettings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """None of these costs anything while it is left as it is."""

    localities: tuple[Network, ...] = ()
    """Zone and region of client networks. With it, endpoints of the client's zone come first, then its region's: in the
    order of A, as priority in SRV (1 same zone, 2 same region, 3 elsewhere; 0 for clients of no known network)."""
    locality_least: int = 1
    """Endpoints that a zone must have for its clients to prefer them; fewer count as the region's, or everyone's."""
    prefer_own_machine: bool = False
    """Endpoints on the client's own machine come before all others (SRV priority 0). Sets of several are then answered
    without the cache of whole packets, at about three times the CPU."""
    a_record_limit: int = 0
    """Most addresses in an answer, over TCP too; 0: all. Each client network (/24, /56) gets a steady part of its own.
    Consul's a_record_limit."""
    warm_up_s: float = 0.0
    """A new endpoint's weight grows from a tenth to all of it in so long; 0: at once."""
    api_networks: tuple[str, ...] = ("any",)
    """Networks whose clients may read /v1 and /v2: `any`, `private`, `none`, or as `10.0.0.0/8`. /health, /ready and
    /metrics are open to all that reach `port`."""
    api_token: bool = False
    """Whether reading /v1 (all but /v1/version) and /v2 needs the token, as writing does; `token` must be on. Clients
    of Mesos-DNS' API know no token."""


def localities(settings: AnswerSettings) -> tuple[Locality, ...]:
    """Raises BadSettings naming the key."""
    found = []
    for rule in settings.localities:
        try:
            network = ip_network(rule.network)
        except ValueError as error:
            raise BadSettings(f"localities: {rule.network!r} is no network: {error}") from error
        if not rule.zone and not rule.region:
            raise BadSettings(f"localities: {rule.network} has neither zone nor region")
        found.append(Locality(network, Place(rule.zone, rule.region)))
    return tuple(found)


def chooser(settings: AnswerSettings) -> Chooser:
    """Raises BadSettings naming the key."""
    check_number("locality_least", settings.locality_least, 1, 10_000)
    check_number("a_record_limit", settings.a_record_limit, 0, 4096)
    check_number("warm_up_s", settings.warm_up_s, 0, 3600)
    return Chooser(
        record_limit=settings.a_record_limit,
        prefer_own_machine=settings.prefer_own_machine,
        least=settings.locality_least,
    )


def manner(settings: AnswerSettings) -> Manner:
    """Raises BadSettings naming the key."""
    return Manner(localities=localities(settings), chooser=chooser(settings), warm_up_s=settings.warm_up_s)


def readers(settings: AnswerSettings) -> Acl:
    """Who may read /v1 and /v2. Raises BadSettings naming the key."""
    try:
        return Acl(parse_networks(settings.api_networks))
    except ValueError as error:
        raise BadSettings(f"api_networks: {error}") from error


def closed(settings: AnswerSettings) -> tuple[str, ...]:
    """Beginnings of paths whose reading wants the token. Raises BadSettings when there is none."""
    if settings.api_token and settings.token != "on":  # noqa: S105  # a mode, not a secret
        raise BadSettings("api_token: there is a token for sure only when `token` is on")
    return CLOSED if settings.api_token else ()


def check_number(key: str, value: float, least: float, most: float) -> None:
    """Raises BadSettings naming the key."""
    if not least <= value <= most:
        raise BadSettings(f"{key}: {value} is not between {least:g} and {most:g}")
