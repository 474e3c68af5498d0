"""`fairlead agent`: runs this machine's tasks through its keeper. Killed, upgraded or restarted, its tasks run on."""

import asyncio
import fcntl
import itertools
import signal
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import aiohttp
import msgspec

from fairlead_core.agent.adapters import machine
from fairlead_core.agent.adapters.accounts import Accounts
from fairlead_core.agent.adapters.checkpoints import Checkpoints, Meta
from fairlead_core.agent.adapters.checks import CHECK_VARIABLE
from fairlead_core.agent.adapters.keepers import Keepers
from fairlead_core.agent.adapters.leading import Leader
from fairlead_core.agent.adapters.master_link import MasterLink
from fairlead_core.agent.adapters.resolver import Resolver
from fairlead_core.agent.adapters.sandboxes import Sandboxes, trim_logs
from fairlead_core.agent.decisions.inventory import attributes
from fairlead_core.agent.executor_pages import PATHS as EXECUTOR_PATHS
from fairlead_core.agent.executor_pages import ExecutorPages
from fairlead_core.agent.household import Card, Household
from fairlead_core.agent.identities import Identities
from fairlead_core.agent.keeper.records import Folder, boot_id
from fairlead_core.agent.keeper.remains import marked
from fairlead_core.agent.outbox import Outbox
from fairlead_core.agent.pages import Pages
from fairlead_core.agent.roster import Roster
from fairlead_core.agent.settings import AgentSettings
from fairlead_core.agent.world import World
from fairlead_core.resources import to_mesos
from fairlead_daemon.errors import BadSettings
from fairlead_daemon.main import Context, Daemon, until_stopped
from fairlead_daemon.processes import send_signal
from fairlead_daemon.tokens import ensure_token, token_path
from fairlead_daemon.web import make_app, serve
from fairlead_discovery import paths
from fairlead_discovery.backends import open_registry
from fairlead_discovery.records import Agent, encode
from fairlead_discovery.registry import Announcement, Registry

KEEPER_FOLDER = "keeper"
"""Below the data directory; `adapters.keeper_link.stop_keeper` wants this folder."""
TRIM_EVERY_S = 5.0
COLLECT_EVERY = 120  # times TRIM_EVERY_S
GONE_LIMIT_S = 30.0
MEGABYTE = 1024 * 1024


@contextmanager
def only_one(folder: Path) -> Iterator[None]:
    """Two agents on one data directory would fight for its tasks."""
    with (folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise BadSettings(f"data_dir: another agent works in {folder.parent}") from error
        yield


def prepare(settings: AgentSettings) -> Path:
    """Makes the folders. Raises BadSettings when they cannot be made."""
    folder = settings.folder()
    try:
        folder.mkdir(mode=0o755, parents=True, exist_ok=True)
        (folder / "agent").mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise BadSettings(f"data_dir: {folder}: {error.strerror}") from error
    return folder


def remember(checkpoints: Checkpoints) -> tuple[Meta, bool]:
    """Who we are, and whether the machine restarted since we last ran."""
    boot, before = boot_id(), checkpoints.load_meta()
    meta = msgspec.structs.replace(before, boot_id=boot) if before else Meta(instance=uuid.uuid4().hex, boot_id=boot)
    try:
        if meta != before:
            checkpoints.save_meta(meta)
    except OSError as error:
        raise BadSettings(f"data_dir: cannot write there: {error.strerror}") from error
    return meta, before is not None and before.boot_id != boot


def end_checks(instance: str) -> None:
    """Check commands of a killed agent: nobody waits for them any more."""
    for identity in marked(f"{instance}/", variable=CHECK_VARIABLE):
        send_signal(identity, signal.SIGKILL)


async def run(settings: AgentSettings, context: Context) -> None:
    folder = prepare(settings)
    accounts = Accounts(settings)
    with only_one(folder / "agent"):
        sandboxes = Sandboxes(folder)
        sandboxes.prepare()
        user = accounts.check(sandboxes.root)
        context.log.info("tasks run as", user=user.name, data_dir=str(folder))
        connector = aiohttp.TCPConnector(limit=0, force_close=True)
        async with aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar()) as http:
            checkpoints = Checkpoints(folder / "agent")
            checkpoints.prepare()
            meta, rebooted = remember(checkpoints)
            end_checks(meta.instance)
            world = World(
                settings=settings,
                health=context.health,
                checkpoints=checkpoints,
                keepers=Keepers(Folder(folder / KEEPER_FOLDER), meta.instance, context.health),
                accounts=accounts,
                sandboxes=sandboxes,
                resolver=Resolver(folder / "agent", settings.dns_address),
                identities=Identities(settings),
                http=http,
                outbox=Outbox(),
                ip=machine.our_ip(settings),
                home_variables=machine.home_variables(),
                meta=meta,
            )
            await _Agent(world, context).run(rebooted=rebooted)


