"""Leadership changes: what runs runs on, what is published stays, what is leaving is finished."""

import asyncio
import time
from contextlib import AsyncExitStack

from fairlead_core.master.daemon import master_info
from fairlead_core.master.decisions import liveness
from fairlead_discovery import paths
from fairlead_discovery.adapters.memory import cluster
from fairlead_discovery.backends import open_registry
from fairlead_discovery.records import Balancer, Leaving, NameServer, Progress, encode
from fairlead_discovery.registry import Create
from harness.sim_agent import SimAgent
from harness.sim_framework import SimFramework, command_task, until
from harness.waiting import eventually

FOLDER = paths.endpoint_folder("etl:worker")


async def published(framework, tree, *task_ids, agent_id=""):
    """Launches tasks with a port each and waits until they are members."""
    for task_id in task_ids:
        offer = await framework.an_offer(agent_id)
        await framework.accept(offer, command_task(task_id, offer, ports=1, name="worker"), refuse_s=0)
    await until(lambda: set(task_ids) <= {paths.task_of(n) for n in tree.folder(FOLDER)}, 8, f"{task_ids} published")


def members(tree):
    return sorted(paths.task_of(n) for n in tree.folder(FOLDER))


def kills(agent):
    return [c.task_id for c in agent.commands if type(c).__name__ == "Kill"]


def registrations(agent):
    return [c for c in agent.commands if type(c).__name__ == "Registered"]


async def test_a_restarted_master_withdraws_nothing(make_master, session, tree):
    """A crash and a new leader: at no moment is a running task out of the names; framework and agent come back."""
    master = await make_master().start()
    async with (
        SimAgent(session, master.url) as agent,
        SimFramework(session, master.url, name="etl", failover_timeout=60.0) as framework,
    ):
        await published(framework, tree, "t1", "t2")
        before, first_id = len(tree.seen), agent.agent_id
        await master.crash()
        await master.start()
        await framework.close()
        await framework.subscribe()
        await until(lambda: agent.epoch == 2, 8, "the agent is back")
        await until(lambda: framework.stream_id)
        state = await master.get("/state")

    assert [t["state"] for f in state["frameworks"] for t in f["tasks"]] == ["TASK_RUNNING"] * 2
    assert [s["id"] for s in state["slaves"]] == [first_id]
    assert all(len(s.folders.get(FOLDER) or {}) == 2 for s in tree.seen[before:])


async def test_a_kill_begun_by_the_leader_before_is_finished(make_master, session, tree):
    """Crash in the middle of a drain: the next leader kills the task, and never publishes it again."""
    master = await make_master().start()
    async with (
        SimAgent(session, master.url) as agent,
        SimFramework(session, master.url, name="etl", failover_timeout=60.0) as framework,
    ):
        await published(framework, tree, "t1", "t2")
        await tree.registry.write(paths.below(paths.BALANCERS, "b"), encode(Balancer(id="b", admin="x")))
        await asyncio.sleep(0.2)
        await framework.kill("t1")
        await until(lambda: members(tree) == ["t2"] and "t1" in tree.folder(paths.LEAVING))
        await master.crash()
        before = len(tree.seen)
        await master.start()
        await until(lambda: agent.epoch == 2, 8, "the agent is back")
        await asyncio.sleep(0.3)
        early = kills(agent)
        revision = tree.sight.revision
        await tree.registry.write(paths.below(paths.PROGRESS, "b"), encode(Progress(applied_revision=revision)))
        await until(lambda: kills(agent) == ["t1"], 8, "the kill is finished")
        await framework.close()
        await framework.subscribe()
        await framework.reaches("t1", "TASK_KILLED")
        await until(lambda: "t1" not in tree.folder(paths.LEAVING))

    assert early == []
    assert all("t1" not in [paths.task_of(n) for n in s.folders.get(FOLDER) or {}] for s in tree.seen[before:])


async def test_the_kill_waits_for_names_and_balancers(master, session, tree):
    """TTL and a second after the commit, and only when the registered balancer has drained the task."""
    await tree.registry.announce(
        paths.below(paths.NAME_SERVERS, "d"), encode(NameServer(id="d", address="x", largest_ttl_s=1))
    )
    await tree.registry.write(paths.below(paths.BALANCERS, "b"), encode(Balancer(id="b", admin="x")))
    progress = paths.below(paths.PROGRESS, "b")
    async with SimAgent(session, master.url) as agent, SimFramework(session, master.url, name="etl") as framework:
        await published(framework, tree, "t1")
        began = time.monotonic()
        await framework.kill("t1")
        await until(lambda: tree.folder(paths.LEAVING))
        revision = tree.sight.revision
        await tree.registry.write(progress, encode(Progress(applied_revision=revision, busy=("t1",))))
        await asyncio.sleep(1.3)
        while_busy = kills(agent)
        await tree.registry.write(progress, encode(Progress(applied_revision=revision)))
        await until(lambda: kills(agent), 2)
        took = time.monotonic() - began

    assert while_busy == []
    assert took >= 1.1


