"""Marathon's REST interface of the running daemon: codes, bodies, locks, versions, routes, explanations."""

import asyncio
import time
from typing import Any

import msgspec
import pytest

from fairlead_discovery import paths
from fairlead_discovery.backends import open_registry
from fairlead_discovery.records import NameServer, Route, decode
from fairlead_discovery.registry import Delete
from harness.services import APP, Services, deploy, ids
from harness.stub_mesos import StubMesos
from harness.waiting import eventually


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


async def test_apps_of_one_deployment_group_share_their_service_port(services: Services):
    """As marathon-lb's zdd.py deploys them; an app beside them may not have it, and the route tells their colours."""
    ports = {"portDefinitions": [{"port": 10105, "name": "http"}]}
    for name in ("blue", "green"):
        labels = {"HAPROXY_DEPLOYMENT_GROUP": "web", "HAPROXY_DEPLOYMENT_COLOUR": name, "HAPROXY_0_PORT": "10105"}
        await deploy(services, 1, id=f"/shop/web-{name}", labels=labels, **ports)
    status, answer = await services.call("POST", "/v2/apps", {**APP, "id": "/shop/other", **ports})
    other = {"HAPROXY_DEPLOYMENT_GROUP": "/shop/web"}
    elsewhere = await services.call("POST", "/v2/apps", {**APP, "id": "/else/web", "labels": other, **ports})
    registry = await open_registry(services.settings.registry)
    node = await registry.read(paths.route("marathon:/shop/web-green"))
    await registry.close()
    assert node is not None
    colour = decode(Route, node.data, place="route").colour

    assert colour is not None
    assert ("/shop/web", "/web", "green") == (colour.group, colour.backend, colour.name)
    assert colour.scaled_at
    assert (422, 422) == (status, elsewhere[0])
    assert "taken by /shop/web-" in answer["details"][0]["errors"][0]


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


async def explained_as(services: Services, *words: str) -> dict[str, Any]:
    async def told() -> dict[str, Any] | None:
        found = await services.get("/fairlead/explain?app=/shop/web")
        assert all(word in " | ".join(found["reasons"]) for word in words), found["reasons"]
        return dict(found)

    found = await eventually(f"explained: {words}", told)
    assert found is not None
    return found


async def test_the_last_failure_is_told_while_the_next_try_runs(services: Services, mesos: StubMesos):
    """An app that never becomes healthy runs most of the time: that is no reason to hide why it ended."""
    mesos.heals = None
    await services.call("POST", "/v2/apps", {**APP, "instances": 1})
    await mesos.called("ACCEPT")
    await eventually("it runs", lambda: asyncio.sleep(0, mesos.of_app("shop_web")))
    await mesos.update(mesos.of_app("shop_web")[0], "TASK_KILLED", healthy=False, message="health check failed: 503")

    await explained_as(services, "waits for 1 of 1 instance", "health check failed: 503")


async def test_an_upgrade_to_a_bad_version_counts_the_new_ones(services: Services, mesos: StubMesos):
    """That the old ones are healthy says nothing about the new version."""
    await deploy(services, 2)
    mesos.heals = None
    await services.call("PUT", "/v2/apps/shop/web", {"cmd": "exit 1"})
    found = await explained_as(
        services,
        "of the new version to be running and healthy",
        "0 of 2 instances of this version ready; 2 instances of",
    )

    assert (0, 2) == (found["ready_of_this_version"], found["of_other_versions"])


async def test_a_missing_attribute_is_named(services: Services, mesos: StubMesos):
    """Not that the constraint does not allow the agent, but what the agent lacks."""
    constraints = [["floor", "CLUSTER", "1"]]
    await services.call("POST", "/v2/apps", {**APP, "instances": 1, "constraints": constraints})

    await explained_as(services, "host-S0 has no attribute floor")
