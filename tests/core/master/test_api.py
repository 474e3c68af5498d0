"""What frameworks, operators and strangers get told: status codes, words, and what stays as it was."""

import asyncio
import json

import pytest

from harness.sim_agent import SimAgent
from harness.sim_framework import SimFramework, command_task, until

JSON = {"Content-Type": "application/json"}


async def post(session, url, body, headers=JSON):
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    async with session.post(url, data=data, headers=headers) as response:
        return response.status, await response.text()


@pytest.fixture
async def framework(master, session):
    async with SimFramework(session, master.url) as subscribed:
        yield subscribed


async def test_calls_are_refused_with_mesos_codes(master, session, framework):
    """The negative oracle: each mistake has its status, and the framework stays subscribed."""
    url = master.url + "/api/v1/scheduler"
    revive = {"type": "REVIVE", "framework_id": {"value": framework.id}}
    right = {**JSON, "Mesos-Stream-Id": framework.stream_id}
    subscribe = {"type": "SUBSCRIBE", "subscribe": {"framework_info": {"name": "n", "user": "u"}}}
    seen = {
        "right": await post(session, url, revive, right),
        "no stream id": await post(session, url, revive),
        "wrong stream id": await post(session, url, revive, {**JSON, "Mesos-Stream-Id": "x"}),
        "unknown framework": await post(session, url, {**revive, "framework_id": {"value": "no"}}, right),
        "protobuf": await post(session, url, b"\x08\x01", {"Content-Type": "application/x-protobuf"}),
        "no content type": await post(session, url, revive, {"Content-Type": ""}),
        "junk": await post(session, url, b"junk"),
        "unknown type": await post(session, url, {**revive, "type": "UNKNOWN"}, right),
        "stream id on subscribe": await post(session, url, subscribe, right),
        "wrong accept": await post(session, url, subscribe, {**JSON, "Accept": "application/x-protobuf"}),
    }
    async with session.get(url) as response:
        seen["get"] = (response.status, "")

    assert {k: v[0] for k, v in seen.items()} == {
        "right": 202,
        "no stream id": 400,
        "wrong stream id": 400,
        "unknown framework": 400,
        "protobuf": 415,
        "no content type": 400,
        "junk": 400,
        "unknown type": 501,
        "stream id on subscribe": 400,
        "wrong accept": 406,
        "get": 405,
    }
    assert seen["unknown framework"][1] == "Framework cannot be found"
    assert framework.stream_id


async def test_a_framework_without_a_stream_is_not_subscribed(master, session, framework):
    """403, in Mesos' words, until its failover time is over."""
    keeps = SimFramework(session, master.url, name="keeps", failover_timeout=60.0)
    await keeps.subscribe()
    stream_id = keeps.stream_id
    await keeps.close()
    await asyncio.sleep(0.1)
    revive = {"type": "REVIVE", "framework_id": {"value": keeps.id}}
    answer = await post(session, master.url + "/api/v1/scheduler", revive, {**JSON, "Mesos-Stream-Id": stream_id})

    assert answer == (403, "Framework is not subscribed")


async def test_a_newer_subscription_fails_the_older_over(master, session, framework):
    """The older stream hears why, and ends; the id stays."""
    newer = SimFramework(session, master.url)
    newer.id = framework.id
    await newer.subscribe()
    await until(lambda: not framework.stream_id)
    await newer.close()

    assert framework.events[-1] == {"type": "ERROR", "error": {"message": "Framework failed over"}}
    assert newer.id == framework.id


async def test_a_used_offer_makes_tasks_lost_with_the_reason(master, session, framework):
    """An offer may be used once: TASK_LOST and REASON_INVALID_OFFERS, on which clients queue again."""
    async with SimAgent(session, master.url):
        offer = await framework.an_offer()
        await framework.accept(offer, command_task("t1", offer))
        await framework.accept(offer, command_task("t2", offer))
        await framework.reaches("t2", "TASK_LOST")
        [status] = [e["update"]["status"] for e in framework.of_type("UPDATE") if _task(e) == "t2"]

    assert status["reason"] == "REASON_INVALID_OFFERS"
    assert "uuid" not in status
    assert status["message"].endswith(f"Offer {offer['id']['value']} is no longer valid")