async def test_two_frameworks_tasks_of_one_id_leave_one_after_the_other(master, session, tree):
    """A leaving record is named by the task id alone: the second waits for the first, and both are killed."""
    async with (
        SimAgent(session, master.url),
        SimFramework(session, master.url, name="etl") as one,
        AsyncExitStack() as later,
    ):
        await published(one, tree, "t1")
        await one.call("SUPPRESS")
        other = await later.enter_async_context(SimAgent(session, master.url, name="other", port=77))
        two = await later.enter_async_context(SimFramework(session, master.url, name="web"))
        offer = await two.an_offer(other.agent_id)
        await two.accept(offer, command_task("t1", offer, ports=1, name="worker"), refuse_s=0)
        both = [FOLDER, paths.endpoint_folder("web:worker")]
        await until(lambda: all(tree.folder(folder) for folder in both), 8, "both are published")
        await asyncio.gather(one.kill("t1"), two.kill("t1"))
        await one.reaches("t1", "TASK_KILLED")
        await two.reaches("t1", "TASK_KILLED")
        await until(lambda: not any(tree.folder(folder) for folder in both) and not tree.folder(paths.LEAVING))
        records = {next(iter(s.folders[paths.LEAVING].values())) for s in tree.seen if s.folders.get(paths.LEAVING)}

    assert 2 == len(records)


async def test_an_impossible_ttl_holds_up_no_kill(master, session, tree):
    """A record that says 30 years is a mistake: it is not heeded, nor remembered when it goes."""
    record = encode(NameServer(id="d", address="x", largest_ttl_s=10**9))
    path = paths.below(paths.NAME_SERVERS, "d")
    await tree.registry.announce(path, record)
    await tree.registry.announce(paths.below(paths.NAME_SERVERS, "e"), b"{")
    async with SimAgent(session, master.url) as agent, SimFramework(session, master.url, name="etl") as framework:
        await published(framework, tree, "t1", "t2")
        await framework.kill("t1")
        await until(lambda: kills(agent) == ["t1"], 3, "it is killed")
        await tree.registry.remove(path)
        await framework.kill("t2")
        await until(lambda: kills(agent) == ["t1", "t2"], 3, "the other is killed")


async def test_an_unhealthy_task_is_withdrawn_and_killed_at_once(master, session, tree):
    """Nobody should be sent there, so nothing is waited for; healthy again means published again."""
    check = {"health_check": {"type": "TCP", "tcp": {"port": 31000}}}
    async with SimAgent(session, master.url) as agent, SimFramework(session, master.url, name="etl") as framework:
        offer = await framework.an_offer()
        await framework.accept(offer, command_task("t1", offer, ports=1, name="worker", **check))
        await framework.reaches("t1", "TASK_RUNNING")
        await asyncio.sleep(0.2)
        unchecked = members(tree)
        agent.update("t1", "TASK_RUNNING", healthy=True)
        await until(lambda: members(tree) == ["t1"])
        agent.update("t1", "TASK_RUNNING", healthy=False)
        await until(lambda: members(tree) == [])
        agent.update("t1", "TASK_RUNNING", healthy=True)
        await until(lambda: members(tree) == ["t1"])
        await framework.kill("t1", fairlead={"reason": "unhealthy"})
        await until(lambda: kills(agent) == ["t1"], 1)

    assert unchecked == []


async def test_a_silent_machine_leaves_the_names_and_comes_back(master, session, tree, monkeypatch):
    """Silence makes it suspect; its member goes while another stands; the next beat publishes it again."""
    monkeypatch.setattr(liveness, "SUSPECT_S", 0.8)
    async with (
        SimAgent(session, master.url, name="a") as first,
        SimAgent(session, master.url, name="b", port=5052) as second,
        SimFramework(session, master.url, name="etl") as framework,
    ):
        await published(framework, tree, "t1", agent_id=first.agent_id)
        await published(framework, tree, "t2", agent_id=second.agent_id)
        first.silent = True
        await until(lambda: members(tree) == ["t2"], 4, "the silent one is withdrawn")
        second.silent = True
        await asyncio.sleep(1.3)
        both_silent = members(tree)
        second.silent = False
        await second.stop()
        second.start()
        first.silent = False
        await first.stop()
        first.start()
        await until(lambda: members(tree) == ["t1", "t2"], 5, "both are back")

    assert both_silent == ["t2"]
    assert framework.states("t1")[-1] == "TASK_RUNNING"


