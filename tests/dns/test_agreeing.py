"""Serials of names that come from a Mesos master: one for one content, on all servers that share a registry for it."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead_discovery.adapters.memory import cluster
from fairlead_discovery.backends import open_registry
from fairlead_discovery.records import Agent
from fairlead_discovery.registry import Registry
from fairlead_dns.adapters.agreeing import Agreeing
from fairlead_dns.decisions.agreeing import REMEMBERED, Content, Word, agree, parse_word
from fairlead_dns.decisions.journal import SERIALS, later
from fairlead_dns.decisions.naming import Rules
from fairlead_dns.names import Names
from fairlead_dns.naming_settings import MesosSource
from harness.mesos_pages import MesosPages
from harness.names import authority, member, snapshot
from harness.naming import running
from harness.serials import end
from harness.waiting import eventually

WORD = Word(((5, "a"), (6, "b")))


@pytest.mark.parametrize(
    ("digest", "known", "serial", "written"),
    [
        ("b", None, 6, False),
        ("b", 6, 6, False),
        ("a", None, 5, False),
        ("b", 5, 6, False),
        ("c", None, 7, True),
        ("c", 6, 7, True),
        ("c", 5, 7, True),
        ("a", 6, 7, True),
        ("c", 9, 10, True),
        ("b", 9, 10, True),
    ],
)
def test_the_first_with_a_content_gives_it_the_next_serial(
    digest: str, known: int | None, serial: int, written: bool
) -> None:
    """Who comes to it later says the same; a content that comes back is a new one; nobody goes back."""
    said, word = agree(WORD, digest, known, now_s=0.0)

    assert (serial, written) == (said, word is not None)
    assert word is None or (serial, digest) == word.said[-1]


def test_the_first_serial_of_all_is_the_time() -> None:
    """As Mesos-DNS' were, so that secondaries of one go on."""
    assert (1700000000, Word(((1700000000, "a"),))) == agree(Word(), "a", None, now_s=1700000000.5)


def test_serials_go_round() -> None:
    """RFC 1982."""
    last = Word(((SERIALS - 1, "a"),))

    assert [(0, "b")] == [agree(last, "b", SERIALS - 1, now_s=0.0)[1].said[-1]]  # type: ignore[union-attr]  # it is written


def test_a_word_is_read_as_it_was_written_and_stays_small() -> None:
    """Strange lines are left out."""
    word = WORD
    for number in range(2 * REMEMBERED):
        word = word.with_serial(100 + number, f"d{number}")

    assert word == parse_word(word.text + "x y\n1\n-1 a b\n")
    assert REMEMBERED == len(word.said)
    assert [(5, "a"), (7, "b")] == [*WORD.with_serial(7, "b").said]


@given(st.lists(st.tuples(st.integers(0, 2), st.sampled_from("abc")), max_size=40))
def test_one_serial_is_one_content_and_nobody_goes_back(steps: Sequence[tuple[int, str]]) -> None:
    """Three servers that see contents in any order, and miss some."""
    word, known, contents = Word(), [None, None, None], {}
    for server, digest in steps:
        serial, said = agree(word, digest, known[server], now_s=100.0)
        word, before = said or word, known[server]

        assert before is None or serial == before or later(serial, before)
        assert digest == contents.setdefault(serial, digest)
        known[server] = serial


@given(st.lists(st.tuples(st.integers(0, 3), st.booleans(), st.booleans()), max_size=12))
def test_the_digest_of_a_content_does_not_depend_on_the_way_there(steps: Sequence[tuple[int, bool, bool]]) -> None:
    """However often it was settled between changes: the same as of names that come new to it."""
    made, there, content = names(), set(), None
    for number, present, settles in steps:
        there = there | {number} if present else there - {number}
        made.take_agents(boxes(there))
        content = content or Content(made.ledger, frozenset())
        if settles:
            content.settling()
            assert made.ledger.settle((made.ledger.serial or 0) + 1, at_s=0.0) in (True, False)
    fresh = names()
    fresh.take_agents(boxes(there))

    assert content is None or Content(fresh.ledger, frozenset()).digest() == content.digest()


def names() -> Names:
    made = Names(Rules(), authority())
    made.take_snapshot(snapshot(member()))
    return made


def boxes(numbers: set[int]) -> dict[str, Agent]:
    return {f"S{n}": Agent(id=f"S{n}", host=f"10.0.9.{n}", port=1, boot_id="") for n in numbers}


