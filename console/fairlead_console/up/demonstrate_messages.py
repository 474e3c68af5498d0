"""The messages of `--demo`: brokers, their topology and the apps at its two ends; or why there are none."""

import asyncio
import shutil
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import aiohttp

from fairlead_console.demo import brokers
from fairlead_console.up.screen import Screen
from fairlead_daemon.client import make_session
from fairlead_daemon.errors import FairleadError, Unavailable
from fairlead_messaging import keeping

ARRIVED_S = 60.0
POLL_S = 0.3
SLOW_MS = 1000
HOW = "make up ARGS=--with-rabbitmq installs it; or apt-get install rabbitmq-server, then start again"


def why_not(setting: str) -> str:
    """Why the demo has no messages, "" when it has."""
    if setting == "off":
        return "demo_brokers is off"
    return "" if brokers.SERVER.exists() else f"RabbitMQ is not installed; {HOW}"


def copy_library(target: Path) -> None:
    """What the apps import, to where tasks' users can read it."""
    for name in brokers.PACKAGES:
        spec = find_spec(name)
        assert spec is not None, "it is among fairlead's own dependencies"
        assert spec.submodule_search_locations is not None, "packages all of them"
        source = Path(next(iter(spec.submodule_search_locations)))
        shutil.copytree(
            source, target / name, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"),
            copy_function=shutil.copyfile,
        )  # fmt: skip
    for path in (target, *target.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)


async def hand_over(addresses: Mapping[str, Any]) -> None:
    await keeping.hand_over(addresses["registry"], brokers.TOPOLOGY_NAME, brokers.TOPOLOGY.encode())


async def arrived(addresses: Mapping[str, Any], screen: Screen) -> None:
    """Says when the first order has come through; why not when it does not. Never ends `up`."""
    try:
        async with make_session() as session, asyncio.timeout(ARRIVED_S):
            told = await _told(session, addresses)
            while not told.get("received"):
                await asyncio.sleep(POLL_S)
                told = await _told(session, addresses)
    except TimeoutError:
        why = f"no order came through within {ARRIVED_S:.0f} s; see `fairlead broker links` and `fairlead explain {brokers.EAST}`"
        screen.step("messages", why, style="bad")
        return
    took = f"in {told['took_ms']} ms" if told["took_ms"] < SLOW_MS else "what had waited first"
    screen.step("messages", f"{brokers.ORDERS} reaches {brokers.WAREHOUSE} over two brokers, {took}")
    if addresses["lb_http"]:
        screen.step("messages", f"curl -H 'Host: {brokers.WAREHOUSE_HOST}' {addresses['lb_http']}/ counts them")


async def _told(session: aiohttp.ClientSession, addresses: Mapping[str, Any]) -> Mapping[str, Any]:
    """The warehouse's page; empty while it does not answer."""
    try:
        url = await _page(session, addresses)
        async with asyncio.timeout(5), session.get(url) as response:
            return dict(await response.json(content_type=None))
    except (FairleadError, aiohttp.ClientError, OSError, ValueError, TimeoutError):
        return {}


async def _page(session: aiohttp.ClientSession, addresses: Mapping[str, Any]) -> str:
    """Of the task itself: the demo may run without a balancer."""
    async with session.get(f"{addresses['services']}/v2/apps{brokers.WAREHOUSE}") as response:
        tasks = (await response.json())["app"]["tasks"]
    if not tasks or not tasks[0].get("ports"):
        raise Unavailable(f"{brokers.WAREHOUSE} does not run yet")
    return f"http://127.0.0.1:{tasks[0]['ports'][0]}/"