def _task(event):
    return event["update"]["status"]["task_id"]["value"]


async def test_a_bad_task_is_an_error_and_its_neighbour_runs(master, session, framework):
    """TASK_ERROR with the reason for the one, RUNNING for the other."""
    async with SimAgent(session, master.url):
        offer = await framework.an_offer()
        await framework.accept(offer, command_task("big", offer, cpus=999), command_task("ok", offer))
        await framework.reaches("big", "TASK_ERROR")
        await framework.reaches("ok", "TASK_RUNNING")
        [status] = [e["update"]["status"] for e in framework.of_type("UPDATE") if _task(e) == "big"]

    assert (status["reason"], status["source"]) == ("REASON_TASK_INVALID", "SOURCE_MASTER")


async def test_a_declined_offer_comes_back_after_its_refusal(master, session, framework):
    """Not before, and a revive brings it at once."""
    async with SimAgent(session, master.url):
        await framework.decline(await framework.an_offer(), refuse_s=60)
        await asyncio.sleep(0.5)
        refused = dict(framework.offers)
        await framework.call("REVIVE")
        await framework.an_offer(wait_s=1)

    assert refused == {}


async def test_a_suppressed_framework_gets_nothing(master, session, framework):
    """Until it revives."""
    await framework.call("SUPPRESS")
    async with SimAgent(session, master.url):
        await asyncio.sleep(0.3)
        suppressed = dict(framework.offers)
        await framework.call("REVIVE")
        await framework.an_offer(wait_s=1)

    assert suppressed == {}


async def test_agents_are_shared_out_between_frameworks(master, session):
    """Four equal agents, two frameworks: two each, none twice."""
    agents = [SimAgent(session, master.url, name=f"a{n}", port=6000 + n) for n in range(4)]
    async with SimFramework(session, master.url, name="x") as x, SimFramework(session, master.url, name="y") as y:
        for agent in agents:
            agent.start()
        await until(lambda: len(x.offers) + len(y.offers) == 4)
        shared = (len(x.offers), len(y.offers))
        hosts = {o["hostname"] for f in (x, y) for o in f.offers.values()}
        for agent in agents:
            await agent.stop()

    assert shared == (2, 2)
    assert hosts == {"a0", "a1", "a2", "a3"}


async def test_updates_come_until_they_are_acknowledged(master, session, framework):
    """The same uuid again, and the next state only after the acknowledgement."""
    framework.acknowledges = False
    async with SimAgent(session, master.url, states=("TASK_RUNNING",)) as agent:
        offer = await framework.an_offer()
        await framework.accept(offer, command_task("t1", offer))
        await framework.reaches("t1", "TASK_RUNNING")
        agent.finish("t1")
        await until(lambda: framework.states("t1") == ["TASK_RUNNING"] * 2, 4)
        uuids = {e["update"]["status"]["uuid"] for e in framework.of_type("UPDATE")}
        framework.acknowledges = True
        await framework.reaches("t1", "TASK_FINISHED", 4)

    assert len(uuids) == 1


async def test_what_has_ended_is_offered_again_before_it_is_acknowledged(master, session, framework):
    """`latest_state` frees resources early."""
    framework.acknowledges = False
    async with SimAgent(session, master.url, states=("TASK_RUNNING", "TASK_FINISHED"), resources="cpus:1"):
        offer = await framework.an_offer()
        await framework.accept(offer, command_task("t1", offer, cpus=1), refuse_s=0)
        again = await framework.an_offer(wait_s=3)

    assert again["resources"][0]["scalar"]["value"] == 1.0


