"""What is durable, and where in the registry: app versions, deployments, each app's instances, the framework's id.

One node an app version (`<escaped id>@<version>`; the newest is the app, one that says "deleted" is a tombstone
until the last instance has gone), one node an app's instances, one a deployment; compressed above 4 KiB. What
belongs together changes in one commit.
"""

import asyncio
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from fairlead_core.services.decisions import naming, rules
from fairlead_core.services.decisions.app import App
from fairlead_core.services.decisions.backoff import Delay
from fairlead_core.services.decisions.deployments import Deployment
from fairlead_core.services.decisions.instances import Instance
from fairlead_daemon.errors import Conflict, Refused, Unavailable
from fairlead_daemon.logs import Log
from fairlead_discovery import paths
from fairlead_discovery.records import Route, decode, encode
from fairlead_discovery.registry import Change, Create, Delete, Guard, Put, Registry

log = Log("services.store")
COMPRESS_BYTES = 4096
UNPACKED_LIMIT_BYTES = 64 * 1024 * 1024
READS_AT_ONCE = 64
_APP_KEYS = {f.encode_name for f in msgspec.structs.fields(App)}


class Doubtful(Unavailable):
    """A commit was perhaps done, or something else changed what it stood on: load again before anything else."""


class Failure(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    """Marathon's lastTaskFailure, without the app's id."""

    task_id: str
    instance_id: str
    state: str
    message: str
    host: str
    slave_id: str
    timestamp: str
    version: str


class AppRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is recorded of an app beside its versions. `halted`: the configuration whose rollout was stopped by force."""

    app: str
    instances: tuple[Instance, ...] = ()
    delay: Delay = Delay()
    last_failure: Failure | None = None
    halted: str = ""


class FrameworkRecord(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """All of it. `apps` maps ids to the newest version, None for a tombstone; `versions` are sorted, oldest first."""

    framework_id: str = ""
    apps: Mapping[str, App | None] = field(default_factory=dict)
    versions: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    records: Mapping[str, AppRecord] = field(default_factory=dict)
    deployments: tuple[Deployment, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Writes:
    """Changes to be made at once. `remove` holds (app id, version) of nodes to go; a route of None goes too."""

    apps: Sequence[App] = ()
    tombstones: Sequence[tuple[str, str]] = ()
    remove: Sequence[tuple[str, str]] = ()
    routes: Mapping[str, Route | None] = field(default_factory=dict)
    started: Sequence[Deployment] = ()
    ended: Sequence[str] = ()
    forgotten: Sequence[str] = ()
    """App ids whose record of instances goes."""


class Store:
    """Writes are refused (Conflict) once another leader has been elected. Raises the registry's errors."""

    def __init__(self, registry: Registry, guard: Guard) -> None:
        self._registry = registry
        self._guard = guard

    async def load(self) -> Stored:
        """A node that cannot be read, or whose name is none, is named in the log and left alone."""
        versions = _versions(await self._registry.tree.names(paths.APPS))
        newest = {app: found[-1] for app, found in versions.items()}
        definitions = await self._read_all([_version_path(app, version) for app, version in newest.items()])
        apps: dict[str, App | None] = {}
        for app, version in newest.items():
            data = definitions.get(_version_path(app, version))
            if data is not None:
                try:
                    apps[app] = _definition_of(app, data, place=_version_path(app, version))
                except Refused as error:
                    log.warning("app unreadable", app=app, why=str(error))
        return Stored(
            framework_id=await self._framework_id(),
            apps=apps,
            versions={app: versions[app] for app in apps},
            records={r.app: r for r in await self._all(paths.INSTANCES, AppRecord)},
            deployments=tuple(await self._all(paths.DEPLOYMENTS, Deployment)),
        )

    async def _framework_id(self) -> str:
        node = await self._registry.read(paths.SERVICES_FRAMEWORK)
        return (
            _decode(node.data, FrameworkRecord, paths.SERVICES_FRAMEWORK).id if node is not None and node.data else ""
        )

    async def _all(self, folder: str, kind: type[msgspec.Struct]) -> list[Any]:
        found = []
        names = await self._registry.tree.names(folder)
        for path, data in (await self._read_all([f"{folder}/{name}" for name in names])).items():
            try:
                found.append(_decode(data, kind, path))
            except Refused as error:
                log.warning("record unreadable", why=str(error))
        return found

    async def _read_all(self, wanted: Sequence[str]) -> dict[str, bytes]:
        out: dict[str, bytes] = {}
        for start in range(0, len(wanted), READS_AT_ONCE):
            part = wanted[start : start + READS_AT_ONCE]
            nodes = await asyncio.gather(*(self._registry.read(path) for path in part))
            out |= {path: node.data for path, node in zip(part, nodes, strict=True) if node is not None}
        return out

    async def version(self, app: str, version: str) -> App | None:
        """None when there is no such version, or it is a tombstone."""
        path = _version_path(app, version)
        node = await self._registry.read(path)
        return _definition_of(app, node.data, place=path) if node is not None else None

    async def route(self, service: str) -> Route | None:
        """As it stands; None also when it cannot be read."""
        node = await self._registry.read(paths.route(service))
        try:
            return decode(Route, node.data, place=paths.route(service)) if node is not None else None
        except Refused:
            return None

    async def save_framework(self, framework_id: str, name: str) -> None:
        record = FrameworkRecord(id=framework_id, name=name)
        await self._registry.write(paths.SERVICES_FRAMEWORK, msgspec.json.encode(record), guard=self._guard)

    async def record(self, record: AppRecord) -> None:
        """One app's instances, whole."""
        path = paths.below(paths.INSTANCES, record.app)
        await self._registry.write(path, pack(msgspec.json.encode(record)), guard=self._guard)

    async def change(self, writes: Writes) -> None:
        """All of it or nothing. Raises Doubtful when the state in memory may not be the registry's any more."""
        try:
            await self._registry.commit(list(_changes(writes)), guard=self._guard)
        except (Unavailable, Conflict) as error:
            raise Doubtful(str(error)) from error


def _changes(writes: Writes) -> Iterable[Change]:
    for app in writes.apps:
        yield Create(_version_path(app.id, app.version), pack(msgspec.json.encode(app)))
    for app_id, version in writes.tombstones:
        yield Create(_version_path(app_id, version), msgspec.json.encode({"deleted": True}))
    for app_id, version in writes.remove:
        yield Delete(_version_path(app_id, version), missing_ok=True)
    for service, route in writes.routes.items():
        yield (
            Put(paths.route(service), encode(route))
            if route is not None
            else Delete(paths.route(service), missing_ok=True)
        )
    for deployment in writes.started:
        yield Create(paths.below(paths.DEPLOYMENTS, deployment.id), pack(msgspec.json.encode(deployment)))
    for deployment_id in writes.ended:
        yield Delete(paths.below(paths.DEPLOYMENTS, deployment_id), missing_ok=True)
    for app_id in writes.forgotten:
        yield Delete(paths.below(paths.INSTANCES, app_id), missing_ok=True)


def _version_path(app: str, version: str) -> str:
    return paths.below(paths.APPS, f"{app}@{version}")


def _versions(names: Iterable[str]) -> dict[str, tuple[str, ...]]:
    found: dict[str, list[str]] = {}
    for name in names:
        app, _, version = paths.unescape(name).rpartition("@")
        if why := _name_problem(name, app, version):
            log.warning("record left alone", path=f"{paths.APPS}/{name}", why=why)
            continue
        found.setdefault(app, []).append(version)
    return {app: tuple(sorted(versions)) for app, versions in found.items()}


def _name_problem(name: str, app: str, version: str) -> str:
    """Why a node's name is not `<escaped app id>@<version>`: such an app could be neither shown nor removed."""
    problem = next(rules.id_problems(app, "/id"), None)
    if problem is not None:
        return f"{app!r} is no app id: {problem.error}"
    if not naming.is_version(version):
        return f"{version!r} is no version"
    return "" if name == paths.escape(f"{app}@{version}") else "the name is not escaped as we do it"


def _definition_of(app_id: str, data: bytes, *, place: str) -> App | None:
    """As parse_definition; Refused too when it is another app's."""
    app = parse_definition(data, place=place)
    if app is not None and app.id != app_id:
        raise Refused(f"{place}: it holds the definition of {app.id}")
    return app


def pack(data: bytes) -> bytes:
    """JSON as it is, or compressed when it is long; the first byte tells."""
    return zlib.compress(data, 1) if len(data) > COMPRESS_BYTES else data


def unpack(data: bytes, *, place: str) -> bytes:
    """Raises Refused naming the place."""
    if data[:1] in {b"{", b""}:
        return data
    unpacker = zlib.decompressobj()
    try:
        out = unpacker.decompress(data, UNPACKED_LIMIT_BYTES)
    except zlib.error as error:
        raise Refused(f"{place}: {error}") from error
    if not unpacker.eof:
        raise Refused(f"{place}: more than {UNPACKED_LIMIT_BYTES} bytes, or cut off")
    return out


def parse_definition(data: bytes, *, place: str) -> App | None:
    """None for a tombstone. Keys of a newer version of fairlead are ignored. Raises Refused naming the place."""
    raw = _decode(data, dict[str, Any], place)
    if raw.get("deleted"):
        return None
    try:
        return msgspec.convert({k: v for k, v in raw.items() if k in _APP_KEYS}, App)
    except msgspec.ValidationError as error:
        raise Refused(f"{place}: {error}") from error


def _decode(data: bytes, kind: Any, place: str) -> Any:
    try:
        return msgspec.json.decode(unpack(data, place=place), type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Refused(f"{place}: {error}") from error
