"""Names follow snapshots: step by step, at a cost that does not grow with the zone, with what went on told."""

import asyncio
import logging
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from prometheus_client import REGISTRY

from fairlead_daemon.logs import Log
from fairlead_daemon.main import Context
from fairlead_discovery.decisions.delta import Delta
from fairlead_discovery.records import Ips, Member
from fairlead_discovery.snapshots import Snapshot, Trust
from fairlead_dns.decisions import sources
from fairlead_dns.decisions.naming import Rules
from fairlead_dns.decisions.zone import Zone
from fairlead_dns.following import Following
from fairlead_dns.names import Names
from harness.names import ask, authority, data, ede, member, names, opt, snapshot

WEB = "web.marathon.mesos"


def following(made: Names) -> Following:
    return Following(made, Context(name="dns", log=Log("dns")), asyncio.Event())


def counted(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """How often records were made, put in and taken out."""
    counts = {"made": 0, "added": 0, "removed": 0}
    of_task, add, remove = sources.of_task, Zone._add, Zone._remove  # what is counted

    def made(*arguments: Any) -> Any:
        counts["made"] += 1
        return of_task(*arguments)

    def added(zone: Zone, record: Any, touched: Any) -> None:
        counts["added"] += 1
        add(zone, record, touched)

    def removed(zone: Zone, record: Any, touched: Any) -> None:
        counts["removed"] += 1
        remove(zone, record, touched)

    monkeypatch.setattr(sources, "of_task", made)
    monkeypatch.setattr(Zone, "_add", added)
    monkeypatch.setattr(Zone, "_remove", removed)
    return counts


async def test_the_log_tells_how_many_names_there_are(caplog: pytest.LogCaptureFixture) -> None:
    """Beside how many have changed, which may be none."""
    made = following(names())
    with caplog.at_level(logging.DEBUG):
        await made.take(snapshot(member(), revision=9))
    fields = [r.__dict__["fields"] for r in caplog.records if "names" in r.__dict__.get("fields", {})][-1]

    assert len(made.names.zone.names) == fields["names"] > 0


class Untouched(dict[str, Any]):
    """A mapping that nobody may look through, only into."""

    def __iter__(self) -> Iterator[str]:
        raise AssertionError("all of it was looked at")

    def items(self) -> Any:
        raise AssertionError("all of it was looked at")

    keys = values = items


def zone_of(services: int) -> Mapping[str, Mapping[str, Member]]:
    return {
        f"marathon:web{s}": {
            f"member_{s}_{n}": member(n, name=f"web{s}", ips=Ips(host=(f"10.{s % 250}.{s // 250}.{n + 1}",)))
            for n in range(2)
        }
        for s in range(services)
    }


@pytest.mark.parametrize("services", [3, 300])
def test_one_change_costs_the_same_in_a_large_zone(services: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a zone a hundred times as large nothing more is made, put in, taken out, dropped or even looked at."""
    before = zone_of(services)
    made = names()
    made.take_snapshot(Snapshot(revision=1, trust=Trust.LIVE, members=before))
    for service in range(3):
        ask(made.answers, f"web{service}.marathon.mesos")
    known = made.sources.members = Untouched(before)
    fresh = member(7, name="web1")
    after = Untouched({**before, "marathon:web1": {**before["marathon:web1"], "member_new": fresh}})
    counts = counted(monkeypatch)

    touched = made.take_snapshot(
        Snapshot(
            revision=2,
            trust=Trust.LIVE,
            members=after,
            portless=made.sources.portless,
            delta=Delta(known, frozenset({"marathon:web1"})),
        )
    )
    assert ({"made": 1, "added": 8, "removed": 0}, 8) == (counts, touched)
    assert 2 == made.answers.cached
    assert 3 == len(ask(made.answers, "web1.marathon.mesos").rr)


def test_a_large_change_comes_in_steps() -> None:
    """Between two of them queries are answered: each name as it was or as it is, and the serial waits for the end."""
    made = names(*(member(n) for n in range(200)))
    news = snapshot(*(member(n, ips=Ips(host=(f"10.7.0.{n + 1}",))) for n in range(200)), revision=9)
    steps = made.steps(news)

    serials, sizes = set(), []
    for _ in steps:
        reply = ask(made.answers, WEB, tcp=True)
        serials.add(ask(made.answers, "mesos", "SOA").rr[0].rdata.times[0])
        sizes.append(len(reply.rr))
    assert len(sizes) >= 400 // sources.STEP
    assert ({1}, True) == (serials, all(200 <= size <= 400 for size in sizes))
    assert (9, 200) == (
        ask(made.answers, "mesos", "SOA").rr[0].rdata.times[0],
        len(ask(made.answers, WEB, tcp=True).rr),
    )


def test_no_step_is_of_many_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    """However they are spread over services."""
    made = names()
    counts = counted(monkeypatch)
    most = last = 0
    for _ in made.steps(Snapshot(revision=2, trust=Trust.LIVE, members=zone_of(120))):
        most, last = max(most, counts["made"] - last), counts["made"]
    for _ in made.steps(snapshot(*(member(n) for n in range(200)), revision=3)):
        most, last = max(most, counts["made"] - last), counts["made"]

    assert 0 < most <= sources.STEP


async def test_queries_are_answered_while_a_change_is_applied() -> None:
    """The loop turns at least once a step."""
    made = names(member())
    follower = following(made)
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.ensure_future(other())
    await follower.take(snapshot(*(member(n) for n in range(500)), revision=2))
    task.cancel()

    assert turns >= 500 // sources.STEP
    assert 500 == len(ask(made.answers, WEB, tcp=True).rr)


async def test_who_comes_later_warms_up_who_was_there_does_not() -> None:
    """The first snapshot's endpoints are as old as we are."""
    made = Names(Rules(), authority())
    made.answers.traits.warm_up_s = 60.0
    follower = following(made)
    await follower.take(snapshot(member(0)))
    assert 0 == made.answers.traits.warming

    await follower.take(snapshot(member(0), member(1), revision=2))
    assert 1 == made.answers.traits.warming


async def test_trust_is_told_and_marked(caplog: pytest.LogCaptureFixture) -> None:
    """A warning that says why; the last good names stay; a word when it is over."""
    made = Names(Rules(), authority())
    follower = following(made)
    await follower.take(snapshot(member()))
    caplog.clear()  # an earlier test may have made our log a more talkative one
    held = Snapshot(revision=1, trust=Trust.HELD, why="another cluster", members=snapshot(member()).members)
    with caplog.at_level(logging.INFO, logger="dns"):
        await follower.take(held)
        reply = ask(made.answers, WEB, opt=opt())
        await follower.take(snapshot(member(), revision=2))

    fields = [
        (r.levelname, r.__dict__.get("fields", {})) for r in caplog.records
    ]  # others may have something to say too
    said = [(level, told["trust"], told.get("why")) for level, told in fields if "trust" in told]
    assert [("WARNING", "held", "another cluster"), ("INFO", "live", None)] == said
    assert (["10.0.0.1"], 3, None) == (data(reply), ede(reply), ede(ask(made.answers, WEB, opt=opt())))


def observed() -> float:
    return REGISTRY.get_sample_value("fairlead_dns_publish_seconds_count") or 0.0


async def test_each_commit_is_measured_once() -> None:
    """Not what stood there before, not a change of trust, not the same revision again."""
    follower = following(Names(Rules(), authority()))
    begin = observed()
    seen = []
    for revision, trust in ((1, Trust.LIVE), (2, Trust.LIVE), (2, Trust.STALE), (2, Trust.LIVE), (3, Trust.LIVE)):
        await follower.take(snapshot(member(), revision=revision, trust=trust))
        seen.append(observed() - begin)

    assert [0.0, 1.0, 1.0, 1.0, 2.0] == seen
