"""Serials: one for one content, on every name server of the registry, whatever order things were heard in."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from fairlead_daemon.errors import Unavailable
from fairlead_discovery.adapters.memory import cluster
from fairlead_discovery.backends import open_registry
from fairlead_discovery.reading import snapshots
from fairlead_discovery.records import Agent
from fairlead_discovery.registry import Registry
from fairlead_dns.adapters.settling import Settler
from fairlead_dns.decisions.naming import Record, Rules
from fairlead_dns.decisions.settling import PATIENCE_S, Standing, Verdict, digest, judge, parse_shared
from fairlead_dns.names import Names
from harness.names import authority, member, publish
from harness.waiting import eventually


@pytest.mark.parametrize(
    ("shared", "news", "waited_s", "commits", "verdict"),
    [
        ("own m 7", False, 0.0, 0, Verdict.SETTLE),
        ("own m 6", True, 9.0, 3, Verdict.SETTLE),
        ("own m 8", False, 9.0, 0, Verdict.WAIT),
        ("own m", False, 0.0, 0, Verdict.WAIT),
        ("own m", True, 0.0, 0, Verdict.WAIT),
        ("own m", False, PATIENCE_S, 0, Verdict.COMMIT),
        (None, False, 0.0, 0, Verdict.COMMIT),
        ("other m 7", True, 0.0, 0, Verdict.COMMIT),
        ("other m 7", False, 0.0, 0, Verdict.WAIT),
        ("other m", False, PATIENCE_S, 0, Verdict.COMMIT),
        ("other m 7", True, PATIENCE_S, 1, Verdict.WAIT),
        ("other m 7", True, 2 * PATIENCE_S, 1, Verdict.COMMIT),
        ("other m 7", True, 250.0, 20, Verdict.WAIT),
        ("other m 7", True, 300.0, 20, Verdict.COMMIT),
    ],
)
def test_who_is_ahead_commits_and_who_is_behind_waits(shared, news, waited_s, commits, verdict):
    """At revision 7. A commit whose server died before it said its revision is made again; two servers that never
    agree take turns ever more slowly.
    """
    there = None if shared is None else parse_shared(shared)
    standing = Standing(own="own", revision=7, shared=there, news=news, waited_s=waited_s, commits=commits)

    assert verdict is judge(standing)
    assert shared == (there.text if there else None)


def test_the_digest_is_of_what_all_servers_hear():
    """In no order; without what each says of itself, and what is made of commits."""
    a, b = Record(b"\1a\0", 1, b"aaaa"), Record(b"\1b\0", 1, b"bbbb")
    one = digest({"agent 1": (a, b), "master ": (b,), "server ": (a,), "query x": (b,)})

    assert one == digest({"master ": (b,), "agent 1": (b, a), "server ": (b,)})
    assert one != digest({"agent 1": (a,), "master ": (b,)})
    assert one != digest({"agent 1": (a, b), "master ": (b,)}, "another query")


class Server:
    """A name server without sockets: names that follow a registry, settled by a Settler."""

    def __init__(self, registry: Registry, said: Path) -> None:
        self.registry = registry
        self.names = Names(Rules(), authority())
        self.names.take_own("ns1.mesos", ("127.0.0.1",))
        self.settled: list[int] = []
        """Serials in the order they were given."""
        self.contents: dict[int, str] = {}
        self.settler = Settler(self.names, registry, self._note, said)

    def _note(self) -> None:
        serial = self.names.ledger.serial
        assert serial is not None
        self.settled.append(serial)
        self.contents[serial] = str(sorted(self.names.zone.records()))

    async def follow(self, delay_s: float = 0.0) -> None:
        """`delay_s`: how much later than their commits the agents are heard of."""

        async def agents() -> None:
            async for nodes in self.registry.follow("/fairlead/agents"):
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
            group.create_task(self.settler.run())

    def hosts(self) -> set[bytes]:
        """Addresses of agents as secondaries may fetch them."""
        held = self.names.held(b"\5slave\5mesos\0") if self.names.ledger.serial is not None else ()
        return {data for rrset in held for data in rrset.data}


@asynccontextmanager
async def servers(folder: Path, *delays_s: float) -> AsyncIterator[list[Server]]:
    made = [Server(await open_registry(f"memory:{folder.name}"), folder / f"said{n}") for n in range(len(delays_s))]
    tasks = [asyncio.ensure_future(s.follow(d)) for s, d in zip(made, delays_s, strict=True)]
    try:
        yield made
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for server in made:
            await server.registry.close()


async def put_agent(registry: Registry, number: int) -> None:
    await registry.write(f"/fairlead/agents/S{number}", f"10.0.9.{number}".encode())


async def test_what_comes_from_no_commit_raises_the_serial(tmp_path):
    """A new agent alone: a later serial, with it in it."""
    async with servers(tmp_path, 0.0) as (one,):
        await publish(one.registry, member())

        async def first() -> int | None:
            return one.names.ledger.serial

        begun = await eventually("a serial", first)
        await put_agent(one.registry, 1)

        async def known() -> bool:
            return one.hosts() == {bytes((10, 0, 9, 1))}

        await eventually("the agent is settled", known)
        assert one.names.ledger.serial > begun
        assert sorted(set(one.settled)) == one.settled


async def test_servers_that_hear_things_in_another_order_never_give_one_serial_to_two_contents(tmp_path):
    """The second hears of agents later than the first. In the end both have one serial and one content."""
    async with servers(tmp_path, 0.0, 0.02) as (one, two):
        for number in range(25):
            await publish(one.registry, member(number))
            await put_agent(one.registry, number % 7)
            await asyncio.sleep(0.003 * (number % 4))

        async def agree() -> bool:
            return len(one.hosts()) == len(two.hosts()) == 7 and one.names.ledger.serial == two.names.ledger.serial

        await eventually("both agree", agree, within_s=30)
        both = one.contents.keys() & two.contents.keys()
        assert {n: one.contents[n] for n in both} == {n: two.contents[n] for n in both}
        assert both


async def test_a_restart_with_the_same_settings_keeps_the_serial_and_other_settings_raise_it(tmp_path):
    """What the settings alone decide is in no registry: a file remembers it."""

    async def serial_of_a_run(**changes: object) -> int:
        async with servers(tmp_path, 0.0) as (one,):
            one.names.take_own("ns1.mesos", tuple(changes.get("own", ("127.0.0.1",))))

            async def settled() -> int | None:
                return one.names.ledger.serial

            return await eventually("a serial", settled)

    begun = await serial_of_a_run()
    assert begun == await serial_of_a_run()
    assert begun < await serial_of_a_run(own=("127.0.0.2",))


async def test_out_of_sight_nothing_is_settled_and_afterwards_everything(tmp_path):
    """No serial is made up while the registry is away."""
    async with servers(tmp_path, 0.0) as (one,):
        await publish(one.registry, member())

        async def settled() -> bool:
            return one.names.ledger.serial is not None

        await eventually("a serial", settled)
        cluster(tmp_path.name).stop()
        before = one.names.ledger.serial
        one.names.take_agents({"S9": Agent(id="S9", host="10.0.9.9", port=1, boot_id="")})
        await asyncio.sleep(0)
        assert before == one.names.ledger.serial
        cluster(tmp_path.name).start()

        async def written() -> bool:
            with suppress(Unavailable):
                await put_agent(one.registry, 9)
                return True
            return False

        await eventually("the registry is back", written, within_s=30)

        async def known() -> bool:
            return one.hosts() == {bytes((10, 0, 9, 9))} and one.names.ledger.serial > before

        await eventually("the agent is settled", known, within_s=30)
