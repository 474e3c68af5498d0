"""Serials: one for one content, on every name server of the registry, whatever order things were heard in."""

import asyncio
from contextlib import suppress

import pytest

from fairlead_daemon.errors import Refused, Unavailable
from fairlead_discovery import paths
from fairlead_discovery.adapters.memory import cluster
from fairlead_discovery.records import Agent
from fairlead_discovery.snapshots import Trust
from fairlead_dns.adapters import settling
from fairlead_dns.decisions.naming import Record, Rules
from fairlead_dns.decisions.settling import PATIENCE_S, Standing, Verdict, digest, judge, parse_shared
from fairlead_dns.names import Names
from harness.names import ask, authority, member, publish, snapshot
from harness.serials import put_agent, servers
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


async def test_what_was_kept_on_disk_is_given_until_the_registry_is_believed(tmp_path):
    """Secondaries live on with it. Then comes a later serial, for nobody knows whether both are the same."""
    async with servers(tmp_path, follows=False) as (one,):
        revision = await publish(one.registry, member())
        one.names.take_snapshot(snapshot(member(), revision=revision, trust=Trust.STALE))
        task = asyncio.ensure_future(one.settler.run())

        async def given() -> bool:
            return one.names.ledger.serial == revision

        await eventually("the kept serial", given)
        one.names.take_snapshot(snapshot(member(), revision=revision))

        async def raised() -> bool:
            node = await one.registry.read(paths.REVISION)
            one.names.take_snapshot(snapshot(member(), revision=node.version))
            return one.names.ledger.serial > revision

        await eventually("a later serial", raised, within_s=30)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def test_alone_with_a_source_that_is_no_registry_what_changes_gets_the_next_serial():
    """Its revision says nothing of agents; the next one that is later counts again."""
    names = Names(Rules(), authority())
    names.take_snapshot(snapshot(member(), revision=100))
    found = []
    for agents, revision in (((), 100), ((1,), 100), ((1,), 100), ((1, 2), 100), ((1, 2), 101), ((1, 2), 200)):
        names.take_agents({f"S{n}": Agent(id=f"S{n}", host=f"10.0.9.{n}", port=1, boot_id="") for n in agents})
        names.take_snapshot(snapshot(member(), revision=revision))
        *_, moved = names.settling(alone=True)
        found.append((moved, names.ledger.serial))

    assert [(True, 100), (True, 101), (False, 101), (True, 102), (False, 102), (True, 200)] == found


def test_who_is_told_of_a_serial_and_asks_for_the_soa_is_answered_with_it():
    """Else a secondary sees the serial it has, and fetches nothing: with a Mesos master, whose revision says nothing of
    agents. It is not answered with one that cannot be fetched yet either.
    """
    names = Names(Rules(), authority())
    names.take_snapshot(snapshot(member(), revision=100))
    said = [soa_serial(names)]
    for number, revision in ((1, 100), (2, 100), (2, 200)):
        names.take_agents({"S": Agent(id="S", host=f"10.0.9.{number}", port=1, boot_id="")})
        names.take_snapshot(snapshot(member(), revision=revision))
        said.append(soa_serial(names))
        said += [soa_serial(names) for moved in names.settling(alone=True) if moved]

    assert [100, 100, 100, 100, 101, 101, 200] == said


def soa_serial(names: Names) -> int:
    """As a secondary asks for it; an answer that has none says the same one."""
    replies = [ask(names.answers, name, kind) for name, kind in (("mesos", "SOA"), ("nope.mesos", "A"))]
    found = {record.rdata.times[0] for reply in replies for record in (*reply.rr, *reply.auth)}
    (serial,) = found
    return int(serial)


async def test_frameworks_agents_and_masters_raise_the_serial_where_nobody_fetches(tmp_path):
    """Without `transfers` too: a change of theirs alone is a later serial, on both servers the same; a cluster that has
    none of them gets nothing written into its registry.
    """
    async with servers(tmp_path, 0.0, 0.0, strict=False) as both:
        first = await publish(both[0].registry, member())
        await eventually("both say the revision", lambda: same_serial(both, first))
        assert () == await both[0].registry.tree.names(paths.NAME_SERIALS)

        serials = [first]
        for number in (1, 2):
            await put_agent(both[0].registry, number)
            await eventually("both say a later one", lambda: same_serial(both, serials[-1] + 1))
            serials.append(both[0].names.ledger.serial)
        await both[0].registry.remove(paths.below(paths.AGENTS, "S1"))
        await eventually("and when one goes", lambda: same_serial(both, serials[-1] + 1))
        for server in both:
            assert {bytes((10, 0, 9, 2))} == server.hosts()


async def same_serial(both: list, least: int) -> bool:
    """All servers say one serial, `least` or later."""
    said = {server.names.ledger.serial for server in both}
    return len(said) == 1 and None not in said and min(said) >= least


async def test_a_registry_that_takes_no_word_is_not_waited_for(tmp_path, monkeypatch, caplog):
    """Closed to us: where nobody fetches, history goes on under the revision."""
    monkeypatch.setattr(settling, "LOOSE_S", 0.3)
    async with servers(tmp_path, 0.0, strict=False) as (one,):
        revision = await publish(one.registry, member())
        await eventually("the revision is said", lambda: same_serial([one], revision))

        async def closed(*_: object, **__: object) -> int:
            raise Refused("closed")

        one.settler.registry = Closed(one.registry, closed)
        await put_agent(one.registry, 1)

        async def known() -> bool:
            return one.hosts() == {bytes((10, 0, 9, 1))}

        await eventually("the agent is settled", known, within_s=30)

    assert "serial not agreed upon with the registry" in caplog.text


class Closed:
    """A registry that can be read and not written."""

    def __init__(self, registry, closed) -> None:
        self.read, self.commit, self.write = registry.read, closed, closed


@pytest.mark.parametrize("restart", [False, True], ids=["running", "restarted"])
async def test_a_registry_that_has_begun_anew_does_not_stop_the_serial(tmp_path, restart):
    """Its revision is lower: serials go on from the last one, by the next, on both servers; and stay so after a restart."""
    async with servers(tmp_path, 0.0, 0.0, strict=False) as both:
        for number in range(5):
            before = await publish(both[0].registry, member(number))
        await eventually("both say the revision", lambda: same_serial(both, before))
        kept = [server.said.with_suffix(".serial") for server in both]
        await eventually("it is kept", lambda: holds(kept, before))
    url = f"memory:{tmp_path.name}-new"
    async with servers(tmp_path, 0.0, 0.0, url=url, strict=False) as both:
        for server in both if not restart else ():
            server.said.with_suffix(".serial").unlink(missing_ok=True)
            server.names.ledger.settle(before, at_s=0.0)
        low = await publish(both[0].registry, member(7))
        assert low < before
        await eventually("serials go on", lambda: same_serial(both, before + 1))
        assert {before + 1} == {server.names.ledger.serial for server in both}
        await publish(both[0].registry, member(8))
        await eventually("and on", lambda: same_serial(both, before + 2))
        assert {before + 2} == {server.names.ledger.serial for server in both}
        await eventually("it is kept", lambda: holds(kept, before + 2))
    async with servers(tmp_path, 0.0, url=url, strict=False) as (again,):
        await eventually("the same after a restart", lambda: same_serial([again], before + 2))
        assert before + 2 == again.names.ledger.serial


async def holds(files: list, serial: int) -> bool:
    return all(file.exists() and int(file.read_text()) == serial for file in files)
