"""The scheduler from HTTP to the master's calls, and back."""

import asyncio
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest

from fairlead_discovery import paths
from fairlead_discovery.backends import open_registry
from fairlead_discovery.records import NameServer, Route, decode
from fairlead_discovery.registry import Delete
from harness.stub_mesos import StubMesos
from harness.waiting import eventually

from .conftest import APP, Services


async def deploy(services: Services, count: int = 2, **changes: Any) -> dict[str, Any]:
    status, answer = await services.call("POST", "/v2/apps", {**APP, "instances": count, **changes})
    assert 201 == status, answer
    return await services.settled(count, changes.get("id", "/shop/web"))


def ids(app: dict[str, Any]) -> set[str]:
    return {t["id"] for t in app["tasks"]}


async def test_an_app_is_created_launched_and_healthy(services: Services, mesos: StubMesos):
    """POST answers 201 with the app and its deployment; the tasks run on both agents."""
    status, answer = await services.call("POST", "/v2/apps", APP)
    app = await services.settled(2)

    assert 201 == status
    assert ["id"] == list(answer["deployments"][0])
    assert {"host-S0", "host-S1"} == {t["host"] for t in app["tasks"]}
    assert mesos.of_app("shop_web") == sorted(ids(app))


async def test_the_framework_registers_as_marathon_did(services: Services, mesos: StubMesos):
    """One week of failover, partition awareness, the settable name; the id is stored and used again."""
    info = (await mesos.called("SUBSCRIBE"))["subscribe"]["framework_info"]

    assert ("marathon", 604800.0, True, ["*"]) == (
        info["name"],
        info["failover_timeout"],
        info["checkpoint"],
        info["roles"],
    )
    assert {"PARTITION_AWARE", "TASK_KILLING_STATE", "MULTI_ROLE"} == {c["type"] for c in info["capabilities"]}
    await services.stop()
    await services.start()
    assert mesos.frameworks == ["F0", "F0"]


async def test_every_update_with_a_uuid_is_acknowledged(services: Services, mesos: StubMesos):
    """Also those of tasks nobody knows."""
    await deploy(services)
    await mesos.update("foreign", "TASK_RUNNING")
    await mesos.update("other_app.instance-1._app.1", "TASK_FINISHED")

    async def none_left() -> bool:
        return not mesos.unacknowledged

    await eventually("all are acknowledged", none_left)


async def test_offers_are_suppressed_when_nothing_waits_and_revived_when_something_does(
    services: Services, mesos: StubMesos
):
    """And declined for long meanwhile."""
    await mesos.called("SUPPRESS")
    await mesos.offer()
    declined = await mesos.called("DECLINE")
    before = len(mesos.of("REVIVE"))
    await deploy(services)
    await mesos.called("REVIVE", count=before + 1)

    assert 120.0 == declined["decline"]["filters"]["refuse_seconds"]
    await mesos.called("SUPPRESS", count=2)


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


async def test_a_kill_is_asked_again_while_the_task_leaves(services: Services, mesos: StubMesos):
    """It counts as running no more from the moment it was asked; leaving may take its time."""
    mesos.kills = False
    app = await deploy(services)
    await services.call("PUT", "/v2/apps/shop/web", {"instances": 1})
    call = await mesos.called("KILL", count=2)
    one = call["kill"]["task_id"]["value"]

    assert {one} == {c["kill"]["task_id"]["value"] for c in mesos.of("KILL")}
    shown = await services.app()
    assert (1, "TASK_KILLING") == (shown["tasksRunning"], next(t["state"] for t in shown["tasks"] if t["id"] == one))
    await mesos.update(one, "TASK_KILLED")
    assert ids(app) - {one} == ids(await services.settled(1))


async def test_kill_with_scale_and_without(services: Services, mesos: StubMesos):
    """DELETE …/tasks/{id}?scale=true lowers the count; without it the task is replaced."""
    app = await deploy(services)
    one, other = sorted(ids(app))
    status, answer = await services.call("DELETE", f"/v2/apps//shop/web/tasks/{one}?scale=true")
    assert (200, ["deploymentId", "version"]) == (status, sorted(answer))
    assert {other} == ids(await services.settled(1))
    status, answer = await services.call("POST", "/v2/tasks/delete", {"ids": [other, "unknown"]})
    assert (200, [other]) == (status, [t["id"] for t in answer["tasks"]])

    async def replaced() -> bool:
        found = await services.app()
        return bool(ids(found)) and other not in ids(found) and found["tasksHealthy"] == 1

    await eventually("it is replaced", replaced)
    assert 404 == (await services.call("DELETE", "/v2/apps/shop/web/tasks/unknown"))[0]


