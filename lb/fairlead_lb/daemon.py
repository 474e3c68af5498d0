"""`fairlead lb`: HAProxy from endpoints and routes."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fairlead_daemon.errors import BadSettings, FairleadError, Refused
from fairlead_daemon.main import Context, Daemon, until_stopped
from fairlead_daemon.web import make_app, serve
from fairlead_discovery import paths
from fairlead_discovery.composed import ComposedRegistry
from fairlead_discovery.decisions.localities import NOWHERE, Place
from fairlead_discovery.records import Agent, decode
from fairlead_discovery.registry import Registry
from fairlead_discovery.snapshots import Snapshot
from fairlead_lb import admin, between_side, metrics
from fairlead_lb.access_log import Around, access_log
from fairlead_lb.adapters import local_routes, machine
from fairlead_lb.adapters.process import find_program
from fairlead_lb.adapters.store import Store
from fairlead_lb.answering import Watcher
from fairlead_lb.bamboo.rest import CALLBACK
from fairlead_lb.bamboo.settings import beneath as of_bamboo
from fairlead_lb.bamboo.settings import check, manner, traefik_root
from fairlead_lb.bamboo.side import Side
from fairlead_lb.canaries import Canaries
from fairlead_lb.certificates import Certificates
from fairlead_lb.controller import Controller
from fairlead_lb.decisions.change import Surroundings
from fairlead_lb.decisions.derived import route_from_labels
from fairlead_lb.decisions.mesh import MeshRules
from fairlead_lb.decisions.rails import Rails
from fairlead_lb.decisions.render import worker_socket
from fairlead_lb.decisions.vips import route_from_vips
from fairlead_lb.foreseeing import add_plan_page
from fairlead_lb.reporter import Reporter
from fairlead_lb.rolling import Gate
from fairlead_lb.settings import (
    LbSettings,
    balancer_id,
    ends_tls,
    forbidden,
    frame,
    groups,
    lb_folder,
    limits,
    node_defaults,
    service_ports,
    socket_folder,
    spare_backends,
    standing,
    vip_rules,
    with_tls,
)
from fairlead_lb.supervisor import Supervisor

if TYPE_CHECKING:
    from fairlead_lb.mesh_side import MeshSide
    from fairlead_lb.registry_certificates import RegistryCertificates


@dataclass(frozen=True, slots=True)
class _Beside:
    """What runs beside the loop."""

    admin_url: str
    certificates: Certificates | None
    bamboo: Side
    mesh: "MeshSide | None"


async def run(settings: LbSettings, context: Context) -> None:
    """HAProxy serves, adopted or started as it was, before the registry is asked anything."""
    folder = lb_folder(settings)
    store = Store(folder, socket_folder(folder))
    around = _around(settings)
    for network in local_routes.needed(around.vips):
        await local_routes.add(network)
    supervisor = await _supervisor(settings, store)
    store.prepare(enter=around.frame.passthrough and bool(around.frame.user))
    certificates = _certificates(settings)
    mesh = _mesh(settings)
    around = _with_identities(around, certificates, mesh)
    derived = route_from_vips if settings.node else route_from_labels
    controller = Controller(supervisor, store, around, derived, Rails(limits(settings)))
    _hold_to(settings, controller)
    bamboo = Side(settings, folder, controller.offer)
    stopping = asyncio.Event()
    controller.reached = lambda why: _reached(context, why)

    def stop_all() -> None:
        stopping.set()
        context.stop.set()

    metrics.SNAPSHOT_AGE.set_function(lambda: admin.age_s(controller.state))
    app = make_app(settings, context.health, own_proof=(CALLBACK,))
    admin.add_pages(app, controller, store, stop_all, certificates)
    admin.add_mesh_page(app, mesh)
    add_plan_page(app, controller)
    bamboo.add_pages(app)
    context.health.wait("snapshot", "nothing read from the registry yet")
    runner, port = await serve(app, settings)
    beside = _Beside(f"http://{settings.host}:{port}", certificates, bamboo, mesh)
    try:
        await bamboo.listen(context)
        await controller.serve_first()
        if settings.https_port and not (ends_tls(settings) or settings.tls_passthrough):
            context.log.info("https is off: no certificate is set", https_port=settings.https_port)
        context.log.info("serving", admin=port, http=settings.http_port, haproxy=controller.supervisor.processes.master)
        await _work(settings, context, controller, stopping, beside)
    finally:
        await bamboo.close()
        await runner.cleanup()
        if not stopping.is_set():
            controller.supervisor.leave()


def _around(settings: LbSettings) -> Surroundings:
    """What settings alone decide. Raises BadSettings."""
    between_side.check(settings)
    return Surroundings(
        frame=frame(settings),
        service_ports=service_ports(settings),
        forbidden=forbidden(settings),
        spare_backends=spare_backends(settings),
        callers=MeshRules(default=settings.intentions_default),
        groups=groups(settings),
        vips=vip_rules(settings),
        manner=manner(settings),
    )


def _with_identities(around: Surroundings, certificates: Certificates | None, mesh: "MeshSide | None") -> Surroundings:
    """With the certificates that are there already: HAProxy comes up with them."""
    if certificates is not None and certificates.any:
        around = replace(around, frame=with_tls(around.frame, str(certificates.listing)))
    if mesh is None:
        return around
    callers = replace(around.callers, trust_domain=mesh.trust_domain)
    return replace(around, frame=mesh.framed(around.frame), callers=callers)


def _reached(context: Context, why: str) -> None:
    """`why` HAProxy is not reached; "" when it is."""
    if why:
        context.health.wait("haproxy", why)
    else:
        context.health.ready("haproxy")


async def _supervisor(settings: LbSettings, store: Store) -> Supervisor:
    """Raises BadSettings when there is no HAProxy that can do what is asked for."""
    supervisor = Supervisor(store, find_program(settings.haproxy), old_workers=settings.old_workers)
    await supervisor.probe(tls=bool(ends_tls(settings) and settings.https_port))
    return supervisor


def _hold_to(settings: LbSettings, controller: Controller) -> None:
    controller.desk.panic_percent = settings.panic_percent
    controller.use_gate(Gate(balancer_id(settings), enabled=settings.rollout == "one-first" and not settings.node))


async def _work(
    settings: LbSettings, context: Context, controller: Controller, stopping: asyncio.Event, beside: "_Beside"
) -> None:
    from fairlead_discovery.backends import open_registry  # noqa: PLC0415  # kazoo's import can wait until HAProxy serves
    from fairlead_discovery.reading import tell_confirmed  # noqa: PLC0415  # as below

    registry = await open_registry(settings.registry)
    controller.stand(standing(settings, machine.addresses(), NOWHERE))
    me = between_side.registration(settings, beside.admin_url)
    doors = between_side.Doors(settings, me, controller.use_between)
    reporter = Reporter(registry, me, lambda: controller.state.progress)
    watcher = Watcher(controller, me.id)
    keep = lb_folder(settings) / "snapshot.json"
    try:
        await until_stopped(
            context,
            controller.run(),
            _follow(registry, keep, doors.after(beside.bamboo.book.offer), context),
            doors.run(registry),
            reporter.run(controller.reported),
            tell_confirmed(registry, controller.confirm),
            _follow_agents(settings, registry, controller),
            controller.desk.gate.run(registry, controller.unwell),
            _follow_certificates(beside.certificates, controller),
            *_registry_certificates(beside.certificates, registry),
            *_mesh_bodies(beside.mesh, registry, controller),
            *_log_bodies(settings, controller),
            *_traefik(settings, registry, controller),
            *beside.bamboo.bodies(registry, lambda: controller.state.wanted.revision),
            watcher.run(),
            watcher.tell(registry),
            Canaries(lambda: controller.state, me.id).run(registry),
        )
        if stopping.is_set():
            await _end(controller, reporter, context)
            for network in local_routes.needed(controller.around.vips):
                await local_routes.remove(network)
    finally:
        await registry.close()


def _certificates(settings: LbSettings) -> Certificates | None:
    """Loaded; None when none are set. Raises BadSettings for a path that is not there and never was."""
    if not ends_tls(settings):
        return None
    source = Path(settings.certificate).absolute() if settings.certificate else None
    found = Certificates(source, lb_folder(settings) / "certs", _of_registry(settings))
    found.load()
    if source is not None and not found.any and not source.exists():
        raise BadSettings(f"certificate: {settings.certificate}: no such file or folder")
    return found


def _of_registry(settings: LbSettings) -> "RegistryCertificates | None":
    """None without a key file. Raises BadSettings."""
    if not settings.certificate_key_file:
        return None
    from fairlead_lb.registry_certificates import RegistryCertificates  # noqa: PLC0415  # cryptography is for who needs it

    key_file = Path(settings.certificate_key_file).absolute()
    made = RegistryCertificates(lb_folder(settings) / "registry-certs", key_file)
    made.check()
    return made


def _log_bodies(settings: LbSettings, controller: Controller) -> Iterator[Awaitable[None]]:
    around = Around(
        serving=lambda: controller.state.serving,
        former=lambda: controller.state.former,
        master=lambda: controller.supervisor.processes.master,
    )
    taken = access_log(settings, lb_folder(settings), controller.around.frame.log_name, around)
    if taken is not None:
        yield taken.run()


def _mesh(settings: LbSettings) -> "MeshSide | None":
    """None without a mesh port. Raises BadSettings."""
    if not settings.mesh_port and not settings.mesh_tcp_port:
        return None
    from fairlead_lb.mesh_side import mesh_side  # noqa: PLC0415  # cryptography is for who needs it

    return mesh_side(settings)


def _mesh_bodies(mesh: "MeshSide | None", registry: Registry, controller: Controller) -> Iterator[Awaitable[None]]:
    """The first identity that comes needs a reload; others none, but after other roots before HAProxy 3.2."""
    if mesh is None:
        return iter(())

    def came() -> None:
        frame = mesh.framed(controller.around.frame)
        if frame != controller.around.frame or mesh.trust_domain != controller.around.callers.trust_domain:
            callers = MeshRules(default=controller.around.callers.default, trust_domain=mesh.trust_domain)
            controller.use_callers(frame, callers)

    def socket() -> str | None:
        serving = controller.state.serving
        return _socket_of(controller) if serving is not None and serving.structure.frame.identity else None

    return mesh.bodies(registry, socket, came, controller.renew)


async def _follow_certificates(certificates: Certificates | None, controller: Controller) -> None:
    """The first ones that come need a reload, the last that goes, and the default that goes; all others none."""
    if certificates is None:
        await asyncio.Event().wait()
        return

    def changed() -> None:
        listing = str(certificates.listing) if certificates.any else ""
        controller.use_frame(with_tls(controller.around.frame, listing))

    def without() -> bool:
        serving = controller.state.serving
        return serving is not None and controller.supervisor.alive and not serving.structure.frame.certificates

    await certificates.follow(lambda: _worker_socket(controller), changed, without)


def _registry_certificates(certificates: Certificates | None, registry: Registry) -> Iterator[Awaitable[None]]:
    if certificates is not None and certificates.beside is not None:
        yield certificates.beside.follow(registry)


def _worker_socket(controller: Controller) -> str | None:
    """Of the worker that serves, and has TLS; None while none does."""
    serving = controller.state.serving
    return _socket_of(controller) if serving is not None and serving.structure.frame.certificates else None


def _socket_of(controller: Controller) -> str | None:
    serving = controller.state.serving
    if serving is None or not controller.supervisor.alive:
        return None
    return worker_socket(serving.structure.frame, serving.structure.generation)


async def _follow_agents(settings: LbSettings, registry: Registry, controller: Controller) -> None:
    """What machines are called; zone and region as this machine's agent says, unless they are set; addresses may come
    later than we.
    """
    async for nodes in registry.follow(paths.AGENTS):
        agents = [agent for node in nodes.values() if (agent := _agent(node.data)) is not None]
        controller.state.hostnames |= {agent.id: agent.hostname for agent in agents if agent.hostname}
        if settings.locality == "off" or settings.zone or settings.region:
            continue
        own = machine.addresses() | frozenset(settings.machine)
        here = next((a for a in agents if a.host in own and (a.zone or a.region)), None)
        place = Place(here.zone, here.region) if here is not None else controller.place
        controller.stand(standing(settings, own, place))


def _agent(data: bytes) -> Agent | None:
    try:
        return decode(Agent, data, place="agent")
    except Refused:
        return None


async def _follow(registry: Registry, keep: Path, offer: Callable[[Snapshot], None], context: Context) -> None:
    from fairlead_discovery.reading import snapshots  # noqa: PLC0415  # see above

    async for snapshot in snapshots(registry, keep=keep):
        offer(snapshot)
        context.health.ready("snapshot")


async def _end(controller: Controller, reporter: Reporter, context: Context) -> None:
    """A clean stop of everything: HAProxy ends, and kills need not wait for it any more."""
    await controller.supervisor.stop()
    try:
        await reporter.end()
    except FairleadError as error:
        context.log.warning("the registration stays; an operator may remove it", reason=str(error))
    context.log.info("haproxy stopped")


def _traefik(settings: LbSettings, registry: ComposedRegistry, controller: Controller) -> Iterator[Awaitable[None]]:
    """What is not believed is not written either."""
    root = traefik_root(settings)
    if root:
        from fairlead_lb.traefik import TraefikWriter  # noqa: PLC0415  # see above

        state = controller.state
        names = [name.strip() for name in settings.traefik_entrypoints.split(",") if name.strip()]
        newest = lambda: state.wanted if state.wanted.revision >= 0 and not state.frozen else None  # noqa: E731  # state changes
        yield TraefikWriter(registry, root, names, newest).run(balancer_id(settings))


def _beneath(given: Mapping[str, Any]) -> dict[str, Any]:
    bamboo = of_bamboo(given)
    return {**node_defaults({**bamboo, **given}), **bamboo}


DAEMON = Daemon(
    name="lb",
    summary="HAProxy from endpoints and routes.",
    settings=LbSettings,
    run=run,
    flags={"node": "one a machine, on localhost: every service's port, and DC/OS' VIPs; kills do not wait for it"},
    files={"bamboo_config": "Bamboo's JSON file, read as it is; what is set here as well counts"},
    beneath=_beneath,
    check=check,
)
