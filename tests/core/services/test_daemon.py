"""The scheduler from HTTP to the master's calls, and back: launching, replacing, draining."""

import asyncio
from typing import Any

from harness.services import APP, Services, deploy, ids
from harness.stub_mesos import StubMesos
from harness.waiting import eventually


async def test_an_app_is_created_launched_and_healthy(services: Services, mesos: StubMesos):
    """POST answers 201 with the app and its deployment; the tasks run on both agents."""
    status, answer = await services.call("POST", "/v2/apps", APP)
    app = await services.settled(2)

    assert 201 == status
    assert ["id"] == list(answer["deployments"][0])
    assert {"host-S0", "host-S1"} == {t["host"] for t in app["tasks"]}
    assert mesos.of_app("shop_web") == sorted(ids(app))


async def test_scaling_ends_the_youngest_first_with_the_reason(services: Services, mesos: StubMesos):
    """2, 4, 2: the first two stay."""
    first = ids(await deploy(services))
    await services.call("PUT", "/v2/apps/shop/web", {"instances": 4})
    await services.settled(4)
    status, answer = await services.call("PUT", "/v2/apps/shop/web", {"instances": 2})
    last = ids(await services.settled(2))

    assert (200, ["deploymentId", "version"]) == (status, sorted(answer))
    assert first == last
    assert {"scale"} == {c["fairlead"]["reason"] for c in mesos.of("KILL")}


async def test_an_upgrade_starts_the_new_before_it_ends_the_old(services: Services, mesos: StubMesos):
    """minimumHealthCapacity 1: never fewer than two healthy ones."""
    old = ids(await deploy(services))
    mesos.heals = None
    status, _ = await services.call("PUT", "/v2/apps/shop/web", {"cmd": "other"})

    async def four() -> bool:
        return len(mesos.of_app("shop_web")) == 4

    await eventually("two more are started", four)
    await asyncio.sleep(0.2)
    assert [] == mesos.of("KILL")  # the new ones are not healthy yet
    for task in set(mesos.of_app("shop_web")) - old:
        await mesos.update(task, "TASK_RUNNING", healthy=True)
    new = ids(await services.settled(2))

    assert 200 == status
    assert not old & new
    assert all(mesos.tasks[t]["command"]["value"] == "other" for t in new)


async def test_restart_replaces_every_instance(services: Services):
    """Same definition, other tasks."""
    old = ids(await deploy(services))
    status, _ = await services.call("POST", "/v2/apps/shop/web/restart")

    assert 200 == status
    assert not old & ids(await services.settled(2))


async def test_a_failed_instance_is_replaced_and_told(services: Services, mesos: StubMesos):
    """lastTaskFailure names it, with Mesos' message."""
    app = await deploy(services)
    victim = min(ids(app))
    await mesos.update(victim, "TASK_FAILED", message="Command exited with status 1")

    async def replaced() -> dict[str, Any] | None:
        found = await services.app()
        return found if victim not in ids(found) and found["tasksHealthy"] == 2 else None

    after = await eventually("it is replaced", replaced)
    assert after is not None
    failure = after["lastTaskFailure"]
    assert (victim, "TASK_FAILED", "Command exited with status 1") == (
        failure["taskId"],
        failure["state"],
        failure["message"],
    )


async def test_a_crash_loop_waits_longer_and_longer_until_the_delay_is_reset(services: Services, mesos: StubMesos):
    """The queue tells the delay; DELETE of it launches at once."""
    mesos.runs = False
    await services.call("POST", "/v2/apps", {**APP, "instances": 1, "backoffSeconds": 100, "healthChecks": []})

    async def launched() -> str | None:
        return next(iter(mesos.tasks), None)

    first = await eventually("it is launched", launched)
    assert first is not None
    await mesos.update(first, "TASK_FAILED")

    async def delayed() -> dict[str, Any] | None:
        queue = (await services.get("/v2/queue"))["queue"]
        return queue[0] if queue and queue[0]["delay"]["timeLeftSeconds"] else None

    item = await eventually("the queue tells the delay", delayed)
    assert item is not None
    assert 95 < item["delay"]["timeLeftSeconds"] <= 100
    assert "backoff" in (await services.get("/fairlead/explain?app=/shop/web"))["reasons"][0]
    status, _ = await services.call("DELETE", "/v2/queue//shop/web/delay")
    assert 204 == status
    assert first != await eventually("it is launched again", launched)