async def test_an_agent_that_restarts_keeps_its_members(master, session, tree, monkeypatch):
    """Its stream is closed by a machine that answers: 30 s, not 4."""
    monkeypatch.setattr(liveness, "SUSPECT_S", 0.5)
    async with SimAgent(session, master.url) as agent, SimFramework(session, master.url, name="etl") as framework:
        await published(framework, tree, "t1")
        await agent.stop()
        await asyncio.sleep(1.0)
        meanwhile = members(tree)
        state = await master.get("/state")
        agent.start()
        await agent.registered.wait()

    assert meanwhile == ["t1"]
    assert [s["suspect"] for s in state["slaves"]] == [False]


async def test_a_standby_sends_everybody_to_the_leader(make_master, session):
    """307 with Mesos' scheme-relative Location, for calls and pages; /redirect too."""
    leader = await make_master().start()
    standby = await make_master().start()
    where = leader.url.removeprefix("http:")
    seen = {}
    for method, path in (("POST", "/api/v1/scheduler"), ("GET", "/state"), ("POST", "/agent/v1/stream")):
        body = b"{}" if method == "POST" else None
        async with session.request(
            method,
            standby.url + path,
            data=body,
            headers={"Content-Type": "application/json"},
            allow_redirects=False,
        ) as response:
            seen[path] = (response.status, response.headers["Location"])
    async with session.get(standby.url + "/redirect", allow_redirects=False) as response:
        redirect = (response.status, response.headers["Location"])

    assert seen == {path: (307, where + path) for path in seen}
    assert redirect == (307, where)


async def test_the_standby_leads_when_the_leader_is_gone(make_master, session):
    """And its frameworks' and agents' ids cannot meet those given out before."""
    leader = await make_master().start()
    standby = await make_master().start()
    async with SimFramework(session, leader.url) as framework, SimAgent(session, leader.url) as agent:
        first = (framework.id, agent.agent_id)
    await leader.stop()
    await until(lambda: standby.context.health.waits == {}, 8)
    async with SimFramework(session, standby.url) as framework, SimAgent(session, standby.url, port=5052) as agent:
        second = (framework.id, agent.agent_id)

    assert not set(first) & set(second)


async def test_a_lost_registry_ends_the_leadership_and_its_return_restores_it(make_master, session, tree, registry_url):
    """Streams are closed, tasks and members stay, and afterwards everything is as it was."""
    master = await make_master().start()
    async with (
        SimAgent(session, master.url) as agent,
        SimFramework(session, master.url, name="etl", failover_timeout=60.0) as framework,
    ):
        await published(framework, tree, "t1")
        handle = cluster(registry_url.removeprefix("memory:"))
        handle.stop()
        await until(lambda: not framework.stream_id, 8, "the stream is closed")
        handle.start()
        await until(lambda: len(registrations(agent)) == 2, 20, "the agent is back")
        await framework.close()
        await framework.subscribe(wait_s=10)
        state = await master.get("/state")
        await asyncio.sleep(0.2)

    assert [t["state"] for f in state["frameworks"] for t in f["tasks"]] == ["TASK_RUNNING"]
    assert members(tree) == ["t1"]


async def test_the_record_of_a_death_is_deleted_by_the_next_leader(make_master, tree):
    """It was there for readers; nothing is killed for it, and it does not stay."""
    record = Leaving(task="t9", service="etl:worker", member="m", reason="dead", deadline_s=0.0)
    await tree.registry.commit([Create(paths.leaving("t9"), encode(record))])
    await until(lambda: tree.folder(paths.LEAVING))
    await make_master().start()

    await until(lambda: not tree.folder(paths.LEAVING), 6, "the record is gone")


async def test_a_predecessor_that_still_stands_at_the_same_address_is_nobody_to_be_sent_to(
    make_master, session, registry_url
):
    """Killed a moment ago, its session lasts: 503, held back, until the successor is elected. Never "ask me again"."""
    master = make_master()
    port = int(master.url.rpartition(":")[2])
    old = await open_registry(registry_url)
    before = master_info(master.settings, "the one before", port)
    standings = old.campaign("master", encode(before), candidacy=master.settings.candidacy)
    while not (await anext(standings)).leading:
        pass
    await master.start(wait=False)
    body = b'{"type": "SUBSCRIBE", "subscribe": {"framework_info": {"user": "u", "name": "n"}}}'
    headers = {"Content-Type": "application/json"}

    async def answer(path):
        given = {"data": body, "headers": headers} if path.startswith("/api") else {}
        method = "POST" if given else "GET"
        async with session.request(method, master.url + path, allow_redirects=False, **given) as response:
            return response.status

    await eventually("it listens", lambda: answer("/health"))
    seen = [await answer(path) for path in ("/api/v1/scheduler", "/state", "/redirect")]
    await standings.aclose()
    await old.close()
    await eventually("it leads", master.is_ready)

    assert [503, 503, 503] == seen
