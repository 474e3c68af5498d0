"""`fairlead master`: stands for election, leads or stands by, serves Mesos' HTTP API."""

import asyncio
import contextlib
import socket
import uuid
from collections.abc import Mapping
from pathlib import Path

import msgspec

from fairlead_core.master.adapters import agent_api, identity_api, pages, scheduler_api
from fairlead_core.master.decisions import views
from fairlead_core.master.decisions.model import Cluster
from fairlead_core.master.leadership import ROLE, Leadership, clock
from fairlead_core.master.seat import Seat
from fairlead_core.metrics import serve_master
from fairlead_daemon.errors import BadSettings, Refused
from fairlead_daemon.main import Context, Daemon, until_stopped
from fairlead_daemon.settings import DaemonSettings
from fairlead_daemon.tokens import token_path
from fairlead_daemon.web import make_app, serve
from fairlead_discovery import paths
from fairlead_discovery.backends import open_registry
from fairlead_discovery.records import MasterAddress, MasterInfo, decode, encode
from fairlead_discovery.registry import Registry, Standing


class MasterSettings(DaemonSettings, frozen=True, kw_only=True):
    """Keys of `fairlead master`."""

    port: int = 5050
    """Port of the HTTP API; Mesos' own."""
    advertise_ip: str = ""
    """IPv4 address under which clients and agents find this master. Empty: `host`, or this machine's when it is 0.0.0.0."""
    advertise_hostname: str = ""
    """Host name in MasterInfo. Empty: the advertised address."""
    candidacy: str = paths.MASTER_CANDIDACY
    """Where masters stand for election; Mesos' clients look under /mesos."""
    weights: Mapping[str, float] = msgspec.field(default_factory=dict)
    """Fair share of a role, 1 when not named: a role of weight 2 gets twice as much."""
    drain_s: float = 300.0
    """How long a drained machine's frameworks have to move their tasks before what remains is told to leave."""
    framework_return_s: float = 60.0
    """After a master's restart, the least time a framework has to come back before its tasks are ended."""
    identity_authority: str = "http://127.0.0.1:8450"
    """`fairlead ca`, asked for the certificates of tasks that want one."""
    identity_token_file: str = ""
    """Its token. Empty: the house's. With one that agents do not have, they get certificates for their tasks alone."""


def advertised_ip(settings: MasterSettings) -> str:
    """Raises BadSettings when it is no IPv4 address."""
    ip = settings.advertise_ip or settings.host
    if ip in {"0.0.0.0", "localhost"}:
        ip = socket.gethostbyname(socket.gethostname() if ip == "0.0.0.0" else ip)
    try:
        socket.inet_aton(ip)
    except OSError as error:
        raise BadSettings(f"advertise_ip: {ip!r} is no IPv4 address") from error
    return ip


def master_info(settings: MasterSettings, master_id: str, port: int) -> MasterInfo:
    """Mesos' MasterInfo; `ip` is the address as a little-endian integer."""
    ip = advertised_ip(settings)
    hostname = settings.advertise_hostname or ip
    return MasterInfo(
        address=MasterAddress(hostname=hostname, ip=ip, port=port),
        hostname=hostname,
        id=master_id,
        ip=int.from_bytes(socket.inet_aton(ip), "little"),
        pid=f"master@{ip}:{port}",
        port=port,
        version=views.VERSION,
    )


def _check(settings: MasterSettings) -> None:
    for role, weight in settings.weights.items():
        if not weight > 0:
            raise BadSettings(f"weights.{role}: {weight} is not greater than 0")
    advertised_ip(settings)
    if not settings.identity_authority.startswith(("http://", "https://")):
        raise BadSettings(f"identity_authority: {settings.identity_authority}: expected http://host:port")


def authority(settings: MasterSettings) -> identity_api.Authority:
    own = settings.identity_token_file
    return identity_api.Authority(
        url=settings.identity_authority.rstrip("/"), token_file=Path(own) if own else token_path(settings)
    )


