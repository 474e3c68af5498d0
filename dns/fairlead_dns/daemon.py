"""The daemon: bind, listen to the registry, answer; announce ourselves for as long as we do."""

import asyncio
import os
import re
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import TypeVar

from prometheus_client import REGISTRY

from fairlead_daemon.errors import FairleadError, Refused
from fairlead_daemon.logs import Log
from fairlead_daemon.main import Context, Daemon, until_stopped
from fairlead_daemon.web import make_app, serve
from fairlead_discovery import paths
from fairlead_discovery.backends import open_registry
from fairlead_discovery.decisions.service_names import Naming
from fairlead_discovery.leaders import leading
from fairlead_discovery.listing import Listing
from fairlead_discovery.reading import tell_confirmed
from fairlead_discovery.records import Agent, Framework, MasterInfo, NameServer, decode
from fairlead_discovery.registry import Node, Registry
from fairlead_dns import answer_settings
from fairlead_dns import settings as told
from fairlead_dns.adapters import kept
from fairlead_dns.adapters.api import add_api
from fairlead_dns.adapters.forward_setup import forwarding
from fairlead_dns.adapters.http import add_routes
from fairlead_dns.checking import check
from fairlead_dns.following import Following
from fairlead_dns.mesos_following import MesosFollowing
from fairlead_dns.mesosdns_file import beneath, notes
from fairlead_dns.metrics import Counts, DnsCollector, State
from fairlead_dns.names import Names
from fairlead_dns.naming_metrics import NamingCollector
from fairlead_dns.naming_settings import extra_records, read_queries
from fairlead_dns.outlived import outliving
from fairlead_dns.publishing import Publishing
from fairlead_dns.settings import DnsSettings
from fairlead_dns.tending import announce, follow_queries, tell
from fairlead_dns.transports import Transports, prepare, serving
from fairlead_dns.workers import bound, working

log = Log("dns")
R = TypeVar("R")
WITHDRAW_S = 2.0
NO_ZONE = "nothing known of the registry yet"


async def run(settings: DnsSettings, context: Context) -> None:
    """See Daemon. Raises BadSettings before anything is served."""
    names = Names(told.rules(settings), told.authority(settings), answer_settings.manner(settings))
    counts = Counts()
    followed = prepare(settings, names.front, version("fairlead"), told.server_id(settings))
    context.health.wait("zone", NO_ZONE)
    app = make_app(settings, context.health, closed=answer_settings.closed(settings))
    add_routes(app, settings, names)
    listing = Listing(Naming(domain=names.rules.domain, rfc952=settings.enforce_rfc952))
    add_api(app, settings, names, listing)
    names.take_records(extra_records(settings, names.rules.domain))
    names.take_queries(read_queries(settings))
    kept.load(_file(settings, "documents"), names)
    publishing = Publishing(settings, names, context)
    await publishing.claim()
    async with (
        bound(settings) as slots,
        serving(settings, names.front, counts, followed, slots) as transports,
        forwarding(names.front, settings, transports.places, counts.elsewhere) as forwards,
        outliving(_file(settings, "workers")) as outlived,
        working(settings, names, transports, slots, outlived) as workers,
    ):
        publishing.notifier.true = outlived.gone.wait if workers is None else workers.gone_on
        if workers is not None:
            publishing.share_with(workers)
            if forwards.forwarder is not None:
                workers.forward(forwards.forwarder.forwarding)
        names.take_own(told.mname(settings), transports.ips)
        runner, port = await serve(app, settings)
        await publishing.start()
        collector = DnsCollector(counts, lambda: _state(names, transports))
        REGISTRY.register(collector)
        naming = NamingCollector(names)
        REGISTRY.register(naming)
        for note in notes(settings):
            log.warning("of Mesos-DNS' file", note=note)
        registry = await open_registry(_registry(settings))
        log.info("listening", **transports.told(), http=f"{settings.host}:{port}", domain=names.rules.domain)
        loaded = asyncio.Event()
        following = Following(names, context, loaded, listing)
        try:
            await until_stopped(
                context,
                *_sources(settings, registry, names, following),
                following.warm_up(),
                _announce(registry, settings, transports, names, loaded),
                kept.keep(_file(settings, "documents"), names),
                transports.run(),
                forwards.run(),
                tell(names),
                follow_queries(settings, names),
                tell_confirmed(registry, listing.confirm),
                outlived.run(loaded) if workers is None else workers.run(loaded, context.health),
                publishing.run(registry, _file(settings, "published"), next(iter(transports.ips), "")),
            )
        finally:
            REGISTRY.unregister(collector)
            REGISTRY.unregister(naming)
            await _briefly("registry session", registry.close())
            await runner.cleanup()