async def test_a_deleted_app_is_gone_with_its_tasks_versions_and_route(services: Services, mesos: StubMesos):
    """404 at once; the route goes when the last instance has gone."""
    mesos.kills = False
    await deploy(services)
    registry = await open_registry(services.settings.registry)
    route = paths.route("marathon:/shop/web")
    status, _ = await services.call("DELETE", "/v2/apps/shop/web")
    await mesos.called("KILL", count=2)

    assert (200, 404) == (status, (await services.call("GET", "/v2/apps/shop/web"))[0])
    assert await registry.read(route) is not None
    for task in mesos.of_app("shop_web"):
        await mesos.update(task, "TASK_KILLED")

    async def gone() -> bool:
        return await registry.read(route) is None and not await registry.tree.names(paths.APPS)

    await eventually("nothing of it is left", gone)
    assert () == await registry.tree.names(paths.DEPLOYMENTS)
    assert () == await registry.tree.names(paths.INSTANCES)
    await registry.close()


async def test_routes_and_service_ports(services: Services):
    """Service ports come from the range, are unique, kept by updates, and stand in the route."""
    await deploy(services)
    await deploy(services, 1, id="/other")
    registry = await open_registry(services.settings.registry)
    node = await registry.read(paths.route("marathon:/shop/web"))
    assert node is not None
    route = decode(Route, node.data, place="route")
    await registry.close()
    await services.call("PUT", "/v2/apps/shop/web", {"portDefinitions": [{"port": 0, "name": "http"}], "mem": 65})

    assert [10100] == [p.service_port for p in route.ports]
    assert [10101] == (await services.app("/other"))["ports"]
    assert [10100] == (await services.app())["ports"]
    status, answer = await services.call(
        "POST", "/v2/apps", {**APP, "id": "/third", "portDefinitions": [{"port": 10101}]}
    )
    assert 422 == status
    assert [{"path": "/portDefinitions(0)/port", "errors": ["service port 10101 is taken by /other"]}] == answer[
        "details"
    ]


async def test_labels_make_the_route_and_bad_ones_are_refused(services: Services):
    """marathon-lb's labels; one that would break the balancer is a 422 with the label's path."""
    await deploy(services, labels={"HAPROXY_0_VHOST": "shop.example", "HAPROXY_0_PATH": "/cart"})
    registry = await open_registry(services.settings.registry)
    node = await registry.read(paths.route("marathon:/shop/web"))
    await registry.close()
    assert node is not None
    port = decode(Route, node.data, place="route").ports[0]
    status, answer = await services.call(
        "PUT", "/v2/apps/shop/web", {"labels": {"HAPROXY_0_VHOST": "a.example\n  http-request deny"}}
    )

    assert (("shop.example",), "/cart", "http", "http", "/") == (
        port.vhosts,
        port.path,
        port.mode,
        port.name,
        port.check.path if port.check else None,
    )
    assert (422, "/labels/HAPROXY_0_VHOST") == (status, answer["details"][0]["path"])


async def test_a_lost_route_is_written_again_by_the_next_leader(services: Services):
    """Whoever removed it."""
    await deploy(services)
    registry = await open_registry(services.settings.registry)
    await services.stop()
    await registry.commit([Delete(paths.route("marathon:/shop/web"))])
    await services.start()

    async def back() -> bool:
        return await registry.read(paths.route("marathon:/shop/web")) is not None

    await eventually("the route is back", back)
    await registry.close()


async def test_the_largest_ttl_of_the_name_servers_bounds_the_drain(services: Services):
    """It is what name servers announce, read live."""
    registry = await open_registry(services.settings.registry)
    server = NameServer(id="a", address="127.0.0.1:53", largest_ttl_s=60)
    await registry.announce(paths.below(paths.NAME_SERVERS, "a"), msgspec.json.encode(server))

    async def refused() -> bool:
        labels = {"FAIRLEAD_DRAIN_SECONDS": "30"}
        status, answer = await services.call("POST", "/v2/apps", {**APP, "id": "/slow", "labels": labels})
        if status == 201:
            await services.call("DELETE", "/v2/apps/slow?force=true")
        return status == 422 and answer["details"][0]["path"] == "/labels/FAIRLEAD_DRAIN_SECONDS"

    await eventually("it is refused", refused, every_s=0.1)
    await registry.close()


