"""The admin pages: `/status` for people and verbs, marathon-lb's `/_haproxy_…`, HAProxy's own statistics."""

import asyncio
import re
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from aiohttp import web

from fairlead_daemon.errors import Unavailable
from fairlead_daemon.web import json_response
from fairlead_lb.adapters.store import Store
from fairlead_lb.certificates import Certificates
from fairlead_lb.controller import Controller
from fairlead_lb.decisions import map_keys, marathon_csv
from fairlead_lb.decisions.change import Serving
from fairlead_lb.decisions.conditions import told
from fairlead_lb.decisions.problems import problems
from fairlead_lb.decisions.values import Key
from fairlead_lb.desk import Desk
from fairlead_lb.service_pages import Listing, backends_of, slots_of
from fairlead_lb.split_pages import canaries_of, routers_of, splits_of
from fairlead_lb.state import State

if TYPE_CHECKING:
    from fairlead_lb.mesh_side import MeshSide


def add_pages(
    app: web.Application,
    controller: Controller,
    store: Store,
    stop: Callable[[], None],
    certificates: Certificates | None = None,
) -> None:
    """`stop` ends the daemon and HAProxy with it."""
    pages = Pages(controller, store, stop, certificates)
    app.router.add_get("/status", pages.status)
    app.router.add_get("/_haproxy_health_check", pages.health_check)
    app.router.add_get("/_haproxy_getconfig", pages.config)
    app.router.add_get("/_haproxy_getvhostmap", pages.vhosts)
    app.router.add_get("/_haproxy_getappmap", pages.apps)
    app.router.add_get("/_haproxy_getpids", pages.pids)
    app.router.add_get("/haproxy", pages.stats)
    for signal in ("hup", "usr1"):
        app.router.add_get(f"/_mlb_signal/{signal}", pages.look_again)
        app.router.add_post(f"/_mlb_signal/{signal}", pages.look_again)
    app.router.add_post("/fairlead/stop", pages.stop)


def add_mesh_page(app: web.Application, mesh: "MeshSide | None") -> None:
    """`GET /mesh`: our identity and whether HAProxy has it; no key."""

    async def page(_request: web.Request) -> web.Response:
        if mesh is None:
            return json_response({"mesh": False})
        return json_response({"mesh": True, **mesh.told()})

    app.router.add_get("/mesh", page)


LOOK_AGAIN_S = 10.0
_PASSWORD = re.compile(r"password \S+")


class Pages:
    def __init__(
        self, controller: Controller, store: Store, stop: Callable[[], None], certificates: Certificates | None
    ) -> None:
        self._controller = controller
        self._store = store
        self._stop = stop
        self._certificates = certificates
        self._listing = Listing()

    async def status(self, request: web.Request) -> web.Response:
        """`summary=1`: without services and splits; `service=S`: of those only S; `fresh=1`: asks HAProxy for its servers,
        else they are as last read, some seconds ago at most.
        """
        found = status_of(self._controller)
        if request.query.get("summary") != "1":
            found |= await self._services(request.query.get("service", ""), fresh=request.query.get("fresh") == "1")
        return json_response({**found, "certificates": _certificates_of(self._certificates)})

    async def _services(self, service: str, *, fresh: bool) -> dict[str, Any]:
        state = self._controller.state
        names = backends_of(state, service)
        slots = await self._controller.slots_now(names) if fresh else slots_of(state, names)
        return {"services": await self._listing.services(state, slots), "splits": splits_of(state, slots, service)}

    async def health_check(self, _request: web.Request) -> web.Response:
        """marathon-lb's: 200 while HAProxy runs."""
        if not self._controller.supervisor.alive:
            raise Unavailable("haproxy does not run")
        return _text("OK")

    async def config(self, _request: web.Request) -> web.Response:
        """Without what only hashes of passwords would tell."""
        return _text(_PASSWORD.sub("password ***", self._store.live_text()))

    async def vhosts(self, _request: web.Request) -> web.Response:
        """As marathon-lb: `shop.example backend`, with the path where there is one."""
        hosts = self._serving().maps.hosts
        return _text("".join(f"{map_keys.shown(key)} {backend}\n" for key, backend in hosts.items()))

    async def apps(self, _request: web.Request) -> web.Response:
        backends = self._controller.state.wanted.backends
        return _text("".join(f"/{b.app.strip('/')} {name}\n" for name, b in backends.items() if b.app))

    async def pids(self, _request: web.Request) -> web.Response:
        now = self._controller.supervisor.processes
        return _text("".join(f"{pid}\n" for pid in (now.worker, *now.old) if pid))

    async def stats(self, request: web.Request) -> web.Response:
        """HAProxy's statistics, always as CSV; `stats;csv;raw` with HAProxy's own names and empty slots."""
        csv = await self._controller.supervisor.show_stat(self._serving().structure)
        if "raw" in request.query_string.split(";"):
            return _text(csv)
        serving, wanted = self._serving(), self._controller.state.wanted
        backends = marathon_csv.listed(wanted, serving, self._controller.state.hostnames)
        return _text(marathon_csv.as_marathon_lb(csv, backends))

    async def look_again(self, _request: web.Request) -> web.Response:
        """In place of marathon-lb's signals: HAProxy is compared with the newest of the registry, and put right."""
        try:
            async with asyncio.timeout(LOOK_AGAIN_S):
                await self._controller.auditing.wanted()
        except TimeoutError as error:
            raise Unavailable(f"haproxy was not read within {LOOK_AGAIN_S:g} s") from error
        return _text("haproxy was read again; what differed is put right\n")

    async def stop(self, _request: web.Request) -> web.Response:
        self._stop()
        return json_response({"stopping": True}, status=202)

    def _serving(self) -> Serving:
        if self._controller.state.serving is None:
            raise Unavailable("haproxy has not been read yet")
        return self._controller.state.serving