class Candidate:
    """Stands for election for as long as the daemon runs; leads whenever it is elected."""

    def __init__(self, registry: Registry, settings: MasterSettings, context: Context, seat: Seat) -> None:
        self._registry = registry
        self._settings = settings
        self._context = context
        self._seat = seat
        self._last: Cluster | None = None
        self._task: asyncio.Task[None] | None = None

    async def run(self) -> None:
        data = encode(self._seat.info)
        standings = self._registry.campaign(ROLE, data, candidacy=self._settings.candidacy)
        try:
            async with (
                asyncio.TaskGroup() as group
            ):  # a bug in leading ends the daemon: another leads, we are restarted
                async for standing in standings:
                    await self._follow(standing, group)
        finally:
            await self._step_down()

    async def _follow(self, standing: Standing, group: asyncio.TaskGroup) -> None:
        log = self._context.log
        leading = self._task is not None
        same = leading and self._last is not None and self._last.epoch == standing.epoch
        if leading and not (standing.leading and same):
            log.warning("lost the leadership")
            await self._step_down()
        self._seat.leader = _leader(standing)
        if standing.leading and self._task is None:
            log.info("elected", epoch=standing.epoch)
            self._task = group.create_task(self._lead(standing.epoch))
        self._report(standing)

    def _report(self, standing: Standing) -> None:
        if self._seat.leadership is not None or (not standing.leading and standing.leader is not None):
            self._context.health.ready("election")
        else:
            self._context.health.wait("election", "taking over" if standing.leading else "nobody leads")

    async def _step_down(self) -> None:
        self._seat.leadership = None
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def _lead(self, epoch: int) -> None:
        before = self._last
        cluster = Cluster(
            master_id=self._seat.info.id,
            epoch=epoch,
            started_s=clock().s,
            drain_default_s=self._settings.drain_s,
            framework_return_s=self._settings.framework_return_s,
            next_framework=before.next_framework if before else 0,
            next_agent=before.next_agent if before else 0,
            next_offer=before.next_offer if before else 0,
        )
        self._last = cluster
        leadership = Leadership(self._registry, self._seat.info, cluster, weights=self._settings.weights)
        await leadership.run(self._ready)

    def _ready(self, leadership: Leadership) -> None:
        self._seat.leadership = leadership
        self._context.health.ready("election")
        self._context.log.info("leading", epoch=leadership.cluster.epoch, agents=len(leadership.cluster.agents))


def _leader(standing: Standing) -> MasterInfo | None:
    if standing.leader is None:
        return None
    try:
        return decode(MasterInfo, standing.leader, place="leader")
    except Refused:
        return None


def _gauges(seat: Seat) -> Mapping[str, float]:
    lead = seat.leadership
    if lead is None:
        return {}
    page = views.metrics(lead.cluster, uptime_s=clock().s - lead.began.s)
    shown = {k.rpartition("/")[2]: v for k, v in page.items() if k.startswith("master/")}
    gauges = (
        "slaves_active",
        "slaves_unreachable",
        "frameworks_active",
        "outstanding_offers",
        "tasks_running",
        "tasks_staging",
    )
    return {
        **{name.replace("slaves", "agents"): shown[name] for name in gauges},
        "leaving_tasks": len(lead.cluster.leaves),
        "published_services": len(lead.cluster.stored),
    }


async def run(settings: MasterSettings, context: Context) -> None:
    _check(settings)
    context.health.wait("election", "nobody leads yet")
    registry = await open_registry(settings.registry)
    app = make_app(settings, context.health)
    seat = Seat(info=master_info(settings, str(uuid.uuid4()), settings.port))
    for adapter in (scheduler_api, agent_api, pages):
        adapter.add_routes(app, seat)
    identity_api.add_routes(app, seat, authority(settings))
    runner, port = await serve(app, settings)
    seat.info = msgspec.structs.replace(
        seat.info,
        port=port,
        pid=f"master@{seat.info.address.ip}:{port}",
        address=msgspec.structs.replace(seat.info.address, port=port),
    )
    forget_metrics = serve_master(
        lambda: seat.leadership.cluster.counts if seat.leadership else None, lambda: _gauges(seat)
    )
    context.log.info("listening", port=port, id=seat.info.id)
    try:
        await until_stopped(context, Candidate(registry, settings, context, seat).run())
    finally:
        forget_metrics()
        await registry.close()
        await runner.cleanup()


DAEMON = Daemon(
    name="master",
    summary="Offers machines' resources to frameworks, runs their tasks on agents, publishes them in the registry.",
    settings=MasterSettings,
    run=run,
)