async def test_an_app_in_deployment_is_locked_unless_forced(services: Services, mesos: StubMesos):
    """409 with Marathon's words and the deployment's id; `?force=true` takes over."""
    mesos.runs = False
    _, answer = await services.call("POST", "/v2/apps", APP)
    status, locked = await services.call("PUT", "/v2/apps/shop/web", {"instances": 1})

    assert 409 == status
    assert locked["message"].startswith("App is locked by one or more deployments. Override with the option")
    assert answer["deployments"] == locked["deployments"]
    status, forced = await services.call("PUT", "/v2/apps/shop/web?force=true", {"instances": 1})
    deployments = await services.get("/v2/deployments")
    assert (200, [forced["deploymentId"]]) == (status, [d["id"] for d in deployments])
    assert 409 == (await services.call("POST", "/v2/apps", APP))[0]


async def test_a_deployment_is_rolled_back(services: Services, mesos: StubMesos):
    """DELETE /v2/deployments/{id}: the old definition again, the old tasks untouched."""
    old = ids(await deploy(services))
    mesos.heals = None
    _, answer = await services.call("PUT", "/v2/apps/shop/web", {"cmd": "broken"})

    async def begun() -> bool:
        return len(mesos.of_app("shop_web")) == 4

    await eventually("the new version is started", begun)
    status, back = await services.call("DELETE", f"/v2/deployments/{answer['deploymentId']}")
    app = await services.settled(2)

    assert (200, ["deploymentId", "version"]) == (status, sorted(back))
    assert APP["cmd"] == app["cmd"]
    assert old == ids(app)


async def test_a_deployment_stopped_by_force_stays_where_it_is(services: Services, mesos: StubMesos):
    """202; the old tasks are not replaced any more, also not after a restart of the scheduler."""
    old = ids(await deploy(services))
    mesos.heals = None
    _, answer = await services.call("PUT", "/v2/apps/shop/web", {"cmd": "broken"})
    status, _ = await services.call("DELETE", f"/v2/deployments/{answer['deploymentId']}?force=true")
    await services.stop()
    await services.start()
    await asyncio.sleep(0.3)

    assert 202 == status
    assert [] == await services.get("/v2/deployments")
    assert old <= set(mesos.of_app("shop_web"))
    assert 404 == (await services.call("DELETE", "/v2/deployments/unknown"))[0]


async def test_versions_are_listed_shown_and_put_back(services: Services):
    """PUT {"version": …} is a rollback to it."""
    first = (await deploy(services))["version"]
    await services.call("PUT", "/v2/apps/shop/web", {"cmd": "second"})
    await services.settled(2)
    versions = (await services.get("/v2/apps/shop/web/versions"))["versions"]

    assert 2 == len(versions)
    assert first == versions[-1]
    assert APP["cmd"] == (await services.get(f"/v2/apps/shop/web/versions/{first}"))["cmd"]
    await services.call("PUT", "/v2/apps/shop/web", {"version": first})
    assert APP["cmd"] == (await services.settled(2))["cmd"]
    assert 404 == (await services.call("GET", "/v2/apps/shop/web/versions/2000-01-01T00:00:00.000Z"))[0]


async def test_several_apps_start_in_the_order_of_their_dependencies(services: Services, mesos: StubMesos):
    """PUT of a list is one deployment; the dependent waits until the other is healthy. A circle is refused."""
    mesos.heals = None
    db, web = {**APP, "id": "/db", "instances": 1}, {**APP, "id": "/web", "instances": 1, "dependencies": ["/db"]}
    status, _ = await services.call("PUT", "/v2/apps", [web, db])

    async def started() -> list[str] | None:
        return mesos.of_app("db") or None

    task = await eventually("the database is started", started)
    await asyncio.sleep(0.2)
    assert task is not None
    assert (200, []) == (status, mesos.of_app("web"))
    assert "its dependency /db" in (await services.get("/fairlead/explain?app=/web"))["reasons"][0]
    mesos.heals = True
    await mesos.update(task[0], "TASK_RUNNING", healthy=True)
    await services.settled(1, "/web")
    status, answer = await services.call("PUT", "/v2/apps/db", {"dependencies": ["/web"]})
    assert (422, "/dependencies") == (status, answer["details"][0]["path"])