def _text(text: str) -> web.Response:
    return web.Response(text=text, content_type="text/plain")


def status_of(controller: Controller) -> dict[str, Any]:
    """All but what there is of every service."""
    state, now = controller.state, controller.supervisor.processes
    snapshot, progress = state.snapshot, state.progress
    return {
        "applied_revision": progress.applied_revision if progress is not None else None,
        "revision": snapshot.revision if snapshot is not None else None,
        "busy": list(progress.busy) if progress is not None else [],
        "trust": str(snapshot.trust) if snapshot is not None else "unknown",
        "age_s": round(age_s(state), 1),
        "frozen": state.frozen,
        "haproxy": {
            "running": controller.supervisor.alive,
            "version": controller.supervisor.version.version if controller.supervisor.version else "",
            "can": controller.supervisor.version.capabilities() if controller.supervisor.version else {},
            "master_pid": now.master,
            "worker_pid": now.worker,
            "old_worker_pids": list(now.old),
            "generation": state.serving.structure.generation if state.serving else None,
        },
        "reloads": state.reloads,
        "reload_due": list(state.pending),
        "rollout": {"waits": controller.desk.gate.why, "others": sorted(controller.desk.gate.peers)},
        "last_error": state.last_error,
        "rails": rails_of(controller.desk),
        "rules": rules_of(state),
        "routers": routers_of(state),
        "refused": dict(sorted(state.wanted.refused.items())),
        "problems": problems(state.wanted, state.taken, state.taken_vips, state.judgement.breakers)
        if snapshot is not None
        else {},
        "unreadable": dict(sorted(snapshot.bad.items())) if snapshot is not None else {},
        "vips": list(state.serving.structure.vips) if state.serving else [],
        "spilled": {str(key): level for key, level in state.spilling.levels.items()},
        "groups": groups_of(state),
        "breakers": {str(key): b.state for key, b in sorted(state.judgement.breakers.items())},
        "taken_ports": {str(port): why for port, why in sorted(state.taken.items())},
        "canaries": canaries_of(snapshot.policies, _modes(state)) if snapshot is not None and snapshot.policies else [],
    }


def groups_of(state: State) -> Mapping[str, Any]:
    """Deployment groups: which services are served as one, and whose tasks get no new requests for the others."""
    found: dict[str, Any] = {}
    for service, group in sorted(state.wanted.groups.of.items()):
        drained = [one.task.id for one in state.wanted.groups.drained.get(group, {}).values()]
        found.setdefault(group, {"services": [], "drained": sorted(drained)})["services"].append(service)
    return found


def _modes(state: State) -> Mapping[Key, str] | None:
    """Of every port that has a backend; None before anything was decided."""
    return {b.key: b.shape.mode for b in state.wanted.backends.values()} if state.wanted.revision >= 0 else None


def rails_of(desk: Desk) -> dict[str, Any]:
    """What is served otherwise than the registry has it, and why."""
    now_s = time.monotonic()
    held = {
        service: {h.member.task.id: {"why": h.why, "for_s": round(now_s - h.since_s, 1)} for h in ruled.held.values()}
        for service, ruled in sorted(desk.rails.ruled.items())
        if ruled.held
    }
    damped = {
        service: {name: round(until - now_s, 1) for name, until in ruled.damped.items()}
        for service, ruled in sorted(desk.rails.ruled.items())
        if ruled.damped
    }
    return {"held": held, "held_down_for_s": damped, "panic": sorted(desk.panic.since_s)}


def _certificates_of(certificates: Certificates | None) -> Mapping[str, Any]:
    """`served` as HAProxy tells it, and the files and records that are not taken."""
    if certificates is None:
        return {"served": [], "problems": {}}
    served = [
        {
            "file": name,
            "from": certificates.origin(name),
            "subject": one.subject,
            "names": one.names,
            "not_after_s": one.not_after_s,
        }
        for name, one in sorted(certificates.served.items())
    ]
    return {"served": served, "problems": dict(certificates.told())}


def rules_of(state: State) -> list[Mapping[str, str]]:
    """Lines of the frontend that HAProxy has, for requests that no host or path takes, in their order."""
    rules = state.serving.structure.rules if state.serving is not None else ()
    return [{"service": rule.service, "backend": rule.backend, "conditions": told(rule)} for rule in rules]


def age_s(state: State) -> float:
    """How long ago what is served was last known to be true."""
    if state.snapshot is None or not state.frozen:
        return 0.0
    return state.snapshot.age_s + max(0.0, time.monotonic() - state.snapshot_at)