class _Agent:
    """Ties the parts together."""

    def __init__(self, world: World, context: Context) -> None:
        settings = world.settings
        self._world = world
        self._context = context
        self._roster = Roster(world)
        self._renamed = asyncio.Event()
        self._gone = asyncio.Event()
        self._leader = Leader(settings.master)
        self._card = Card(
            hostname=machine.our_hostname(settings),
            ip=world.ip,
            resources=tuple(to_mesos(machine.our_resources(settings))),
            attributes=attributes(settings.attributes),
            zone=settings.zone,
            region=settings.region,
        )

    async def run(self, *, rebooted: bool) -> None:
        world, context, settings = self._world, self._context, self._world.settings
        context.health.wait("keeper", "not there yet")
        context.health.wait("master", "not registered yet")
        app = make_app(settings, context.health, own_proof=EXECUTOR_PATHS)
        ExecutorPages(world=world, roster=self._roster, proof=bool(ensure_token(settings))).add_to(app)
        Pages(world=world, roster=self._roster, card=self._card, started_s=time.time()).add_to(app)
        runner, world.port = await serve(app, settings)
        household = Household(world, self._roster, self._card, renamed=self._renamed.set, gone=self._gone.set)
        link = MasterLink(self._leader, household, world.outbox, context.health, token_path(settings))
        world.identities.sign = link.identity
        context.log.info("listening", port=world.port, instance=world.meta.instance)
        try:
            await until_stopped(
                context,
                self._roster.live(rebooted=rebooted),
                world.keepers.run(self._roster.adopt, self._roster.ended),
                world.resolver.run(),
                self._meet_in_registry(),
                link.run(),
                self._tidy(),
                self._end_when_gone(),
            )
        finally:
            await runner.cleanup()

    async def _meet_in_registry(self) -> None:
        """Finds the leader and announces us. Never closed in order: the announcement is to outlive a restart of ours."""
        if not self._world.settings.registry:
            return
        registry = await open_registry(self._world.settings.registry)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._announce(registry))
            group.create_task(self._world.identities.follow(registry))
            if not self._world.settings.master:
                group.create_task(self._leader.follow(registry))

    async def _announce(self, registry: Registry) -> None:
        """Again whenever the master gave us another id."""
        known = ""
        announcement: Announcement | None = None
        while True:
            await self._renamed.wait()
            self._renamed.clear()
            agent_id = self._world.meta.agent_id
            if agent_id == known:
                continue
            if announcement is not None:
                await announcement.end()
            announcement = await registry.announce(paths.below(paths.AGENTS, agent_id), encode(self._record(agent_id)))
            known = agent_id

    def _record(self, agent_id: str) -> Agent:
        return Agent(
            id=agent_id,
            host=self._world.ip,
            port=self._world.port,
            boot_id=self._world.meta.boot_id,
            hostname=self._card.hostname,
            zone=self._card.zone,
            region=self._card.region,
            attributes=self._world.settings.attributes,
        )

    async def _tidy(self) -> None:
        """Logs of running tasks are kept small, sandboxes of long-ended ones removed."""
        settings, sandboxes = self._world.settings, self._world.sandboxes
        for turn in itertools.count():
            await asyncio.sleep(TRIM_EVERY_S)
            running = [run.sandbox for run in self._roster.runs.values() if not run.ended]
            await asyncio.to_thread(_trim_all, running, settings.log_limit_mb * MEGABYTE)
            if turn % COLLECT_EVERY == 0:
                in_use = frozenset(map(str, running))
                removed = await asyncio.to_thread(sandboxes.collect, settings.sandbox_keep_s, in_use)
                if removed:
                    self._context.log.info("old sandboxes removed", number=removed)

    async def _end_when_gone(self) -> None:
        """Marked gone: the tasks end, the id is forgotten, and so do we."""
        await self._gone.wait()
        if not await self._roster.end_everything(limit_s=GONE_LIMIT_S):
            self._context.log.error("some tasks would not end")
        self._world.checkpoints.forget_all()
        self._world.checkpoints.save_meta(msgspec.structs.replace(self._world.meta, agent_id=""))
        self._context.stop.set()


def _trim_all(sandboxes: Sequence[Path], limit_bytes: int) -> None:
    for sandbox in sandboxes:
        trim_logs(sandbox, limit_bytes)


DAEMON = Daemon(
    name="agent",
    summary="Runs this machine's tasks through its keeper and tells the leading master.",
    settings=AgentSettings,
    run=run,
)