async def test_why_an_app_finds_no_place_is_explained(services: Services, mesos: StubMesos):
    """Reasons in funnel order, and the smallest change that would fit."""
    mesos.agents["S0"]["cpus"] = 1.5
    mesos.agents["S1"]["cpus"] = 1.0
    await services.call("POST", "/v2/apps", {**APP, "cpus": 4, "instances": 1})

    async def explained() -> dict[str, Any] | None:
        told = await services.get("/fairlead/explain?app=/shop/web")
        return told if len(told["agents"]) == 2 else None

    told = await eventually("both agents have said no", explained)
    assert told is not None
    queue = (await services.get("/v2/queue?embed=queue.lastUnusedOffers"))["queue"][0]

    assert {"InsufficientCpus": 2} == told["refusals"]
    assert "needs 4 cpus; the largest offer has 1.5 on agent S0 (host-S0)" == told["smallest_change"]
    assert (1, 0, 1) == (told["wanted"], told["running"], told["to_launch"])
    assert told["smallest_change"] in told["reasons"]
    assert {"InsufficientCpus"} == {o["reason"][0] for o in queue["lastUnusedOffers"]}
    assert 2 == next(
        r["declined"]
        for r in queue["processedOffersSummary"]["rejectSummaryLastOffers"]
        if r["reason"] == "InsufficientCpus"
    )
    assert 404 == (await services.call("GET", "/fairlead/explain?app=/nobody"))[0]


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b'{"id": "/x", ', 400),
        (b"[1]", 422),
        (b"null", 422),
        (b'{"id": 7, "cmd": "x"}', 422),
        (b'{"cmd": "x"}', 422),
        (b'{"id": "/x", "cmd": "x", "cpus": "many"}', 422),
        (b'{"id": "/Bad Name", "cmd": "x"}', 422),
        (b"\xff\xfe", 400),
    ],
)
async def test_bad_input_gets_a_clear_answer(services: Services, body: bytes, status: int):
    """400 for what is no JSON, 422 with paths for what is no app."""
    url = f"http://127.0.0.1:{services.settings.port}/v2/apps"
    headers = {"Content-Type": "application/json"}
    async with services.session.post(url, data=body, headers=headers) as answer:
        told = await answer.json()
        assert status == answer.status, told
    assert "message" in told
    assert status == 400 or all(d["path"].startswith("/") for d in told["details"])


async def test_small_answers_are_marathons(services: Services):
    """ping, info, leader, groups, tasks as text."""
    app = await deploy(services)
    await deploy(services, 1, id="/top")
    info = await services.get("/v2/info")
    groups = await services.get("/v2/groups")
    _, text = await services.call("GET", "/v2/tasks", None, Accept="text/plain")

    assert "pong" == await services.get("/ping")
    assert ("marathon", "F0", True) == (info["name"], info["frameworkId"], info["elected"])
    assert {"leader": info["leader"]} == await services.get("/v2/leader")
    assert (["/top"], ["/shop"]) == ([a["id"] for a in groups["apps"]], [g["id"] for g in groups["groups"]])
    assert ["/shop/web"] == [a["id"] for a in groups["groups"][0]["apps"]]
    assert text.startswith("shop_web\t10100\thost-S")
    assert ids(app) == {t["id"] for t in (await services.get("/v2/apps/shop/*/tasks"))["tasks"]}
    assert [] == (await services.get("/v2/apps?id=nobody"))["apps"]
    assert ["/top"] == [a["id"] for a in (await services.get("/v2/apps?id=top&embed=apps.tasks"))["apps"]]


async def test_events_are_streamed(services: Services):
    """Server-sent events with Marathon's names."""
    url = f"http://127.0.0.1:{services.settings.port}/v2/events?event_type=status_update_event"
    async with services.session.get(url) as stream:
        await stream.content.readuntil(b"\r\n\r\n")
        await services.call("POST", "/v2/apps", APP)
        async with asyncio.timeout(5):
            name, data = (await stream.content.readuntil(b"\r\n\r\n")).split(b"\r\n")[:2]

    event = msgspec.json.decode(data.removeprefix(b"data: "))
    assert b"event: status_update_event" == name
    assert ("/shop/web", "TASK_STARTING") == (event["appId"], event["taskStatus"])


async def test_a_lost_master_is_looked_for_and_found_again(services: Services, mesos: StubMesos):
    """Tasks run on; after the reconnect every task is asked about, and nothing is launched twice."""
    app = await deploy(services)
    asked = len(mesos.of("RECONCILE"))
    mesos.disconnect()
    await mesos.called("SUBSCRIBE", count=2)

    def explicit(call: dict[str, Any]) -> bool:
        return {t["task_id"]["value"] for t in call["reconcile"]["tasks"]} == ids(app)

    await mesos.called("RECONCILE", explicit)
    assert asked < len(mesos.of("RECONCILE"))
    assert ids(app) == ids(await services.settled(2))
    assert 2 == mesos.most_alive