DAEMON = Daemon(
    name="dns",
    summary="Names from endpoints, answers from names.",
    settings=DnsSettings,
    run=run,
    files={"mesos_dns_config": "Mesos-DNS' config.json, read as it is; what is set here as well counts"},
    beneath=beneath,
    check=check,
)


def _registry(settings: DnsSettings) -> str:
    """With a Mesos master as source nobody else's registry: one of our own, of which nobody knows."""
    return settings.registry if settings.mesos is None else f"memory:mesos-{os.getpid()}"


def _sources(
    settings: DnsSettings, registry: Registry, names: Names, following: Following
) -> tuple[Awaitable[None], ...]:
    if settings.mesos is not None:
        return (MesosFollowing(settings.mesos, following, _file(settings, "state")).run(),)
    return (
        following.run(registry, _file(settings, "snapshot")),
        _follow(registry, paths.MASTER_FRAMEWORKS, _decoding(Framework, names.take_frameworks)),
        _follow(registry, paths.AGENTS, _decoding(Agent, names.take_agents)),
        _follow(registry, paths.MESOS, lambda nodes: _take_masters(names, nodes)),
    )


def _file(settings: DnsSettings, what: str) -> Path:
    """`<data_dir>/dns-<id>.snapshot`."""
    return Path(settings.data_dir) / f"dns-{re.sub(r'[^A-Za-z0-9._-]', '_', told.server_id(settings))}.{what}"


def _state(names: Names, transports: Transports) -> State:
    trust = names.answers.trust
    return State(
        serial=names.serial_now if names.snapshot.revision >= 0 else 0,
        names=len(names.zone.names),
        cached=names.answers.cached,
        tcp_connections=len(transports.tcp.open),
        trust=trust.value if trust else "none",
    )


async def _follow(registry: Registry, folder: str, take: Callable[[Mapping[str, Node]], None]) -> None:
    async for nodes in registry.follow(folder):
        take(nodes)


def _decoding(kind: type[R], take: Callable[[Mapping[str, R]], None]) -> Callable[[Mapping[str, Node]], None]:
    """Decodes what can be read; what cannot is named in the log and left out."""

    def decoded(nodes: Mapping[str, Node]) -> None:
        found: dict[str, R] = {}
        for name, node in nodes.items():
            try:
                found[name] = decode(kind, node.data, place=name)
            except Refused as error:
                log.warning("unreadable record", kind=kind.__name__, why=str(error))
        take(found)

    return decoded


def _take_masters(names: Names, nodes: Mapping[str, Node]) -> None:
    stem = paths.MASTER_CANDIDACY.rpartition("/")[2]
    found: list[MasterInfo] = []
    for name in sorted(n for n in nodes if n.startswith(stem)):
        with suppress(Refused):  # `leading` names what cannot be read
            found.append(decode(MasterInfo, nodes[name].data, place=name))
    names.take_masters(tuple(found), leading(nodes, paths.MESOS, stem))


async def _announce(
    registry: Registry, settings: DnsSettings, transports: Transports, names: Names, loaded: asyncio.Event
) -> None:
    """From the first answer to the stop. Who answers over /v1 and /v2 alone has no TTL that a kill had to wait for."""
    places = (*transports.places, *transports.tls, *transports.https)
    if not places:
        return
    least_s = max(settings.ttl_s, settings.negative_ttl_s)
    names.allow_ttl(least_s)
    await loaded.wait()
    await announce(registry, NameServer(id=told.server_id(settings), address=places[0], largest_ttl_s=least_s), names)


async def _briefly(what: str, wait: Awaitable[None]) -> None:
    """Ending it is polite, not needed: without us it ends by itself."""
    try:
        async with asyncio.timeout(WITHDRAW_S):
            await wait
    except (TimeoutError, FairleadError) as error:
        log.warning("not ended in time", what=what, why=str(error))
