"""The way of a task through a real master: offer, launch, updates, acknowledgement, publication, end."""

import msgspec

from fairlead_core.master.decisions import tasks
from fairlead_discovery import paths
from harness.sim_agent import SimAgent
from harness.sim_framework import SimFramework, command_task, until


async def test_a_task_runs_and_ends(master, session):
    """An offer is accepted, its task reaches RUNNING and FINISHED, and every update is acknowledged to the agent."""
    async with SimAgent(session, master.url) as agent, SimFramework(session, master.url) as framework:
        offer = await framework.an_offer()
        assert await framework.accept(offer, command_task("t1", offer)) == 202
        await framework.reaches("t1", "TASK_RUNNING")
        agent.finish("t1")
        await framework.reaches("t1", "TASK_FINISHED")
        await until(lambda: "t1" not in agent.tasks)

    assert framework.states("t1") == ["TASK_STARTING", "TASK_RUNNING", "TASK_FINISHED"]


async def test_subscribed_comes_first_then_a_heartbeat_at_once(master, session):
    """The order one client depends on; master_info names us."""
    async with SimFramework(session, master.url) as framework:
        await until(lambda: len(framework.events) >= 2)

    assert [e["type"] for e in framework.events[:2]] == ["SUBSCRIBED", "HEARTBEAT"]
    subscribed = framework.events[0]["subscribed"]
    assert subscribed["heartbeat_interval_seconds"] == 15.0
    assert subscribed["master_info"]["ip"] == 16777343
    assert subscribed["framework_id"]["value"].endswith("-0000")


async def test_a_running_task_with_ports_is_published_and_goes_when_it_dies(master, session, tree):
    """RUNNING makes a member whose name says its content; death deletes it together with a leaving record."""
    async with SimAgent(session, master.url) as agent, SimFramework(session, master.url, name="etl") as framework:
        offer = await framework.an_offer()
        await framework.accept(offer, command_task("t1", offer, ports=1, name="worker"))
        folder = paths.endpoint_folder("etl:worker")
        await until(lambda: tree.folder(folder))
        [(name, data)] = tree.folder(folder).items()
        agent.finish("t1", "TASK_FAILED")
        await until(lambda: not tree.folder(folder))
        record = msgspec.json.decode(tree.folder(paths.LEAVING)["t1"])
        await until(lambda: not tree.folder(paths.LEAVING), 5)

    assert name == f"member_t1_{paths.digest(data)}"
    member = msgspec.json.decode(data)
    assert member["serviceEndpoint"] == {"host": "127.0.0.1", "port": 31000}
    assert member["status"] == "ALIVE"
    assert (record["reason"], record["member"]) == ("dead", name)


async def test_killed_tasks_leave_before_they_die(master, session, tree):
    """KILL withdraws the member and writes the leaving record in one revision; the agent hears of it later."""
    async with (
        SimAgent(session, master.url) as agent,
        SimFramework(session, master.url, name="etl", capabilities=[{"type": "TASK_KILLING_STATE"}]) as framework,
    ):
        offer = await framework.an_offer()
        await framework.accept(offer, command_task("t1", offer, ports=1, name="worker"))
        folder = paths.endpoint_folder("etl:worker")
        await until(lambda: tree.folder(folder))
        await framework.kill("t1", fairlead={"reason": "scale"})
        await framework.reaches("t1", "TASK_KILLING")
        killed_at_once = "t1" in [c.task_id for c in agent.commands if type(c).__name__ == "Kill"]
        await until(lambda: tree.folder(paths.LEAVING))
        both = [s for s in tree.seen if s.folders.get(folder) and s.folders.get(paths.LEAVING)]
        record = msgspec.json.decode(tree.folder(paths.LEAVING)["t1"])
        await framework.reaches("t1", "TASK_KILLED")
        await until(lambda: not tree.folder(paths.LEAVING))

    assert not killed_at_once
    assert both == []
    assert record["reason"] == "scale"


async def test_a_name_that_no_registry_takes_is_refused_in_words(master, session, tree):
    """At its launch; another task of the same framework is published."""
    async with SimAgent(session, master.url), SimFramework(session, master.url, name="etl") as framework:
        offer = await framework.an_offer()
        await framework.accept(offer, command_task("t1", offer, ports=1, name="x" * 1100), refuse_s=0)
        await framework.reaches("t1", "TASK_ERROR")
        offer = await framework.an_offer()
        await framework.accept(offer, command_task("t2", offer, ports=1, name="worker"))
        await until(lambda: tree.folder(paths.endpoint_folder("etl:worker")))


async def test_what_no_registry_takes_holds_up_nobody_else(master, session, tree, monkeypatch, caplog):
    """One that runs already, from before there was such a rule: it is left out, and named once."""
    monkeypatch.setattr(tasks, "RULES", tuple(rule for rule in tasks.RULES if rule.__name__ != "_size_rule"))
    async with SimAgent(session, master.url), SimFramework(session, master.url, name="etl") as framework:
        offer = await framework.an_offer()
        await framework.accept(offer, command_task("t1", offer, ports=1, name="x" * 1100), refuse_s=0)
        await framework.reaches("t1", "TASK_RUNNING")
        for task in ("t2", "t3"):
            offer = await framework.an_offer()
            await framework.accept(offer, command_task(task, offer, ports=1, name="worker"), refuse_s=0)
        await until(lambda: len(tree.folder(paths.endpoint_folder("etl:worker"))) == 2)

    assert 1 == caplog.text.count("not published, the registry would not take it")
