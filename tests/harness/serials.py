"""Name servers without sockets: names that follow a registry, settled as the daemon settles them."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path

from fairlead_discovery import paths
from fairlead_discovery.backends import open_registry
from fairlead_discovery.reading import snapshots
from fairlead_discovery.records import Agent
from fairlead_discovery.registry import Registry
from fairlead_dns.adapters.onward import Onward
from fairlead_dns.adapters.settling import Settler
from fairlead_dns.decisions.naming import Rules
from fairlead_dns.names import Names
from harness.names import authority


class Server:
    """A name server without sockets: names that follow a registry, settled by a Settler."""

    def __init__(self, registry: Registry, said: Path, *, strict: bool = True) -> None:
        self.registry = registry
        self.said = said
        self.names = Names(Rules(), authority())
        self.names.take_own("ns1.mesos", ("127.0.0.1",))
        self.settled: list[int] = []
        """Serials in the order they were given."""
        self.contents: dict[int, str] = {}
        self.settler = Settler(self.names, registry, self._note, said if strict else None, strict=strict)
        self.settler.onward = self.onward = Onward(self.names, registry, said.with_suffix(".serial"))

    def _note(self) -> None:
        serial = self.names.ledger.serial
        assert serial is not None
        self.settled.append(serial)
        self.contents[serial] = str(sorted(self.names.zone.records()))

    async def follow(self, delay_s: float = 0.0) -> None:
        """`delay_s`: how much later than their commits the agents are heard of."""

        async def agents() -> None:
            async for nodes in self.registry.follow(paths.AGENTS):
                await asyncio.sleep(delay_s)
                self.names.take_agents(
                    {n: Agent(id=n, host=x.data.decode(), port=1, boot_id="") for n, x in nodes.items()}
                )

        async def services() -> None:
            async for snapshot in snapshots(self.registry, keep=None):
                self.names.take_snapshot(snapshot)

        async with asyncio.TaskGroup() as group:
            group.create_task(agents())
            group.create_task(services())
            await self.onward.load()
            group.create_task(self.onward.run())
            group.create_task(self.settler.run())

    def hosts(self) -> set[bytes]:
        """Addresses of agents as secondaries may fetch them."""
        held = self.names.held(b"\5slave\5mesos\0") if self.names.ledger.serial is not None else ()
        return {data for rrset in held for data in rrset.data}


async def end(tasks: Iterable["asyncio.Future[None]"], registries: Iterable[Registry]) -> None:
    """Ends what follows the registries, then their sessions."""
    running = list(tasks)
    for task in running:
        task.cancel()
    await asyncio.gather(*running, return_exceptions=True)
    for registry in registries:
        await registry.close()


@asynccontextmanager
async def servers(
    folder: Path, *delays_s: float, url: str = "", follows: bool = True, strict: bool = True
) -> AsyncIterator[list[Server]]:
    """One for each delay, each with a session of its own; without `follows` one that is told by the test. `strict`: see
    Settler.
    """
    url = url or f"memory:{folder.name}"
    count = len(delays_s) if follows else 1
    made = [Server(await open_registry(url), folder / f"said{n}", strict=strict) for n in range(count)]
    tasks = [asyncio.ensure_future(s.follow(d)) for s, d in zip(made, delays_s, strict=follows)]
    try:
        yield made
    finally:
        await end(tasks, [server.registry for server in made])


async def put_agent(registry: Registry, number: int) -> None:
    await registry.write(paths.below(paths.AGENTS, f"S{number}"), f"10.0.9.{number}".encode())