async def test_an_offer_sat_on_gives_way_to_one_with_all_that_is_free(master, session, framework):
    """Never two of one agent at a time: the small one is rescinded after a while, the next has everything."""
    async with SimAgent(session, master.url, resources="cpus:4"):
        offer = await framework.an_offer()
        await framework.accept(offer, command_task("t1", offer, cpus=1), refuse_s=0)
        await until(lambda: framework.offers)
        [rest] = framework.offers.values()
        await framework.reaches("t1", "TASK_RUNNING")
        await framework.kill("t1")
        await until(lambda: framework.offers and rest["id"]["value"] not in framework.offers, 4)
        [whole] = framework.offers.values()

    assert [rest["resources"][0]["scalar"]["value"], whole["resources"][0]["scalar"]["value"]] == [3.0, 4.0]
    assert [e["rescind"]["offer_id"] for e in framework.of_type("RESCIND")][:1] == [rest["id"]]


async def test_reconciliation_tells_latest_states_and_unknowns(master, session, framework):
    """Explicit: the task's state, and TASK_LOST for a stranger's; implicit: all that is known."""
    async with SimAgent(session, master.url) as agent:
        offer = await framework.an_offer()
        await framework.accept(offer, command_task("t1", offer))
        await framework.reaches("t1", "TASK_RUNNING")
        framework.events.clear()
        asked = [{"task_id": {"value": t}, "agent_id": {"value": agent.agent_id}} for t in ("t1", "no")]
        await framework.call("RECONCILE", reconcile={"tasks": asked})
        await until(lambda: len(framework.of_type("UPDATE")) == 2)
        explicit = {_task(e): e["update"]["status"] for e in framework.of_type("UPDATE")}
        framework.events.clear()
        await framework.call("RECONCILE", reconcile={"tasks": []})
        await until(lambda: framework.of_type("UPDATE"))
        implicit = [_task(e) for e in framework.of_type("UPDATE")]

    assert {t: s["state"] for t, s in explicit.items()} == {"t1": "TASK_RUNNING", "no": "TASK_LOST"}
    assert {s["reason"] for s in explicit.values()} == {"REASON_RECONCILIATION"}
    assert not any("uuid" in s for s in explicit.values())
    assert implicit == ["t1"]


async def test_a_framework_that_does_not_come_back_is_torn_down(master, session):
    """failover_timeout 0: its tasks end with its stream, and its id is spent."""
    async with SimAgent(session, master.url) as agent:
        framework = SimFramework(session, master.url)
        await framework.subscribe()
        offer = await framework.an_offer()
        await framework.accept(offer, command_task("t1", offer))
        await framework.reaches("t1", "TASK_RUNNING")
        await framework.close()
        await until(lambda: not agent.tasks)
        await framework.subscribe()
        await until(lambda: framework.of_type("ERROR"))
        state = await master.get("/state")

    assert state["frameworks"] == []
    assert framework.events[-1]["error"]["message"] == "Framework has been removed"
    assert state["slaves"][0]["used_resources"]["cpus"] == 0


async def test_a_drained_agent_is_emptied(master, session):
    """No more offers, inverse offers with the deadline, then what remains leaves with reason drain; DRAINED."""
    async with SimAgent(session, master.url) as agent, SimFramework(session, master.url) as framework:
        offer = await framework.an_offer()
        await framework.accept(offer, command_task("t1", offer), refuse_s=0)
        await framework.reaches("t1", "TASK_RUNNING")
        await until(lambda: framework.offers)
        drain = {"agent_id": {"value": agent.agent_id}, "max_grace_period": {"nanoseconds": 600_000_000}}
        status, _ = await master.operate("DRAIN_AGENT", drain_agent=drain)
        await until(lambda: framework.of_type("INVERSE_OFFERS"))
        [inverse] = framework.of_type("INVERSE_OFFERS")[0]["inverse_offers"]["inverse_offers"]
        offers = dict(framework.offers)
        draining = (await master.get("/slaves"))["slaves"][0]
        await framework.call("ACCEPT_INVERSE_OFFERS", accept_inverse_offers={"inverse_offer_ids": [inverse["id"]]})
        await framework.reaches("t1", "TASK_KILLED")
        [kill] = [c for c in agent.commands if type(c).__name__ == "Kill"]
        await until(lambda: "t1" not in agent.tasks)
        await asyncio.sleep(0.2)
        _, page = await master.operate("GET_AGENTS")
        await master.operate("REACTIVATE_AGENT", reactivate_agent={"agent_id": {"value": agent.agent_id}})
        await framework.an_offer(wait_s=2)

    assert (status, offers) == (200, {})
    assert draining["drain_info"]["state"] == "DRAINING"
    assert draining["deactivated"] is True
    assert inverse["unavailability"]["start"]["nanoseconds"] > 0
    assert kill.reason == "drain"
    assert page["get_agents"]["agents"][0]["drain_info"]["state"] == "DRAINED"


