"""The real service scheduler in this process, on the memory registry, against a stub of the master."""

import asyncio
import itertools
import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import aiohttp

from fairlead_core.services.daemon import run
from fairlead_core.services.settings import ServicesSettings
from fairlead_daemon.logs import Log
from fairlead_daemon.main import Context
from harness.ports import free_port
from harness.stub_mesos import StubMesos
from harness.waiting import eventually

_numbers = itertools.count(1)
APP = {
    "id": "/shop/web",
    "cmd": "python3 -m http.server $PORT0",
    "cpus": 0.1,
    "mem": 64,
    "instances": 2,
    "backoffSeconds": 0,
    "portDefinitions": [{"port": 0, "name": "http"}],
    "healthChecks": [{"protocol": "MESOS_HTTP", "path": "/", "portIndex": 0}],
}


class Services:
    """One scheduler process: started, killed, started again on the same registry."""

    def __init__(self, mesos: StubMesos, folder: Path, **settings: Any) -> None:
        self.settings = ServicesSettings(
            registry=f"memory:services-{next(_numbers)}",
            data_dir=str(folder),
            port=free_port(),
            token="off",
            **{
                "master": mesos.address,
                "retry_s": 0.2,
                "kill_retry_s": 0.3,
                "settle_s": 0.05,
                "service_ports": "10100-10109",
                **settings,
            },
        )
        self.session = aiohttp.ClientSession()
        self.task: asyncio.Task[None] | None = None
        self.context = Context(name="services", log=Log("services"))

    async def start(self) -> "Services":
        self.context = Context(name="services", log=Log("services"))
        self.task = asyncio.create_task(run(self.settings, self.context))
        await self.ready()
        return self

    async def ready(self) -> None:
        async def probe() -> bool:
            if self.task is not None and self.task.done():
                self.task.result()
            return (await self.call("GET", "/ready"))[0] == 200

        await eventually("services is ready", probe)

    async def stop(self) -> None:
        """Ends it, by signal if it still runs."""
        if self.task is not None:
            self.context.stop.set()
            with suppress(BaseExceptionGroup, asyncio.CancelledError):
                await self.task
            self.task = None

    async def call(self, method: str, path: str, body: object = None, **headers: str) -> tuple[int, Any]:
        data = None if body is None else json.dumps(body)
        given = {"Content-Type": "application/json", **headers} if data is not None else headers
        url = f"http://127.0.0.1:{self.settings.port}{path}"
        try:
            async with asyncio.timeout(5), self.session.request(method, url, data=data, headers=given) as answer:
                raw = await answer.read()
        except aiohttp.ClientError as error:
            raise OSError(str(error)) from error
        try:
            return answer.status, json.loads(raw) if raw else None
        except ValueError:
            return answer.status, raw.decode()

    async def get(self, path: str) -> Any:
        status, answer = await self.call("GET", path)
        assert status == 200, answer
        return answer

    async def app(self, app_id: str = "/shop/web") -> dict[str, Any]:
        return dict((await self.get(f"/v2/apps{app_id}"))["app"])

    async def settled(self, count: int, app_id: str = "/shop/web") -> dict[str, Any]:
        """The app, once no deployment runs and `count` instances are healthy."""

        async def probe() -> dict[str, Any] | None:
            app = await self.app(app_id)
            deployments = await self.get("/v2/deployments")
            assert not deployments, deployments
            healthy = app["tasksHealthy"] if app["healthChecks"] else app["tasksRunning"]
            assert (count, count) == (app["tasksRunning"], healthy), app
            assert count == len(app["tasks"]), app
            return app

        found = await eventually(f"{count} instances of {app_id}", probe)
        assert found is not None
        return found


async def deploy(services: Services, count: int = 2, **changes: Any) -> dict[str, Any]:
    """APP with changes, created and settled."""
    status, answer = await services.call("POST", "/v2/apps", {**APP, "instances": count, **changes})
    assert status == 201, answer
    return await services.settled(count, changes.get("id", "/shop/web"))


def ids(app: dict[str, Any]) -> set[str]:
    return {t["id"] for t in app["tasks"]}
