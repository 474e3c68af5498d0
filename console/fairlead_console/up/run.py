"""One `fairlead up`, from its settings to its exit code."""

import asyncio
import json
import os
import shutil
import signal
import socket
import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import msgspec

from fairlead_console import demo
from fairlead_console.addresses import Addresses
from fairlead_console.decisions.wanted import Place, Plan, plan
from fairlead_console.main import DAEMONS
from fairlead_console.up import demonstrate, demonstrate_messages
from fairlead_console.up.ending import end_everything
from fairlead_console.up.lock import Lock
from fairlead_console.up.preflight import absolute, check_ports, check_reachable
from fairlead_console.up.ready import why_not
from fairlead_console.up.screen import Screen
from fairlead_console.up.settings import UpSettings
from fairlead_console.up.supervisor import Supervisor
from fairlead_daemon.client import make_session
from fairlead_daemon.files import replace_file
from fairlead_daemon.logs import Log
from fairlead_daemon.main import Context, until_stopped
from fairlead_daemon.settings import DaemonSettings, convert, load
from fairlead_daemon.tokens import ensure_token

HAPROXY_PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin:/sbin"  # not on an ordinary user's PATH


def run(*, config: Path | None, overrides: Sequence[str], with_demo: bool) -> int:
    """Returns when everything has ended. Raises BadSettings, Conflict before anything is started."""
    settings = load(UpSettings, file=config, overrides=overrides)
    data_dir = absolute(settings.data_dir)
    place = Place(
        data_dir=data_dir,
        hostname=socket.gethostname(),
        root=os.geteuid() == 0,
        haproxy=shutil.which(str(settings.settings.get("lb", {}).get("haproxy", "haproxy")), path=HAPROXY_PATH)
        is not None,
    )
    wanted = plan(settings, place)
    check_passed_on(settings, wanted)
    check_reachable(data_dir) if place.root else None
    data_dir.mkdir(parents=True, exist_ok=True)
    lock = Lock(data_dir)
    try:
        check_ports(wanted.needs(), data_dir=data_dir)
        prepare(settings, wanted, data_dir)
        asyncio.run(_stand(wanted, data_dir, with_demo=with_demo, with_brokers=settings.demo_brokers))
    finally:
        lock.release()
    return 0


def check_passed_on(settings: UpSettings, wanted: Plan) -> None:
    """Keys of `[settings.<daemon>]`, before the daemon would refuse them. Raises BadSettings naming the table."""
    for daemon in wanted.daemons:
        for table in {daemon.kind, daemon.name} & settings.settings.keys():
            kind = import_module(DAEMONS[daemon.kind]).DAEMON.settings
            convert(kind, daemon.settings, where=f"settings.{table}")


def prepare(settings: UpSettings, wanted: Plan, data_dir: Path) -> None:
    """Files that all daemons share, written before the first one starts: several would make several tokens."""
    replace_file(data_dir / "addresses.json", json.dumps(dict(wanted.addresses), indent=1).encode() + b"\n")
    ensure_token(DaemonSettings(data_dir=str(data_dir), token=settings.token))


async def _stand(wanted: Plan, data_dir: Path, *, with_demo: bool, with_brokers: str) -> None:
    """Until Ctrl-C or SIGTERM; then the clean end."""
    screen = Screen()
    context = Context(name="up", log=Log("up"))
    _listen_to_signals(context.stop)
    supervisor = Supervisor(wanted, data_dir, screen)
    left = supervisor.begin()
    _greet(wanted, data_dir, screen, taking_over=len(left))

    async def then() -> None:
        stands = False
        if with_demo:
            stands = await demonstrate.deploy(wanted.addresses, screen, with_brokers=with_brokers)
        _show(wanted, screen, with_demo=with_demo)
        if with_demo and stands and not demonstrate_messages.why_not(with_brokers):
            await demonstrate_messages.arrived(wanted.addresses, screen)  # brokers take 10 s: nobody waits for the rest

    await _say_zookeeper(wanted, screen)
    await until_stopped(context, supervisor.bring_up(left, then))  # a bug here ends only us: the next `up` takes over
    screen.restart_clock()
    screen.say("\nending: tasks, HAProxy, daemons; apps stay in the registry and run again at the next start")
    await end_everything(supervisor.processes, msgspec.convert(wanted.addresses, Addresses), screen)
    supervisor.finished()


