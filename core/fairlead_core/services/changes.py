"""What clients ask for, as one commit each: new versions, a deployment, routes; then the fleet in memory.

Each method runs alone (`Term.perform`). Raises Invalid, Locked, Missing and the registry's errors; after Unavailable
the outcome is unknown, and the next start reads what became of it.
"""

import time
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from fairlead_core.services.adapters.store import Writes
from fairlead_core.services.decisions import naming
from fairlead_core.services.decisions.app import App, VersionInfo, same_config
from fairlead_core.services.decisions.deployments import LOCKED, Deployment, change, locking
from fairlead_core.services.decisions.notices import notice
from fairlead_core.services.decisions.parsing import House, parse
from fairlead_core.services.decisions.problems import Invalid, Problem, raise_if_any
from fairlead_core.services.decisions.routing import group_of, route_of, taken_ports, with_service_ports
from fairlead_core.services.fleet import AppState
from fairlead_core.services.settings import port_rules
from fairlead_core.services.term import Term
from fairlead_daemon.errors import Conflict, Refused, Unavailable
from fairlead_daemon.logs import Log
from fairlead_discovery import paths

log = Log("services.changes")


class Locked(Conflict):
    """Another deployment holds the app: 409 with its id."""

    def __init__(self, holders: Sequence[Deployment]) -> None:
        self.holders = tuple(holders)
        super().__init__(LOCKED)


class Exists(Conflict):
    """409: there is such an app already."""


class Missing(Refused):
    """404: no such app, version, deployment or task."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What one app is to become. `config_version` keeps running tasks of that version ("" lets `same_config` say)."""

    id: str
    app: App | None
    config_version: str = ""