async def test_a_drained_agent_that_holds_everything_is_left_only_after_replacements_are_healthy(
    services: Services, mesos: StubMesos
):
    """The inverse offer is accepted; the old ones are killed with reason drain, last."""
    await deploy(services, 2, constraints=[["hostname", "CLUSTER", "host-S0"]])
    await services.call("PUT", "/v2/apps/shop/web?force=true", {"constraints": [["hostname", "UNLIKE", "nowhere"]]})
    app = await services.settled(2)
    for task in ids(app):
        if mesos.agent_of(task) == "S1":
            await services.call("DELETE", f"/v2/apps/shop/web/tasks/{task}")
    app = await services.settled(2)
    held = mesos.agent_of(min(ids(app)))
    mesos.heals = None
    kills = len(mesos.of("KILL"))
    await mesos.drain(held)
    await mesos.called("ACCEPT_INVERSE_OFFERS")
    staying = [t for t in ids(app) if mesos.agent_of(t) != held]
    leaving = ids(app) - set(staying)

    async def replaced() -> list[str] | None:
        new = set(mesos.of_app("shop_web")) - ids(app)
        return sorted(new) if len(new) == len(leaving) else None

    new = await eventually("replacements are started", replaced)
    assert new is not None
    assert kills == len(mesos.of("KILL"))
    assert all(mesos.agent_of(t) != held for t in new)
    for task in new:
        await mesos.update(task, "TASK_RUNNING", healthy=True)
    assert set(new) | set(staying) == ids(await services.settled(2))
    assert {"drain"} == {c["fairlead"]["reason"] for c in mesos.of("KILL")[kills:]}


async def test_an_agent_is_drained_no_more_when_the_inverse_offer_is_rescinded(services: Services, mesos: StubMesos):
    """Without room elsewhere nothing moved; afterwards nothing has to."""
    mesos.agents["S1"]["cpus"] = 0.0
    app = await deploy(services)
    await mesos.drain("S0")
    await mesos.called("ACCEPT_INVERSE_OFFERS")

    async def waits() -> bool:
        return "old instances" in str((await services.get("/fairlead/explain?app=/shop/web"))["agents"]) or bool(
            (await services.get("/fairlead/explain?app=/shop/web"))["to_launch"]
        )

    await eventually("it wants replacements", waits)
    mesos.unavailable.clear()
    await mesos.send(
        {"type": "RESCIND_INVERSE_OFFER", "rescind_inverse_offer": {"inverse_offer_id": {"value": "I-S0"}}}
    )

    async def calm() -> bool:
        return not (await services.get("/fairlead/explain?app=/shop/web"))["to_launch"]

    await eventually("it wants no more", calm)
    assert ids(app) == ids(await services.app())
    assert [] == mesos.of("KILL")


async def test_an_unreachable_instance_is_replaced_at_once_and_known_when_it_comes_back(
    services: Services, mesos: StubMesos
):
    """unreachableStrategy 0/0; back again, one too many is ended."""
    app = await deploy(services)
    lost = min(ids(app))
    await mesos.update(lost, "TASK_UNREACHABLE")

    async def replaced() -> bool:
        found = await services.app()
        return lost not in ids(found) and found["tasksHealthy"] == 2

    await eventually("it is replaced", replaced)
    await mesos.update(lost, "TASK_RUNNING", healthy=True)
    await mesos.called("KILL")
    assert 2 == len(ids(await services.settled(2)))


async def test_unreachable_instances_are_waited_for_when_the_app_says_so(services: Services, mesos: StubMesos):
    """inactiveAfterSeconds 100: nothing is launched meanwhile."""
    app = await deploy(services, unreachableStrategy={"inactiveAfterSeconds": 100, "expungeAfterSeconds": 200})
    launches = len(mesos.of("ACCEPT"))
    await mesos.update(min(ids(app)), "TASK_UNREACHABLE")

    async def seen() -> bool:
        return (await services.app())["tasksRunning"] == 1

    await eventually("it is seen", seen)
    await asyncio.sleep(0.3)
    assert launches == len(mesos.of("ACCEPT"))