async def test_draining_outlives_the_master(make_master, session):
    """Durable: the next leader offers nothing of it either."""
    master = await make_master().start()
    async with SimAgent(session, master.url) as agent:
        await master.operate("DRAIN_AGENT", drain_agent={"agent_id": {"value": agent.agent_id}})
        await asyncio.sleep(0.2)
        await master.crash()
        await master.start()
        await until(lambda: agent.epoch == 2, 8)
        async with SimFramework(session, master.url) as framework:
            await asyncio.sleep(0.3)
            offers = dict(framework.offers)
        page = await master.get("/slaves")

    assert offers == {}
    assert page["slaves"][0]["drain_info"]["config"] == {"mark_gone": False}


async def test_a_framework_that_comes_back_is_asked_again_to_leave_a_draining_agent(make_master, session):
    """Its own restart, or the master's: the inverse offer is made anew."""
    master = await make_master().start()
    async with (
        SimAgent(session, master.url) as agent,
        SimFramework(session, master.url, failover_timeout=60.0) as framework,
    ):
        offer = await framework.an_offer()
        await framework.accept(offer, command_task("t1", offer))
        await framework.reaches("t1", "TASK_RUNNING")
        await master.operate("DRAIN_AGENT", drain_agent={"agent_id": {"value": agent.agent_id}})
        seen = []
        for restart in (False, False, True):
            framework.events.clear()
            await framework.close()
            if restart:
                await master.crash()
                await master.start()
            await framework.subscribe()
            await until(lambda: framework.of_type("INVERSE_OFFERS"), 8)
            seen.append(len(framework.of_type("INVERSE_OFFERS")))

    assert seen == [1, 1, 1]


async def test_an_agent_marked_gone_never_comes_back(make_master, session):
    """Its tasks are GONE_BY_OPERATOR for those who understand it, and its id gets 410, under the next leader too."""
    master = await make_master().start()
    capable = [{"type": "PARTITION_AWARE"}]
    async with (
        SimAgent(session, master.url) as agent,
        SimFramework(session, master.url, capabilities=capable) as framework,
    ):
        offer = await framework.an_offer()
        await framework.accept(offer, command_task("t1", offer))
        await framework.reaches("t1", "TASK_RUNNING")
        await master.operate("MARK_AGENT_GONE", mark_agent_gone={"agent_id": {"value": agent.agent_id}})
        await framework.reaches("t1", "TASK_GONE_BY_OPERATOR")
        await until(lambda: agent.gone)
        await asyncio.sleep(0.2)
    await master.crash()
    await master.start()
    back = SimAgent(session, master.url, agent_id=agent.agent_id)
    back.start()
    await until(lambda: back.gone)
    await back.stop()


