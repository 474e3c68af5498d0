"""What `fairlead dns` can be told about names that are not its own, and what follows from it."""

from collections.abc import Collection, Iterable, Mapping
from typing import Literal

from fairlead_daemon.errors import BadSettings
from fairlead_dns.answer_settings import AnswerSettings
from fairlead_dns.decisions import wire
from fairlead_dns.decisions.acl import Acl, parse_networks
from fairlead_dns.decisions.forward import Limits
from fairlead_dns.decisions.forward_cache import Policy
from fairlead_dns.decisions.forward_upstreams import Group, Place, Upstream, parse_place

ROOT = b"\0"
MOST_UPSTREAMS = 15
LONGEST_ZONE = 200  # bytes: a probe's name has room below it
MEGABYTE = 1024 * 1024
Own = Collection[tuple[str, int]]
"""Addresses and ports that we listen on."""


class ForwardSettings(AnswerSettings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Nothing is forwarded unless `resolvers` or `zone_resolvers` says so."""

    resolvers: tuple[str, ...] | None = None
    """Upstreams for all other names: `ip[:port]`, `tcp://ip`, `tls://ip[:port][#name]`; empty: those of /etc/resolv.conf.
    Unset: other names are refused, so that clients ask their next server; Mesos-DNS' resolvers."""
    zone_resolvers: Mapping[str, tuple[str, ...]] = {}
    """Upstreams for the names of one zone, the longest zone counts; Mesos-DNS' zoneResolvers."""
    recursion: tuple[str, ...] = ("private",)
    """Networks whose questions are forwarded, `any`, `private`, `none` or as `10.0.0.0/8`. `any` is an open resolver."""
    resolv_conf: str = "/etc/resolv.conf"
    """Where upstreams are taken from when `resolvers` is empty; read again when it changes. Never this server itself."""
    local_zones: bool = True
    """Answer localhost, .local, .onion, private reverse names and the like here (RFC 6303, 6761), never send them on."""
    forward_policy: Literal["race", "order"] = "race"
    """`race`: the fastest upstream first, a second one when it is late. `order`: as written, the next when one fails."""
    forward_case: bool = True
    """Mixed case in each question sent on (0x20), which a forged reply must guess. An upstream that folds it is noticed."""
    forward_in_flight: int = 256
    """Questions at upstreams at once; more are queued, and of more than `waiting` clients the first get SERVFAIL."""
    forward_cache_entries: int = 20_000
    """Most answers kept."""
    forward_cache_mb: int = 32
    """Most memory of the answers kept."""
    forward_ttl_max_s: int = 86_400
    """Longest that an answer is kept."""
    forward_negative_ttl_max_s: int = 3_600
    """Longest that "no such name" is kept."""
    forward_failure_s: int = 5
    """How long an upstream's failure is kept and not asked for again; at most 300 (RFC 9520)."""
    forward_stale_s: int = 86_400
    """How long past its time an answer is given while no upstream answers (RFC 8767). 0: never."""
    forward_prefetch: bool = True
    """Ask again for popular names shortly before their time is over."""
    forward_ca_file: str = ""
    """Authorities that upstreams' certificates are checked against (PEM). Empty: the system's."""


def forwards(settings: ForwardSettings) -> bool:
    return settings.resolvers is not None or bool(settings.zone_resolvers)


def groups(settings: ForwardSettings, own: Own, own_zones: Collection[bytes] = ()) -> dict[bytes, Group]:
    """By zone. Raises BadSettings naming the key. Without `resolvers`, or with empty ones, there is none for the root."""
    found = {}
    for text, places in settings.zone_resolvers.items():
        key = f"zone_resolvers.{text}"
        zone = wire.parse_text(text)
        if zone is None or zone == ROOT or len(zone) > LONGEST_ZONE:
            raise BadSettings(f"{key}: no zone's name")
        if zone in found:
            raise BadSettings(f"{key}: that zone is there twice")
        if zone in own_zones:
            raise BadSettings(f"{key}: this server answers that zone itself")
        if not places:
            raise BadSettings(f"{key}: no upstream")
        found[zone] = group(settings, zone, _places(key, places, own))
    if settings.resolvers:
        found[ROOT] = group(settings, ROOT, _places("resolvers", settings.resolvers, own))
    return found


def group(settings: ForwardSettings, zone: bytes, places: Iterable[Place], kept: Iterable[Upstream] = ()) -> Group:
    """`kept`: upstreams of before, which stay what they are where their place is still among `places`."""
    before = {upstream.place: upstream for upstream in kept}
    upstreams = tuple(before.get(place) or Upstream(place) for place in places)
    return Group(zone, upstreams[:MOST_UPSTREAMS], race=settings.forward_policy == "race")


def _places(key: str, texts: tuple[str, ...], own: Own) -> list[Place]:
    places = [parse_place(key, text) for text in texts]
    for place in places:
        if (place.ip, place.port) in own:
            raise BadSettings(f"{key}: {place} is this server itself")
    if len(places) > MOST_UPSTREAMS:
        raise BadSettings(f"{key}: more than {MOST_UPSTREAMS} upstreams")
    return list(dict.fromkeys(places))


def open_to(settings: ForwardSettings) -> Acl:
    """Raises BadSettings."""
    try:
        return Acl(parse_networks(settings.recursion))
    except ValueError as error:
        raise BadSettings(f"recursion: {error}") from error


def limits(settings: ForwardSettings, waiting: int) -> Limits:
    """Raises BadSettings. `waiting`: most clients that may wait."""
    _check("forward_in_flight", settings.forward_in_flight, 1, 10_000)
    return Limits(in_flight=settings.forward_in_flight, waiting=waiting)


def policy(settings: ForwardSettings) -> Policy:
    """Raises BadSettings."""
    _check("forward_cache_entries", settings.forward_cache_entries, 0, 10_000_000)
    _check("forward_cache_mb", settings.forward_cache_mb, 1, 100_000)
    _check("forward_ttl_max_s", settings.forward_ttl_max_s, 0, 7 * 86_400)
    _check("forward_negative_ttl_max_s", settings.forward_negative_ttl_max_s, 0, 86_400)
    _check("forward_failure_s", settings.forward_failure_s, 1, 300)
    _check("forward_stale_s", settings.forward_stale_s, 0, 7 * 86_400)
    return Policy(
        entries=settings.forward_cache_entries,
        bytes=settings.forward_cache_mb * MEGABYTE,
        longest_s=settings.forward_ttl_max_s,
        negative_longest_s=settings.forward_negative_ttl_max_s,
        failure_s=settings.forward_failure_s,
        stale_s=settings.forward_stale_s,
        prefetch=settings.forward_prefetch,
    )


def _check(key: str, value: int, least: int, most: int) -> None:
    if not least <= value <= most:
        raise BadSettings(f"{key}: {value} is not between {least:,} and {most:,}")
