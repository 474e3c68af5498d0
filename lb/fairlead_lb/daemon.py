"""`fairlead lb`: HAProxy from endpoints and routes."""

import asyncio
from pathlib import Path

from fairlead_daemon.errors import FairleadError
from fairlead_daemon.main import Context, Daemon, until_stopped
from fairlead_daemon.web import make_app, serve
from fairlead_discovery.records import Balancer
from fairlead_discovery.registry import Registry
from fairlead_lb import admin, metrics
from fairlead_lb.adapters.process import find_program
from fairlead_lb.adapters.store import Store
from fairlead_lb.controller import Controller
from fairlead_lb.decisions.change import Surroundings
from fairlead_lb.decisions.derived import route_from_labels
from fairlead_lb.reporter import Reporter
from fairlead_lb.settings import (
    LbSettings,
    balancer_id,
    forbidden,
    frame,
    lb_folder,
    service_ports,
    socket_folder,
    spare_backends,
)
from fairlead_lb.supervisor import Supervisor


async def run(settings: LbSettings, context: Context) -> None:
    """HAProxy serves, adopted or started as it was, before the registry is asked anything."""
    folder = lb_folder(settings)
    store = Store(folder, socket_folder(folder))
    around = Surroundings(
        frame=frame(settings),
        service_ports=service_ports(settings),
        forbidden=forbidden(settings),
        spare_backends=spare_backends(settings),
    )
    program = find_program(settings.haproxy)
    store.prepare()
    controller = Controller(Supervisor(store, program), store, around, route_from_labels)
    stopping = asyncio.Event()

    def stop_all() -> None:
        stopping.set()
        context.stop.set()

    metrics.SNAPSHOT_AGE.set_function(lambda: admin.age_s(controller.state))
    app = make_app(settings, context.health)
    admin.add_pages(app, controller, store, stop_all)
    context.health.wait("snapshot", "nothing read from the registry yet")
    runner, port = await serve(app, settings)
    try:
        await controller.serve_first()
        if settings.https_port and not settings.certificate:
            context.log.info("https is off: no certificate is set", https_port=settings.https_port)
        context.log.info("serving", admin=port, http=settings.http_port, haproxy=controller.supervisor.processes.master)
        await _work(settings, context, controller, stopping, admin_url=f"http://{settings.host}:{port}")
    finally:
        await runner.cleanup()
        if not stopping.is_set():
            controller.supervisor.leave()


async def _work(
    settings: LbSettings, context: Context, controller: Controller, stopping: asyncio.Event, *, admin_url: str
) -> None:
    from fairlead_discovery.backends import open_registry  # noqa: PLC0415  # kazoo's import can wait until HAProxy serves

    registry = await open_registry(settings.registry)
    me = Balancer(id=balancer_id(settings), admin=admin_url)
    reporter = Reporter(registry, me, lambda: controller.state.progress)
    keep = lb_folder(settings) / "snapshot.json"
    try:
        await until_stopped(
            context,
            controller.run(),
            _follow(registry, keep, controller, context),
            reporter.run(controller.reported),
        )
        if stopping.is_set():
            await _end(controller, reporter, context)
    finally:
        await registry.close()


async def _follow(registry: Registry, keep: Path, controller: Controller, context: Context) -> None:
    from fairlead_discovery.reading import snapshots  # noqa: PLC0415  # see above

    async for snapshot in snapshots(registry, keep=keep):
        controller.offer(snapshot)
        context.health.ready("snapshot")


async def _end(controller: Controller, reporter: Reporter, context: Context) -> None:
    """A clean stop of everything: HAProxy ends, and kills need not wait for it any more."""
    await controller.supervisor.stop()
    try:
        await reporter.end()
    except FairleadError as error:
        context.log.warning("the registration stays; an operator may remove it", reason=str(error))
    context.log.info("haproxy stopped")


DAEMON = Daemon(name="lb", summary="HAProxy from endpoints and routes.", settings=LbSettings, run=run)