def _listen_to_signals(stop: asyncio.Event) -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN:  # under nohup a closed terminal means nothing
            loop.add_signal_handler(number, stop.set)


async def _say_zookeeper(wanted: Plan, screen: Screen) -> None:
    if not wanted.registry.startswith("zk://"):
        return
    first = wanted.registry.removeprefix("zk://").partition("?")[0].partition("/")[0].partition(",")[0]
    async with make_session() as session:
        why = await why_not(session, f"tcp://{first}")
    if why:
        screen.step("zookeeper", f"{first} does not answer yet: {why}; the daemons wait for it", style="bad")
    else:
        screen.step("zookeeper", f"answers  {wanted.registry}")


def _greet(wanted: Plan, data_dir: Path, screen: Screen, *, taking_over: int) -> None:
    screen.say(f"fairlead on one machine; data and logs in {data_dir}")
    for reason in wanted.off:
        screen.step("off", reason, style="note")
    if taking_over:
        screen.step("predecessor", f"left {taking_over} daemons running: replacing them one at a time")


def _show(wanted: Plan, screen: Screen, *, with_demo: bool) -> None:
    screen.say()
    screen.table("addresses", address_rows(wanted.addresses))
    screen.say()
    screen.table("try", command_rows(wanted.addresses, with_demo=with_demo))
    screen.say("\nCtrl-C ends it all and keeps the apps")


def address_rows(addresses: Mapping[str, Any]) -> list[tuple[str, str]]:
    lines = [
        ("monitor", f"{addresses['monitor']}/status"),
        ("messaging", f"{addresses['messaging']}/status"),
        ("console", f"{addresses['console']}/"),
        ("master", f"{addresses['master']}/state"),
        ("apps (Marathon)", f"{addresses['services']}/v2/apps"),
        ("names (DNS)", "  ".join(addresses["dns"])),
        ("names (HTTP)", f"{addresses['dns_http'][0]}/v1/version"),
    ]
    if addresses["lb"]:
        lines += [("balancer", f"{addresses['lb']}/status"), ("virtual hosts", addresses["lb_http"])]
    return [*lines, ("registry", addresses["registry"])]


def command_rows(addresses: Mapping[str, Any], *, with_demo: bool) -> list[tuple[str, str]]:
    """What a newcomer can paste, beside what it shows."""
    address, _, port = addresses["dns"][0].rpartition(":")
    fairlead = program()
    rows = [("everything at a glance", f"{fairlead} status"), ("who runs what", f"{fairlead} app list")]
    if addresses["data_dir"] != str(absolute("")):
        rows.insert(0, ("first of all", f"export FAIRLEAD_DATA_DIR={addresses['data_dir']}"))
    if not with_demo:
        return [*rows, ("your first app", f"{fairlead} app deploy app.json")]
    rows += [
        ("name to addresses", f"{fairlead} lookup {demo.WEB_NAME}"),
        ("the same with dig", f"dig @{address} -p {port} {demo.WEB_NAME}"),
        ("addresses with ports", f"dig @{address} -p {port} _web-demo._tcp.marathon.mesos SRV +short"),
    ]
    if addresses["lb_http"]:
        rows += [
            ("through the balancer", f"curl -H 'Host: {demo.WEB_HOST}' {addresses['lb_http']}/"),
            ("one app finds another", f"curl -H 'Host: {demo.SHOP_HOST}' {addresses['lb_http']}/"),
        ]
    return [*rows, ("more instances", f"{fairlead} app scale {demo.WEB} 4")]


def program() -> str:
    """How this very `fairlead` is called from here: by its name when that finds it, else by its path."""
    mine = Path(sys.executable).with_name("fairlead")
    if shutil.which("fairlead") == str(mine):
        return "fairlead"
    return str(mine.relative_to(Path.cwd()) if mine.is_relative_to(Path.cwd()) else mine)