async def test_a_failed_master_that_forgot_the_framework_makes_us_register_anew(services: Services, mesos: StubMesos):
    """To "Framework has been removed" the answer is a new id; the app's tasks are launched anew."""
    await deploy(services)
    mesos.tasks.clear()
    await mesos.send({"type": "ERROR", "error": {"message": "Framework has been removed"}})
    await mesos.called("SUBSCRIBE", count=2)
    await services.settled(2)

    assert ["F0", "F1"] == mesos.frameworks
    assert 2 == len(mesos.of_app("shop_web"))


async def test_the_way_to_the_leading_master_is_followed(mesos: StubMesos, tmp_path: Path):
    """307 with a scheme-less location, as standby masters answer."""
    async with StubMesos() as standby:
        standby.leader_elsewhere = mesos.address
        services = Services(mesos, tmp_path, master=standby.address)
        await services.start()
        try:
            await deploy(services)
        finally:
            await services.stop()
            await services.session.close()

    assert 1 == len(standby.of("SUBSCRIBE"))


async def test_a_refusing_master_is_asked_with_pauses(mesos: StubMesos, tmp_path: Path):
    """503 for a second: a handful of tries, no hammering."""
    mesos.refuse_with = 503
    services = Services(mesos, tmp_path)
    begin = asyncio.create_task(services.start())
    await asyncio.sleep(1.0)
    tries = len(mesos.of("SUBSCRIBE"))
    mesos.refuse_with = 0
    await begin
    await services.stop()
    await services.session.close()

    assert 2 <= tries <= 8


async def test_a_standby_passes_requests_on(services: Services, mesos: StubMesos, tmp_path: Path):
    """And takes over when the leader ends, with every task where it was."""
    standby = Services(mesos, tmp_path / "standby")
    standby.settings = msgspec.structs.replace(standby.settings, registry=services.settings.registry)
    await standby.start()
    try:
        status, _ = await standby.call("POST", "/v2/apps", APP)
        app = await standby.settled(2)
        assert 201 == status
        assert (await services.get("/v2/leader")) == (await standby.get("/v2/leader"))
        await services.stop()
        await standby.ready()
        assert ids(app) == ids(await standby.settled(2))
    finally:
        await standby.stop()
        await standby.session.close()
    assert 2 == mesos.most_alive


async def test_a_launch_with_an_offer_that_is_gone_is_made_again(services: Services, mesos: StubMesos):
    """TASK_DROPPED with REASON_INVALID_OFFERS is nobody's fault: no backoff, no failure told."""
    real, mesos._open = mesos._open, type("Forgetful", (dict,), {"__contains__": lambda _s, _k: False})()
    await services.call("POST", "/v2/apps", {**APP, "backoffSeconds": 100})
    await mesos.called("ACCEPT")
    mesos._open = real
    app = await services.settled(2)

    assert "lastTaskFailure" not in app


async def test_a_task_of_ours_that_no_record_knows_is_adopted(services: Services, mesos: StubMesos):
    """By the app in its id: it counts, so nothing more is launched; its version's mark tells whether it is current."""
    app = await deploy(services)
    registry = await open_registry(services.settings.registry)
    await services.stop()
    await registry.remove(paths.below(paths.INSTANCES, "/shop/web"))
    await services.start()
    again = await services.settled(2)
    await registry.close()

    assert ids(app) == ids(again)
    assert 2 == mesos.most_alive
    assert [] == mesos.of("KILL")


async def test_tasks_of_an_app_without_a_definition_are_left_alone(services: Services, mesos: StubMesos):
    """A lost definition is no order to end what runs."""
    app = await deploy(services)
    registry = await open_registry(services.settings.registry)
    await services.stop()
    for name in await registry.tree.names(paths.APPS):
        await registry.remove(f"{paths.APPS}/{name}")
    await services.start()
    await asyncio.sleep(0.3)
    await registry.close()

    assert sorted(ids(app)) == mesos.of_app("shop_web")
    assert [] == mesos.of("KILL")
    assert 404 == (await services.call("GET", "/v2/apps/shop/web"))[0]


async def test_a_thousand_instances_start_without_delay(services: Services, mesos: StubMesos):
    """One round of offers launches them all; the record of them is one small node."""
    for agent in mesos.agents.values():
        agent["cpus"] = 1000.0
        agent["mem"] = 1e6
    begin = time.monotonic()
    await services.call(
        "POST", "/v2/apps", {**APP, "instances": 300, "cpus": 0.01, "mem": 1, "portDefinitions": [], "healthChecks": []}
    )

    async def all_run() -> bool:
        return (await services.app())["tasksRunning"] == 300

    await eventually("300 run", all_run, every_s=0.1)
    assert time.monotonic() - begin < 10
