"""`fairlead announce`: reads what to announce, opens the registry, announces until a signal, drains, ends."""

import asyncio
import json
import signal
import socket
import tomllib
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from fairlead_daemon.errors import BadSettings
from fairlead_daemon.logs import Log
from fairlead_daemon.web import Health
from fairlead_discovery.adapters.pages import pages
from fairlead_discovery.adapters.probes import security
from fairlead_discovery.announce import Announcer
from fairlead_discovery.backends import open_registry
from fairlead_discovery.decisions.announce_files import Wanted, from_nerve, from_toml
from fairlead_discovery.decisions.announcements import FRAMEWORK, check_all

log = Log("announce")


@dataclass(frozen=True, slots=True, kw_only=True)
class FileOptions:
    """How a file is read: both matter for Nerve's only."""

    framework: str = FRAMEWORK
    write_nerve: bool = False


def wanted_of(file: Path, options: FileOptions) -> Wanted:
    """`*.json` is Nerve's, everything else TOML. Raises BadSettings naming the file and key."""
    try:
        text = file.read_text(encoding="utf-8")
        values: Any = json.loads(text) if file.suffix == ".json" else tomllib.loads(text)
    except OSError as error:
        raise BadSettings(f"{file}: {error.strerror}") from error
    except (ValueError, tomllib.TOMLDecodeError) as error:
        raise BadSettings(f"{file}: {error}") from error
    if file.suffix != ".json":
        return from_toml(values, where=str(file))
    if not isinstance(values, dict):
        raise BadSettings(f"{file}: expected an object")
    whole = {**values, "services": {**_conf_dir(values, file), **(values.get("services") or {})}}
    wanted = from_nerve(whole, where=str(file), framework=options.framework, write_nerve=options.write_nerve)
    for note in wanted.notes:
        log.warning("not followed", what=note)
    return wanted


def _conf_dir(values: dict[str, Any], file: Path) -> dict[str, Any]:
    """Nerve's `service_conf_dir`: one `<service>.json` each."""
    folder = values.get("service_conf_dir")
    if not isinstance(folder, str):
        return {}
    out: dict[str, Any] = {}
    for each in sorted((file.parent / folder).glob("*.json")):
        try:
            out[each.stem] = json.loads(each.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise BadSettings(f"{each}: {error}") from error
    return out


def own_address(registry_url: str) -> str:
    """The address by which this machine reaches the registry: the loopback for a local one."""
    with suppress(OSError, ValueError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(first_server(registry_url))  # sends nothing: the kernel only chooses a source
        return str(probe.getsockname()[0])
    return "127.0.0.1"


def first_server(registry_url: str) -> tuple[str, int]:
    """`zk://h1:2181,h2:2181/prod?auth=…` -> h1, 2181. Raises ValueError for a registry that is no ZooKeeper."""
    scheme, _, place = registry_url.partition("://")
    if scheme != "zk":
        raise ValueError(registry_url)
    servers = place.partition("?")[0].partition("/")[0].rpartition("@")[2]
    host, _, port = servers.split(",")[0].rpartition(":")
    return host, int(port)


def with_hosts(wanted: Wanted, address: str) -> Wanted:
    """Services without a host are on this machine."""
    replace = msgspec.structs.replace
    services = tuple(each if each.host else replace(each, host=address) for each in wanted.services)
    return Wanted(services=services, bridges=wanted.bridges, listen=wanted.listen)


def check_files(wanted: Wanted, *, where: str) -> None:
    """Raises BadSettings naming the service whose check has a ca that cannot be read."""
    for service in wanted.services:
        for check in service.checks:
            try:
                security(check)
            except (OSError, ValueError) as error:
                raise BadSettings(f"{where}: {service.name}: checks: ca: {check.ca}: {error}") from error


async def announce(url: str, wanted: Wanted, *, where: str) -> None:
    """Until SIGTERM or SIGINT, and then until all is drained; a second signal ends it at once. Raises BadSettings.

    With `wanted.listen` /ready says meanwhile what is not announced, and why.
    """
    wanted = with_hosts(wanted, own_address(url))
    check_all(wanted.services, wanted.bridges, where=where)
    check_files(wanted, where=where)
    stop, hurry = asyncio.Event(), asyncio.Event()

    def asked() -> None:
        (hurry if stop.is_set() else stop).set()

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, asked)
    health = Health()
    async with pages(wanted.listen, health) as place:
        registry = await open_registry(url)
        try:
            announcer = Announcer(registry, wanted.services, wanted.bridges, health=health)
            log.info("announcing", instances=len(wanted.services), bridges=len(wanted.bridges), http=place)
            await until(stop, announcer.run())
            log.info("leaving", instances=len(announcer.charges()))
            await until(hurry, announcer.leave())
        finally:
            await registry.close()


async def until(event: asyncio.Event, body: Any) -> None:
    """Runs the coroutine until it ends or the event is set; its error is raised."""
    work, wait = asyncio.ensure_future(body), asyncio.ensure_future(event.wait())
    await asyncio.wait((work, wait), return_when=asyncio.FIRST_COMPLETED)
    wait.cancel()
    if not work.done():
        work.cancel()
        await asyncio.wait((work,))
    if not work.cancelled() and (error := work.exception()) is not None:
        raise error
