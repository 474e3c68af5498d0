"""The agent's HTTP pages: Mesos' `/state`, `/containers` and `/files`, and our own `/fairlead/tasks`."""

import asyncio
import os
import stat
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aiohttp import web

from fairlead_core.agent.adapters.checkpoints import TaskRecord
from fairlead_core.agent.adapters.sandboxes import beneath
from fairlead_core.agent.decisions import life
from fairlead_core.agent.decisions.state_page import TaskView, frameworks_page, resources_page, used
from fairlead_core.agent.household import Card
from fairlead_core.agent.roster import Roster
from fairlead_core.agent.world import World
from fairlead_core.resources import from_mesos
from fairlead_daemon.errors import Refused
from fairlead_daemon.web import error_response, json_response

VERSION = "1.11.0"
"""Mesos' version whose interfaces these are."""
READ_MOST_BYTES = 16 * 1024 * 1024
READ_DEFAULT_BYTES = 64 * 1024
Json = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pages:
    world: World
    roster: Roster
    card: Card
    started_s: float

    def add_to(self, app: web.Application) -> None:
        for prefix in ("", "/slave(1)"):
            app.router.add_get(f"{prefix}/state", self.state)
            app.router.add_get(f"{prefix}/state.json", self.state)
        app.router.add_get("/containers", self.containers)
        app.router.add_get("/version", self.version)
        app.router.add_get("/fairlead/tasks", self.tasks)
        for action, page in (("browse", self.browse), ("read", self.read), ("download", self.download)):
            app.router.add_get(f"/files/{action}", page)

    # --- state -------------------------------------------------------------------------------------------------------

    def _views(self) -> list[TaskView]:
        running = [run.record for run in self.roster.runs.values()]
        return [_view(record) for record in (*self.roster.completed.values(), *running)]

    async def state(self, _request: web.Request) -> web.Response:
        views, card, world = self._views(), self.card, self.world
        total = from_mesos(card.resources)
        frameworks = frameworks_page(views)
        page: Json = {
            "id": world.meta.agent_id,
            "pid": f"slave(1)@{card.ip}:{world.port}",
            "hostname": card.hostname,
            "version": VERSION,
            "start_time": self.started_s,
            "resources": resources_page(total),
            "used_resources": resources_page(used(views)),
            "attributes": dict(world.settings.attributes),
            "domain": _domain(card),
            "flags": {"work_dir": str(world.settings.folder()), "hostname": card.hostname, "port": str(world.port)},
            "frameworks": [f for f in frameworks if f["executors"]],
            "completed_frameworks": [f for f in frameworks if not f["executors"]],
            "fairlead": {
                "boot_id": world.meta.boot_id,
                "epoch": world.meta.epoch,
                "keeper": {"pid": world.keepers.pid()},
                "resolving": {"active": not world.resolver.why_not, "why_not": world.resolver.why_not},
            },
        }
        return json_response(page)

    async def version(self, _request: web.Request) -> web.Response:
        return json_response({"version": VERSION})

    async def containers(self, _request: web.Request) -> web.Response:
        running = [v for v in self._views() if not v.over]
        return json_response(
            [
                {
                    "container_id": f"{v.framework_id}/{v.executor_id or v.id}",
                    "executor_id": v.executor_id or v.id,
                    "framework_id": v.framework_id,
                    "source": v.id,
                    "status": (v.statuses[-1] if v.statuses else {}).get("container_status", {}),
                }
                for v in running
            ]
        )

    async def tasks(self, _request: web.Request) -> web.Response:
        """What the agent itself knows, for `fairlead explain` and `fairlead logs`."""
        runs = [_task(run.record) for run in self.roster.runs.values()]
        over = [_task(record) for record in self.roster.completed.values()]
        return json_response({"tasks": runs, "completed": over, "now": time.time()})

    # --- files -------------------------------------------------------------------------------------------------------

    def _relative(self, request: web.Request) -> str:
        """`path` as the agent names a sandbox (`directory` in /state), or relative to the sandboxes."""
        path = request.query.get("path", "")
        root = str(self.world.sandboxes.root)
        if path.startswith("/") and path != root and not path.startswith(f"{root}/"):
            raise Refused(f"path {path!r} is not in a sandbox")
        if not path or "\0" in path:
            raise Refused("query parameter `path` is missing")
        return path.removeprefix(root).strip("/")

    async def browse(self, request: web.Request) -> web.Response:
        relative = self._relative(request)
        return await _answer(lambda: _listing(self.world.sandboxes.root, relative))

    async def read(self, request: web.Request) -> web.Response:
        relative = self._relative(request)
        offset = _number(request, "offset", -1)
        length = min(_number(request, "length", READ_DEFAULT_BYTES), READ_MOST_BYTES)
        return await _answer(lambda: _piece(self.world.sandboxes.root, relative, offset, length))

    async def download(self, request: web.Request) -> web.StreamResponse:
        relative = self._relative(request)
        try:
            page = await asyncio.to_thread(lambda: _whole(self.world.sandboxes.root, relative))
        except OSError as error:
            return _not_readable(error)
        return web.Response(body=page, content_type="application/octet-stream")


