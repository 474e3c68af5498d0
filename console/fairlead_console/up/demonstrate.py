"""`--demo`: copies the scripts to where tasks can read them, and deploys what is not deployed yet."""

import asyncio
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import aiohttp

from fairlead_console import demo
from fairlead_console.demo import brokers
from fairlead_console.up import demonstrate_messages
from fairlead_console.up.screen import Screen
from fairlead_daemon.client import call, make_session
from fairlead_daemon.errors import FairleadError, Refused, Unavailable

DEPLOYED_S = 60.0
ANSWERED_S = 20.0
POLL_S = 0.1
NO_STATUS = -1
TOLD = ("cmd", "env", "labels")
"""What makes a demo app another one."""


async def deploy(addresses: Mapping[str, Any], screen: Screen, *, with_brokers: str = "off") -> bool:
    """True when both apps run and answer; says why not otherwise. Never ends `up`. `with_brokers` is the setting."""
    scripts = _copy_scripts(Path(addresses["data_dir"]) / "demo")
    no_messages = demonstrate_messages.why_not(with_brokers)
    async with make_session(Path(addresses["token_file"])) as session:
        try:
            web = await _ensure(session, addresses["services"], demo.web(scripts))
            port = int(web["portDefinitions"][0]["port"])
            await _ensure(session, addresses["services"], demo.shop(scripts, web_port=port, dns=addresses["dns"][0]))
            if not no_messages:
                await _send_messages(session, addresses, scripts)
            for app_id in (demo.WEB, demo.SHOP):
                await _running(session, addresses["services"], app_id)
            screen.step("demo", f"{demo.WEB} and {demo.SHOP} run and are healthy")
            await _answers(session, addresses)
        except FairleadError as error:
            screen.step("demo", str(error), style="bad")
            return False
    if addresses["lb_http"]:
        screen.step("demo", f"{demo.WEB_HOST} and {demo.SHOP_HOST} answer through HAProxy")
    if no_messages:
        screen.step("messages", no_messages, style="note")
    return True


async def _send_messages(session: aiohttp.ClientSession, addresses: Mapping[str, Any], scripts: Path) -> None:
    """Brokers and their apps start while the rest of the demo is waited for."""
    demonstrate_messages.copy_library(scripts / "lib")
    for app in brokers.apps(scripts, addresses["dns_http"]):
        await _ensure(session, addresses["services"], app)
    await demonstrate_messages.hand_over(addresses)


def _copy_scripts(target: Path) -> Path:
    """The package may lie in someone's home, where tasks cannot read."""
    target.mkdir(mode=0o755, parents=True, exist_ok=True)
    target.chmod(0o755)
    for name in (*demo.SCRIPTS, *brokers.SCRIPTS):
        shutil.copyfile(demo.FOLDER / name, target / name)
        (target / name).chmod(0o644)
    return target


async def _ensure(session: aiohttp.ClientSession, services: str, app: Mapping[str, Any]) -> Mapping[str, Any]:
    """The app as the scheduler has it; deployed now when it is not there, or is an older demo's. Scaled ones stay so."""
    url = f"{services}/v2/apps{app['id']}"
    try:
        there = dict((await call(session, "GET", url))["app"])
    except Refused:  # 404
        return dict(await call(session, "POST", f"{services}/v2/apps", body=app))
    changed = {key: app[key] for key in TOLD if app.get(key, {}) != there.get(key, {})}
    if changed:
        await call(session, "PUT", f"{url}?force=true", body=changed)
    return there


async def _running(session: aiohttp.ClientSession, services: str, app_id: str) -> None:
    """Returns when every instance is healthy. Raises Unavailable saying how far it came."""
    app: Mapping[str, Any] = {}
    try:
        async with asyncio.timeout(DEPLOYED_S):
            while not app or app["tasksHealthy"] < app["instances"]:
                await asyncio.sleep(POLL_S if app else 0)
                app = (await call(session, "GET", f"{services}/v2/apps{app_id}"))["app"]
    except TimeoutError as error:
        healthy = f"{app['tasksHealthy']} of {app['instances']}" if app else "none"
        raise Unavailable(
            f"{app_id}: {healthy} instances healthy after {DEPLOYED_S:.0f} s; see `fairlead explain {app_id}`"
        ) from error


async def _answers(session: aiohttp.ClientSession, addresses: Mapping[str, Any]) -> None:
    if not addresses["lb_http"]:
        return
    for host in (demo.WEB_HOST, demo.SHOP_HOST):
        status = 0
        try:
            async with asyncio.timeout(ANSWERED_S):
                while status != 200:
                    await asyncio.sleep(POLL_S if status else 0)
                    status = await _status(session, addresses["lb_http"], host)
        except TimeoutError as error:
            raise Unavailable(f"{host} through {addresses['lb_http']}: status {status}") from error


async def _status(session: aiohttp.ClientSession, url: str, host: str) -> int:
    try:
        async with asyncio.timeout(5), session.get(url, headers={"Host": host}) as response:
            return response.status
    except (OSError, aiohttp.ClientError, TimeoutError):
        return NO_STATUS