def test_what_each_server_says_of_itself_is_apart() -> None:
    """Its own address is no reason for another serial."""
    made = [names(), names()]
    for number, each in enumerate(made):
        each.take_own("ns1.mesos", (f"10.0.0.{number}",))
    digests = [Content(each.ledger, frozenset({b"\3ns1\5mesos\0"})).digest() for each in made]

    assert digests[0] == digests[1]
    assert Content(made[0].ledger, frozenset()).digest() != Content(made[1].ledger, frozenset()).digest()


class Server:
    """Names that a test changes, and who gives them serials."""

    def __init__(self, registry: Registry, own: str) -> None:
        self.registry = registry
        self.names = Names(Rules(), authority())
        self.names.take_own("ns1.mesos", (own,))
        self.told: list[int] = []
        self.agreeing = Agreeing(self.names, registry, lambda: self.told.append(self.serial))

    @property
    def serial(self) -> int:
        return self.names.ledger.serial or 0

    def sees(self, *numbers: int, agents: Sequence[int] = ()) -> None:
        """A reading of the master; its revision is this server's own."""
        self.names.take_agents(boxes(set(agents)))
        self.names.take_snapshot(snapshot(*map(member, numbers), revision=self.names.snapshot.revision + 17))


@asynccontextmanager
async def servers(url: str) -> AsyncIterator[list[Server]]:
    made = [Server(await open_registry(url), own) for own in ("10.0.0.1", "10.0.0.2")]
    tasks = [asyncio.ensure_future(each.agreeing.run()) for each in made]
    try:
        yield made
    finally:
        await end(tasks, [each.registry for each in made])


async def agreed(servers: Sequence[Server], least: int = 1) -> int:
    async def same() -> int:
        said = {each.serial for each in servers}
        return said.pop() if len(said) == 1 and min(said) >= least else 0

    return int(await eventually("one serial", same, within_s=30))


async def test_two_servers_of_one_master_say_one_serial(tmp_path: Path) -> None:
    """Whoever reads first; each change a later one, of agents alone too; one that missed something is told of no other."""
    async with servers(f"memory:{tmp_path.name}") as both:
        first, second = both
        first.sees(1)
        second.sees(1)
        said = [await agreed(both)]
        first.sees(1, 2)
        await eventually("the first goes on", lambda: moved(first, said[-1]))
        first.sees(1, 2, agents=[1])
        await eventually("and on", lambda: moved(first, said[-1] + 1))
        second.sees(1, 2, agents=[1])
        said.append(await agreed(both, said[-1] + 2))
        second.sees(1)
        first.sees(1)
        said.append(await agreed(both, said[-1] + 1))

        assert sorted(set(said)) == said
        assert [sorted(set(each.told)) for each in both] == [each.told for each in both]


async def moved(server: Server, beyond: int) -> bool:
    return server.serial > beyond


async def test_without_the_registry_nobody_moves_on(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Secondaries stay where they are until it is back; that is told once."""
    async with servers(f"memory:{tmp_path.name}") as both:
        for each in both:
            each.sees(1)
        before = await agreed(both)
        cluster(tmp_path.name).stop()
        for each in both:
            each.sees(1, 2)

        async def told() -> bool:
            return caplog.text.count("serials not agreed upon") == 2

        await eventually("both tell it", told)
        assert [before, before] == [each.serial for each in both]
        cluster(tmp_path.name).start()
        await agreed(both, before + 1)


async def test_serials_wait_while_nobody_knows_what_is_said(tmp_path: Path) -> None:
    """A registry that is away from the start: names are answered, transfers wait."""
    async with MesosPages() as master:
        master.tasks = {"web": 1}
        cluster(tmp_path.name).stop()
        mesos = MesosSource(masters=(master.place,), refresh_s=0.05, serials=f"memory:{tmp_path.name}")
        async with running(tmp_path, mesos=mesos, transfers=["127.0.0.0/8"]) as dns:
            await dns.until("web.marathon.mesos", ["10.0.0.1"])
            before = (await dns.text("/v2/changes"))[0]
            cluster(tmp_path.name).start()

            async def known() -> bool:
                await asyncio.sleep(0)
                return (await dns.text("/v2/changes"))[0] == 200

            await eventually("a serial is agreed upon", known, within_s=30)

    assert 503 == before
