"""Topologies in the registry, and brokers found there: what the verbs and the daemon share."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

from fairlead_daemon.errors import BadSettings, Refused, Unavailable
from fairlead_discovery import paths
from fairlead_discovery.backends import open_registry
from fairlead_discovery.reading import snapshots
from fairlead_discovery.registry import Registry
from fairlead_messaging.adapters import topology_file
from fairlead_messaging.decisions.declared import Topology
from fairlead_messaging.decisions.finding import Members, addresses, members_of, place
from fairlead_messaging.decisions.wanted import Place, uris

WAIT_S = 10.0
Logins = Mapping[str, tuple[str, str]]


def readable_elsewhere(file: Path) -> tuple[str, bytes]:
    """Name and text of a topology that a daemon may be handed. Raises BadSettings."""
    settings = topology_file.load(file)
    if named := [name for name, broker in settings.brokers.items() if _relative(broker.credentials_file)]:
        raise BadSettings(
            f"{file}: brokers.{named[0]}.credentials_file: must be absolute, the daemon reads it elsewhere"
        )
    return settings.name, file.read_bytes()


async def hand_over(url: str, name: str, text: bytes) -> None:
    """Writes the topology to the registry. Raises BadSettings, Unavailable."""
    async with _opened(url) as registry:
        await registry.write(paths.below(paths.TOPOLOGY, name), text)


def _relative(file: str) -> bool:
    return bool(file) and not Path(file).is_absolute()


async def take_back(url: str, name: str) -> None:
    """Raises Refused when there is no such topology, Unavailable."""
    async with _opened(url) as registry:
        path = paths.below(paths.TOPOLOGY, name)
        if await registry.read(path) is None:
            raise Refused(
                f"no topology {name} is kept; there are {', '.join(await registry.tree.names(paths.TOPOLOGY))}"
            )
        await registry.remove(path)


async def places(settings: Topology, logins: Logins, url: str) -> dict[str, Place]:
    """Where the brokers are now; the registry is asked only when one of them is a service."""
    members = await read_members(url) if any(b.service for b in settings.brokers.values()) else {}
    return located(settings, logins, members)


def located(settings: Topology, logins: Logins, members: Members) -> dict[str, Place]:
    return {name: place(broker, logins[name], members) for name, broker in settings.brokers.items()}


async def read_members(url: str) -> Members:
    """The members of every service, once. Raises Unavailable when the registry is out of sight."""
    async with _opened(url) as registry, aclosing(snapshots(registry)) as seen:  # type: ignore[type-var]  # it is a generator
        async for snapshot in seen:
            if snapshot.revision >= 0:
                return snapshot.members
    raise Unavailable(f"{url}: the registry ended")


@asynccontextmanager
async def _opened(url: str) -> AsyncIterator[Registry]:
    """Raises BadSettings without one, Unavailable when what is done with it takes longer than WAIT_S."""
    if not url:
        raise BadSettings("no registry known; set FAIRLEAD_REGISTRY or name the data directory by --data-dir")
    try:
        async with asyncio.timeout(WAIT_S):
            registry = await open_registry(url)
            try:
                yield registry
            finally:
                await registry.close()
    except TimeoutError as error:
        raise Unavailable(f"{url}: the registry did not answer within {WAIT_S:.0f} s") from error


async def bus_addresses(url: str, service: str, port: str, login: tuple[str, str], vhost: str = "/") -> list[str]:
    """URLs of a broker that is a service: `amqp://user:password@host:port/%2F` for each of its endpoints."""
    found = addresses(members_of(service, await read_members(url)), port)
    where = Place(amqp=tuple(f"amqp://{address}" for address in found), user=login[0], password=login[1])
    return list(uris(where, vhost))
