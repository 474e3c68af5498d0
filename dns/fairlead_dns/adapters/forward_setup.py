"""The forwarder of these settings: made, put behind the front, kept true to /etc/resolv.conf."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from prometheus_client import REGISTRY

from fairlead_daemon.errors import BadSettings
from fairlead_daemon.logs import Log
from fairlead_dns import forward_settings as told
from fairlead_dns.adapters.forward import Forwarder, Timing
from fairlead_dns.adapters.forward_sockets import tls_context
from fairlead_dns.adapters.regular import READ_S, Aside, read_regular
from fairlead_dns.adapters.sockets import parse_place
from fairlead_dns.decisions.forward import Forwarding
from fairlead_dns.decisions.forward_cache import Cache
from fairlead_dns.decisions.forward_own import OurNames
from fairlead_dns.decisions.forward_upstreams import Place, Zones, resolv_conf, without_ourselves
from fairlead_dns.decisions.front import Front
from fairlead_dns.decisions.wire import text as name_text
from fairlead_dns.forward_settings import ROOT, Own
from fairlead_dns.metrics import Elsewhere, ForwardCollector, ForwardState
from fairlead_dns.settings import DnsSettings

log = Log("dns")
LOOK_S = 5.0  # how often /etc/resolv.conf is looked at
SHARE_OF_PATIENCE = 0.9  # our SERVFAIL says why; the front's, when patience ends, does not


def install(front: Front, settings: DnsSettings, own: Own) -> Forwarder | None:
    """Raises BadSettings naming the key. None: nothing is forwarded, other names are refused."""
    recursion = told.open_to(settings)
    policy = told.policy(settings)
    groups = told.groups(settings, own, front.routes)
    limits = told.limits(settings, settings.waiting)
    if not told.forwards(settings):
        return None
    if settings.resolvers == () and (places := _places(settings, own)):
        groups[ROOT] = told.group(settings, ROOT, places)
    forwarder = Forwarder(
        Forwarding(Zones(groups), Cache(policy), limits, local_zones=settings.local_zones, own=OurNames(front)),
        Timing(whole_s=settings.patience_s * SHARE_OF_PATIENCE),
        mixed=settings.forward_case,
        tls=_tls(settings) if any(u.place.transport == "tls" for u in Zones(groups).upstreams()) else None,
    )
    front.views.recursion = recursion
    front.views.forget()
    for zone in {*groups, *(() if settings.resolvers is None else (ROOT,))}:
        front.serve(zone, forwarder, recursive=True)
    return forwarder


@dataclass(frozen=True, slots=True, eq=False)
class Running:
    """`forwarder` None: nothing is forwarded, and `run` only waits."""

    forwarder: Forwarder | None
    settings: DnsSettings
    own: Own

    async def run(self) -> None:
        """For ever: ticks, probes, and a look at /etc/resolv.conf where the upstreams come from there."""
        if self.forwarder is None:
            await asyncio.Event().wait()
            return
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.forwarder.run())
            if self.settings.resolvers == ():
                tasks.create_task(_follow(self.forwarder, self.settings, self.own))


@asynccontextmanager
async def forwarding(
    front: Front, settings: DnsSettings, places: Iterable[str], elsewhere: Elsewhere | None = None
) -> AsyncIterator[Running]:
    """`places`: where we listen, as `127.0.0.1:53`. Raises BadSettings; on the way out nothing is asked any more."""
    own = tuple((place.ip, place.port) for place in (parse_place("listen", text) for text in places))
    forwarder = install(front, settings, own)
    if forwarder is None:
        yield Running(None, settings, own)
        return
    upstreams = [f"{zone} {place}" for zone, place in state(forwarder).upstreams]
    log.info("forwarding", upstreams=", ".join(upstreams) or "none yet", recursion=",".join(settings.recursion))
    collector = ForwardCollector(lambda: state(forwarder), {} if elsewhere is None else elsewhere)
    REGISTRY.register(collector)
    try:
        yield Running(forwarder, settings, own)
    finally:
        REGISTRY.unregister(collector)
        forwarder.close()


def state(forwarder: Forwarder) -> ForwardState:
    """For the metrics page."""
    told_of = forwarder.forwarding
    more = {"upstream_queries": forwarder.asked_upstreams, "evicted": told_of.cache.evicted}
    return ForwardState(
        counters={**asdict(told_of.tally), **more},
        gauges={
            "in_flight": told_of.running,
            "queued": len(told_of.queue),
            "waiting": told_of.waiting,
            "cached": len(told_of.cache.entries),
            "cached_bytes": told_of.cache.used_bytes,
        },
        upstreams={
            (name_text(zone) or ".", str(upstream.place)): (upstream.circuit.value, upstream.trip_s)
            for zone, group in told_of.zones.groups.items()
            for upstream in group.upstreams
        },
    )


async def _follow(forwarder: Forwarder, settings: DnsSettings, own: Own) -> None:
    """An empty or unreadable file changes nothing: it is being written."""
    aside = Aside()
    while True:
        await asyncio.sleep(LOOK_S)
        try:
            places = await aside.run(lambda: _places(settings, own), READ_S)
        except TimeoutError:
            log.warning("cannot read the nameservers", file=settings.resolv_conf, why="it takes too long")
            continue
        before = forwarder.forwarding.zones.groups.get(ROOT)
        upstreams = before.upstreams if before else ()
        if places and places[: told.MOST_UPSTREAMS] != [upstream.place for upstream in upstreams]:
            forwarder.replace(told.group(settings, ROOT, places, upstreams))
            log.info("upstreams changed", upstreams=",".join(map(str, places)))


def _places(settings: DnsSettings, own: Own) -> list[Place]:
    """Nameservers of the file but ourselves."""
    try:
        text = read_regular(Path(settings.resolv_conf)).decode("utf-8", "replace")
    except OSError as error:
        log.warning("cannot read the nameservers", file=settings.resolv_conf, why=error.strerror or "")
        return []
    return without_ourselves(resolv_conf(text), own)


def _tls(settings: DnsSettings) -> ssl.SSLContext:
    try:
        return tls_context(settings.forward_ca_file)
    except OSError as error:
        raise BadSettings(f"forward_ca_file: {settings.forward_ca_file}: {error.strerror or error}") from error