def _view(record: TaskRecord) -> TaskView:
    pending = record.stream.pending
    return TaskView(
        framework=record.framework,
        task=record.task,
        statuses=pending or ((record.stream.latest,) if record.stream.latest else ()),
        sandbox=record.sandbox,
        executor_id=record.executor_id,
        over=record.life.phase == life.Phase.ENDED,
    )


def _task(record: TaskRecord) -> Json:
    return {
        "id": record.task_id,
        "framework_id": record.framework_id,
        "name": record.task.get("name", ""),
        "phase": record.life.phase,
        "healthy": record.life.healthy,
        "started_at": record.life.started_s,
        "killing": record.life.killing,
        "sandbox": record.sandbox,
        "latest": record.stream.latest,
        "unacknowledged": len(record.stream.pending),
    }


def _domain(card: Card) -> Json:
    if not (card.zone or card.region):
        return {}
    return {"fault_domain": {"region": {"name": card.region}, "zone": {"name": card.zone}}}


def _number(request: web.Request, name: str, default: int) -> int:
    text = request.query.get(name, "")
    try:
        return int(text) if text else default
    except ValueError as error:
        raise Refused(f"query parameter `{name}`: {text!r} is no number") from error


async def _answer(work: Callable[[], object]) -> web.Response:
    try:
        return json_response(await asyncio.to_thread(work))
    except OSError as error:
        return _not_readable(error)


def _not_readable(error: OSError) -> web.Response:
    """Links are not followed: to a reader of sandboxes they are not there."""
    return error_response(404, f"no such file in a sandbox: {error.strerror or error}")


def _listing(root: Path, relative: str) -> Sequence[Json]:
    with beneath(root, relative) as folder:
        names = sorted(os.listdir(folder))  # noqa: PTH208  # a descriptor, not a path
        entries = [(name, os.stat(name, dir_fd=folder, follow_symlinks=False)) for name in names]
    return [
        {
            "path": str(root / relative / name),
            "nlink": entry.st_nlink,
            "size": entry.st_size,
            "mtime": entry.st_mtime,
            "mode": stat.filemode(entry.st_mode),
            "uid": str(entry.st_uid),
            "gid": str(entry.st_gid),
        }
        for name, entry in entries
    ]


@contextmanager
def _regular(root: Path, relative: str) -> Iterator[int]:
    """No pipes, no devices: reading those would wait, or worse."""
    with beneath(root, relative) as handle:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise IsADirectoryError(f"{relative} is no regular file")
        yield handle


def _piece(root: Path, relative: str, offset: int, length: int) -> Json:
    """Mesos' answer; offset -1 asks for the size alone. Bytes that are no UTF-8 are replaced."""
    with _regular(root, relative) as handle:
        if offset < 0:
            return {"data": "", "offset": os.fstat(handle).st_size}
        data = os.pread(handle, max(0, length), offset)
    return {"data": data.decode("utf-8", "replace"), "offset": offset}


def _whole(root: Path, relative: str) -> bytes:
    with _regular(root, relative) as handle:
        return os.pread(handle, READ_MOST_BYTES, 0)