async def test_operator_calls_answer_under_their_names(master, session, framework):
    """`{"type": T, "<t lower>": {...}}`; the alias pymesos uses; 501 names what there is."""
    kinds = (
        "GET_HEALTH",
        "GET_VERSION",
        "GET_STATE",
        "GET_AGENTS",
        "GET_FRAMEWORKS",
        "GET_TASKS",
        "GET_MASTER",
        "GET_METRICS",
    )
    pages = {kind: (await master.operate(kind))[1] for kind in kinds}
    alias = await post(session, master.url + "/api/v1/operator", {"type": "GET_VERSION"})
    missing = await master.operate("GET_QUOTA")
    unknown = await master.operate("DRAIN_AGENT", drain_agent={"agent_id": {"value": "no"}})
    empty = await master.operate("DRAIN_AGENT")

    assert all(page["type"] == kind and kind.lower() in page for kind, page in pages.items())
    assert pages["GET_VERSION"]["get_version"]["version_info"]["version"] == "1.11.0"
    assert alias[0] == 200
    assert missing[0] == 501
    assert "GET_AGENTS" in missing[1]["message"]
    assert unknown == (400, {"message": "no agent 'no' is known"})
    assert empty[0] == 400


async def test_the_old_pages_are_there_under_both_prefixes(master, session, framework):
    """What Mesos-DNS, exporters and dashboards read."""
    async with SimAgent(session, master.url):
        names = ("state", "state-summary", "tasks", "slaves", "frameworks", "version", "metrics/snapshot", "health")
        pages = {f"{p}{n}": await master.get(f"{p}{n}") for p in ("/", "/master/") for n in names}
        state = pages["/state"]
        prometheus = await session.get(master.url + "/metrics")
        text = await prometheus.text()

    assert state["leader"] == state["pid"] == f"master@127.0.0.1:{master.settings.port}"
    assert set(state["slaves"][0]) >= {"id", "hostname", "pid", "attributes", "resources"}
    assert state["frameworks"][0]["name"] == "sim"
    assert pages["/version"] == {"version": "1.11.0"}
    assert pages["/metrics/snapshot"]["master/slaves_active"] == 1
    assert "fairlead_core_master_leading 1.0" in text


async def test_events_are_ascii_without_newlines(master, session):
    """One client slices by byte counts after decoding."""
    async with SimAgent(session, master.url, name="büro\n"):
        body = {"type": "SUBSCRIBE", "subscribe": {"framework_info": {"name": "n", "user": "u"}}}
        async with session.post(master.url + "/api/v1/scheduler", json=body) as response:
            raw = b""
            async with asyncio.timeout(5):
                while b"OFFERS" not in raw or not raw.endswith(b"}"):
                    raw += await response.content.readany()

    assert raw.isascii()
    assert b"b\\u00fcro\\n" in raw
    assert raw.count(b"\n") == len([line for line in raw.split(b"\n") if line]) - 1


async def test_a_foreign_page_and_a_foreign_host_can_start_nothing(master, session):
    """403 before anything is read."""
    body = {"type": "MARK_AGENT_GONE"}
    foreign = await post(session, master.url + "/api/v1", body, {**JSON, "Origin": "http://evil.example"})
    rebound = await post(session, master.url + "/api/v1", body, {**JSON, "Host": "evil.example"})

    assert (foreign[0], rebound[0]) == (403, 403)


async def test_an_agent_of_another_protocol_is_told_both_versions(master, session):
    """409, before its message is read further."""
    answer = await post(session, master.url + "/agent/v1/stream", {"type": "REGISTER", "version": 99})

    assert answer == (409, '{"message":"agent protocol 99, this master speaks 1"}')


async def test_without_a_leader_the_answer_is_held_back(make_master, session, registry_url):
    """503 after a second, so that a client that retries at once cannot spin; then it leads."""
    from fairlead_discovery.adapters.memory import cluster  # only this test stops the registry

    handle = cluster(registry_url.removeprefix("memory:"))
    handle.stop()
    master = make_master()
    await master.start(wait=False)
    await asyncio.sleep(2.1)  # it waits as long for a first sight of the registry before it listens
    loop = asyncio.get_running_loop()
    began = loop.time()
    status, _ = await post(session, master.url + "/api/v1/scheduler", {"type": "SUBSCRIBE"})
    took = loop.time() - began
    handle.start()
    await until(lambda: not master.context.health.waits, 10)

    assert status == 503
    assert took >= 0.29