class Changes:
    """One term's changes."""

    def __init__(self, term: Term, *, largest_ttl_s: int) -> None:
        self._term = term
        self._fleet = term.fleet
        self._settings = term.settings
        self._kept = max(1, term.settings.versions_kept - 1)
        self._house = House(role=term.settings.role, largest_ttl_s=largest_ttl_s)

    # --- apps

    async def create(self, raw: Any, *, force: bool) -> tuple[App, Deployment]:
        """Raises Exists when it does."""
        app = parse(raw, house=self._house)
        if self._fleet.get(app.id) is not None:
            raise Exists(f"An app with id [{app.id}] already exists.")
        deployment = await self._deploy([Target(id=app.id, app=app)], force=force)
        return self.app(app.id), deployment

    async def update(self, app_id: str, raw: Any, *, partial: bool, force: bool) -> tuple[bool, Deployment]:
        """Creates or changes; True when it was created."""
        target = await self._target(raw, app_id=app_id, partial=partial)
        created = self._fleet.get(target.id) is None
        return created, await self._deploy([target], force=force)

    async def update_many(self, raws: Sequence[Any], *, partial: bool, force: bool) -> Deployment:
        targets = []
        for position, raw in enumerate(raws):
            if not isinstance(raw, Mapping) or not isinstance(raw.get("id"), str):
                raise Invalid([Problem(path=f"({position})/id", error="error.path.missing", kind="json")])
            try:
                targets.append(await self._target(raw, app_id=naming.absolute(raw["id"]), partial=partial))
            except Invalid as error:
                raise Invalid(
                    [Problem(path=f"({position}){p.path}", error=p.error, kind=p.kind) for p in error.problems]
                ) from error
        return await self._deploy(targets, force=force)

    async def remove(self, app_id: str, *, force: bool) -> Deployment:
        self.app(app_id)
        return await self._deploy([Target(id=app_id, app=None)], force=force)

    async def restart(self, app_id: str, *, force: bool) -> Deployment:
        """The same definition as a new configuration: every instance is replaced."""
        return await self._deploy([Target(id=app_id, app=self.app(app_id), config_version="new")], force=force)

    async def scale(self, wanted: Mapping[str, int], *, force: bool) -> Deployment:
        """To so many instances each."""
        targets = [
            Target(id=app_id, app=msgspec.structs.replace(self.app(app_id), instances=max(0, count)))
            for app_id, count in wanted.items()
        ]
        return await self._deploy(targets, force=force)

    async def kill(self, task_ids: Iterable[str], *, scale: bool, force: bool) -> Deployment | None:
        """Ends these tasks; with `scale` there will be as many fewer."""
        self._believe()
        by_app: dict[str, list[str]] = {}
        for task_id in task_ids:
            found = self._fleet.find(task_id)
            if found is not None and not found[1].going:
                by_app.setdefault(found[0].id, []).append(task_id)
        deployment = None
        if scale and by_app:
            counts = {a: self.app(a).instances - len(t) for a, t in by_app.items() if self._fleet.get(a)}
            deployment = await self.scale(counts, force=force)
        for task_id in (t for tasks in by_app.values() for t in tasks):
            self._term.kill(task_id, "scale" if scale else "kill")
        return deployment

    async def cancel(self, deployment_id: str, *, force: bool) -> Deployment | None:
        """Back to what was before; with `force` it only stops where it is (None)."""
        self._believe()
        deployment = self._fleet.deployments.get(deployment_id)
        if deployment is None:
            raise Missing(f"DeploymentPlan {deployment_id} does not exist")
        if force:
            await self._term.store.change(Writes(ended=[deployment_id]))
            self._drop([deployment])
            for app_id in deployment.apps:
                self._halt(app_id)
            return None
        targets = [await self._back(app_id, deployment) for app_id in deployment.apps]
        return await self._deploy(targets, force=True)

    def _believe(self) -> None:
        if self._term.held:
            raise Unavailable(f"nothing may be changed: {self._term.held}")

    def _drop(self, deployments: Iterable[Deployment]) -> None:
        """Of deployments that came to no end of their own."""
        for one in deployments:
            self._fleet.deployments.pop(one.id, None)
            self._term.events.publish(notice("deployment_failed", naming.timestamp(time.time()), id=one.id))

    def _halt(self, app_id: str) -> None:
        state = self._fleet.get(app_id)
        if state is not None and state.app is not None:
            state.halted = state.app.config_version
            self._term.delivery.dirty(app_id)
            self._term.mark(app_id)

    async def _back(self, app_id: str, deployment: Deployment) -> Target:
        original = deployment.changes[app_id].original
        if not original:
            return Target(id=app_id, app=None)
        app = await self._term.store.version(app_id, original)
        if app is None:
            raise Missing(f"App '{app_id}' does not exist in version {original}")
        return Target(id=app_id, app=app, config_version=app.config_version)

    def app(self, app_id: str) -> App:
        state = self._fleet.get(app_id)
        if state is None or state.app is None:
            raise Missing(f"App '{app_id}' does not exist")
        return state.app

    async def version(self, app_id: str, version: str) -> App:
        """Also of the past."""
        if self.app(app_id).version == version:
            return self.app(app_id)
        app = await self._term.store.version(app_id, version)
        if app is None:
            raise Missing(f"App '{app_id}' does not exist in version {version}")
        return app

    async def restore_routes(self) -> None:
        """Routes that are missing, or were written by another version of fairlead, are written anew."""
        wanted = {self._key(s.id): s.app for s in self._fleet.defined() if s.app is not None}
        routes = {}
        for service, app in wanted.items():
            try:
                route = route_of(app, service)
            except Invalid as error:  # it was taken by an earlier version: what it has stays
                log.warning("labels of a running app are not taken any more", app=app.id, why=str(error))
                continue
            if route is not None and await self._term.store.route(service) != route:
                routes[service] = route
        if routes:
            log.info("routes restored", services=",".join(routes))
            await self._term.store.change(Writes(routes=routes))

    # --- one commit

    async def _target(self, raw: Any, *, app_id: str, partial: bool) -> Target:
        state = self._fleet.get(app_id)
        base = state.app if state is not None else None
        if isinstance(raw, Mapping):
            given = raw.get("id")
            if isinstance(given, str) and naming.absolute(given) != app_id:
                raise Invalid([Problem(path="/id", error=f"must be {app_id}: an app's id cannot be changed")])
            raw = {**raw, "id": app_id}
            old = raw.get("version")
            if base is not None and isinstance(old, str) and set(raw) <= {"id", "version"}:
                return Target(id=app_id, app=await self.version(app_id, old))
        return Target(id=app_id, app=parse(raw, app_id=app_id, base=base if partial else None, house=self._house))

    async def _deploy(self, targets: Sequence[Target], *, force: bool) -> Deployment:
        self._believe()
        holders = locking(self._fleet.deployments.values(), [t.id for t in targets])
        if holders and not force:
            raise Locked(holders)
        states = {t.id: self._fleet.apps.get(t.id) for t in targets}
        last = max((s.versions[-1] for s in states.values() if s is not None and s.versions), default="")
        version = naming.next_version(time.time(), after=last)
        apps = self._finished(targets, version)
        deployment = Deployment(
            id=str(uuid.uuid4()),
            version=version,
            changes={t.id: change(s.app if (s := states[t.id]) else None, apps.get(t.id)) for t in targets},
        )
        await self._term.store.change(
            Writes(
                apps=tuple(apps.values()),
                tombstones=[(t.id, version) for t in targets if t.app is None],
                remove=[(s.id, v) for s in states.values() if s for v in s.versions[: -self._kept]],
                routes={self._key(app_id): route_of(app, self._key(app_id)) for app_id, app in apps.items()},
                started=[deployment],
                ended=[d.id for d in holders],
            )
        )
        self._adopt(targets, apps, deployment, holders)
        return deployment

    def _finished(self, targets: Sequence[Target], version: str) -> dict[str, App]:
        """Stamped, with service ports of their own and checked labels."""
        ids = {t.id for t in targets}
        others = [o.app for o in self._fleet.defined() if o.id not in ids and o.app is not None]
        taken = {port: other for other in others for port in taken_ports(other)}
        ports = port_rules(self._settings)
        apps: dict[str, App] = {}
        for target in targets:
            if target.app is None:
                continue
            state = self._fleet.get(target.id)
            held = taken_ports(state.app) if state is not None and state.app is not None else {}
            app = with_service_ports(target.app, ports, taken=_of_others(taken, target.app), held=held)
            taken |= dict.fromkeys(taken_ports(app), app)
            apps[target.id] = _stamped(app, state.app if state else None, version, target.config_version)
        raise_if_any(_dependency_problems({**{s.id: s.app for s in self._fleet.defined() if s.app}, **apps}, apps))
        return apps

    def _key(self, app_id: str) -> str:
        return paths.service_key(self._settings.framework, app_id)

    def _adopt(
        self, targets: Sequence[Target], apps: Mapping[str, App], deployment: Deployment, holders: Sequence[Deployment]
    ) -> None:
        self._drop(holders)
        self._fleet.deployments[deployment.id] = deployment
        for target in targets:
            state = self._fleet.apps.setdefault(target.id, AppState(id=target.id))
            state.app, state.deleted, state.fault = apps.get(target.id), target.app is None, ""
            state.versions = (*state.versions[-self._kept :], deployment.version)
            if state.app is not None and state.halted and deployment.changes[target.id].action != "ScaleApplication":
                state.halted = ""
                self._term.delivery.dirty(target.id)
            self._fleet.decide(target.id, now_s=time.time())
        log.info("deployment", id=deployment.id, apps=",".join(deployment.apps))
        self._term.mark(*deployment.apps)


