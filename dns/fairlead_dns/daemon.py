"""The daemon: bind, listen to the registry, answer; announce ourselves for as long as we do."""

import asyncio
import gc
import os
import re
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from time import perf_counter
from typing import TypeVar

from prometheus_client import REGISTRY

from fairlead_daemon.errors import FairleadError, Refused
from fairlead_daemon.logs import Log
from fairlead_daemon.main import Context, Daemon, until_stopped
from fairlead_daemon.web import make_app, serve
from fairlead_discovery import paths
from fairlead_discovery.backends import open_registry
from fairlead_discovery.leaders import leading
from fairlead_discovery.reading import snapshots
from fairlead_discovery.records import Agent, Framework, MasterInfo, NameServer, decode, encode
from fairlead_discovery.registry import Node, Registry
from fairlead_dns import settings as told
from fairlead_dns.adapters import kept
from fairlead_dns.adapters.forward_setup import forwarding
from fairlead_dns.adapters.http import add_routes
from fairlead_dns.metrics import Counts, DnsCollector, State, apply_seconds
from fairlead_dns.names import Names
from fairlead_dns.settings import DnsSettings
from fairlead_dns.transports import Transports, prepare, serving

log = Log("dns")
R = TypeVar("R")
WITHDRAW_S = 2.0
NO_ZONE = "nothing known of the registry yet"


async def run(settings: DnsSettings, context: Context) -> None:
    """See Daemon. Raises BadSettings before anything is served."""
    names = Names(told.rules(settings), told.authority(settings))
    counts = Counts()
    followed = prepare(settings, names.front, version("fairlead"), told.server_id(settings))
    context.health.wait("zone", NO_ZONE)
    app = make_app(settings, context.health)
    add_routes(app, settings, names)
    kept.load(_file(settings, "documents"), names)
    async with (
        serving(settings, names.front, counts, followed) as transports,
        forwarding(names.front, settings, transports.places) as forwards,
    ):
        names.take_own(told.mname(settings), transports.ips)
        runner, port = await serve(app, settings)
        collector = DnsCollector(counts, lambda: _state(names, transports))
        REGISTRY.register(collector)
        registry = await open_registry(settings.registry)
        log.info("listening", **transports.told(), http=f"{settings.host}:{port}", domain=names.rules.domain)
        loaded = asyncio.Event()
        try:
            await until_stopped(
                context,
                _follow_snapshots(registry, _file(settings, "snapshot"), names, context, loaded),
                _follow(registry, paths.MASTER_FRAMEWORKS, _decoding(Framework, names.take_frameworks)),
                _follow(registry, paths.AGENTS, _decoding(Agent, names.take_agents)),
                _follow(registry, paths.MESOS, lambda nodes: _take_masters(names, nodes)),
                _announce(registry, settings, transports.places, loaded),
                kept.keep(_file(settings, "documents"), names),
                transports.run(),
                forwards.run(),
            )
        finally:
            REGISTRY.unregister(collector)
            await _briefly("registry session", registry.close())
            await runner.cleanup()


DAEMON = Daemon(name="dns", summary="Names from endpoints, answers from names.", settings=DnsSettings, run=run)


def _file(settings: DnsSettings, what: str) -> Path:
    """`<data_dir>/dns-<id>.snapshot`."""
    return Path(settings.data_dir) / f"dns-{re.sub(r'[^A-Za-z0-9._-]', '_', told.server_id(settings))}.{what}"


def _state(names: Names, transports: Transports) -> State:
    trust = names.answers.trust
    return State(
        serial=names.answers.serial,
        names=len(names.zone.names),
        cached=names.answers.cached,
        tcp_connections=len(transports.tcp.open),
        trust=trust.value if trust else "none",
    )


async def _follow_snapshots(
    registry: Registry, file: Path, names: Names, context: Context, loaded: asyncio.Event
) -> None:
    async for snapshot in snapshots(registry, keep=file):
        before, start_s = names.answers.trust, perf_counter()
        touched = names.take_snapshot(snapshot)
        took_s = perf_counter() - start_s
        apply_seconds.observe(took_s)
        if names.answers.trust is None:
            continue
        fields = {"revision": snapshot.revision, "names": touched, "took_ms": took_s * 1000}
        if names.answers.trust is not before:
            log.info("trust changed", trust=names.answers.trust.value, why=snapshot.why, **fields)
        else:
            log.debug("names changed", **fields)
        if not loaded.is_set():
            context.health.ready("zone")
            gc.freeze()  # the zone lives for good: no later collection walks it, and none delays a change
            loaded.set()


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


async def _announce(registry: Registry, settings: DnsSettings, places: tuple[str, ...], loaded: asyncio.Event) -> None:
    """Kills wait for our answers to be forgotten for as long as this stands: from the first answer to the stop."""
    await loaded.wait()
    name = told.server_id(settings)
    record = NameServer(id=name, address=places[0], largest_ttl_s=max(settings.ttl_s, settings.negative_ttl_s))
    path = paths.below(paths.NAME_SERVERS, f"{name}.{os.getpid()}")  # two processes may share an id
    announcement = await registry.announce(path, encode(record))
    try:
        await asyncio.Event().wait()
    finally:
        await _briefly("announcement", announcement.end())


async def _briefly(what: str, wait: Awaitable[None]) -> None:
    """Ending it is polite, not needed: without us it ends by itself."""
    try:
        async with asyncio.timeout(WITHDRAW_S):
            await wait
    except (TimeoutError, FairleadError) as error:
        log.warning("not ended in time", what=what, why=str(error))
