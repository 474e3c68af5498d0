"""A HAProxy that lacks what one tenant's rule is made of serves everybody else as before, and that tenant as it was."""

import stat
from pathlib import Path

import pytest

from fairlead_discovery.records import Delay, Traffic
from harness.balancer import Task, balancer, route, service
from harness.servers import require

pytestmark = pytest.mark.needs("haproxy")
HOST = "shop.example"
SAYS_SO = 'if [ "$1" = -vv ]; then {haproxy} -vv | sed s/+LUA/-LUA/; exit; fi'
"""As HAProxy built without Lua."""
REFUSES = 'if [ "$1" = -c ]; then echo check >> {folder}/runs; fi'
"""As one that says it has Lua, but cannot load ours."""


@pytest.mark.parametrize(
    ("manner", "why"), [(SAYS_SO, "port 0: delay: this HAProxy is built without Lua"), (REFUSES, "no lua here")]
)
async def test_a_delay_costs_its_own_service_alone(short_dir: Path, manner: str, why: str):
    """Its rule is refused and named, its last good route stays; services that come after it, and with it, are served."""
    async with balancer(short_dir, haproxy=str(without_lua(short_dir, manner)), spare_backends=0) as place:
        await service(place, "/shop/web", vhosts=(HOST,))
        delaying = route("/shop/web", vhosts=(HOST,), traffic=Traffic(delay=Delay(percent=100, delay_s=5)))
        beside = await Task("beside", app="/beside").start()
        both = [delaying, route("/beside", vhosts=("beside.example",))]
        await place.applied(await place.publish(beside.member(), routes=both), within_s=30)
        checked = checks(short_dir)
        await service(place, "/later", vhosts=("later.example",))

        hosts = (HOST, "beside.example", "later.example")
        assert [(200, "shop-web"), (200, "beside"), (200, "later")] == [await place.ask(host) for host in hosts]
        refused = (await place.status())["refused"]
        assert ["marathon:/shop/web"] == list(refused)
        assert why in refused["marathon:/shop/web"]
        assert "last good route stays" in refused["marathon:/shop/web"]
        assert checks(short_dir) - checked <= 1  # who is to blame is known from here on


def checks(folder: Path) -> int:
    return len((folder / "runs").read_text().splitlines()) if (folder / "runs").exists() else 0


def without_lua(folder: Path, manner: str) -> Path:
    """Its check takes no file that loads Lua."""
    haproxy, program = require("haproxy"), folder / "haproxy"
    program.write_text(
        f"#!/bin/sh\n{manner.format(haproxy=haproxy, folder=folder)}\n"
        f'if [ "$1" = -c ] && grep -q lua-load "$4"; then echo "[ALERT] (1) : config : no lua here" >&2; exit 1; fi\n'
        f'exec {haproxy} "$@"\n'
    )
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    return program