def _of_others(taken: Mapping[int, App], app: App) -> Mapping[int, str]:
    """Service ports that are not for this app: those of its own group are, for the other colour's are its own."""
    group = group_of(app)
    return {port: owner.id for port, owner in taken.items() if not group or group_of(owner) != group}


def _stamped(app: App, original: App | None, version: str, config_version: str) -> App:
    scaled = config = version
    if original is not None and config_version != "new":
        kept = config_version or (original.config_version if same_config(original, app) else "")
        config = kept or version
        if original.instances == app.instances and original.version_info is not None:
            scaled = original.version_info.last_scaling_at
    info = VersionInfo(last_scaling_at=scaled, last_config_change_at=config)
    return msgspec.structs.replace(app, version=version, version_info=info)


def _dependency_problems(apps: Mapping[str, App], changed: Mapping[str, App]) -> Iterable[Problem]:
    for app_id in changed:
        trail = _cycle(app_id, apps)
        if trail:
            yield Problem(path="/dependencies", error=f"is a circle: {' -> '.join(trail)}")


def _cycle(app_id: str, apps: Mapping[str, App]) -> tuple[str, ...]:
    """The way from an app back to itself, () when there is none."""
    came_from: dict[str, str] = {}
    open_ids = [app_id]
    while open_ids:
        one = open_ids.pop()
        for following in apps[one].dependencies if one in apps else ():
            if following == app_id:
                trail = [app_id, one]
                while trail[-1] != app_id:
                    trail.append(came_from[trail[-1]])
                return tuple(reversed(trail))
            if following not in came_from:
                came_from[following] = one
                open_ids.append(following)
    return ()
