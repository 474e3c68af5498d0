"""How the scheduler lives with its master and its own restarts: subscribing, acknowledging, adopting."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from fairlead_core.services import daemon
from fairlead_core.services.adapters.store import Store
from fairlead_daemon.errors import Unavailable
from fairlead_discovery import paths
from fairlead_discovery.backends import open_registry
from fairlead_discovery.registry import Registry
from fairlead_discovery.snapshots import Snapshot, Trust
from harness.services import APP, Services, deploy, ids
from harness.stub_mesos import StubMesos
from harness.waiting import eventually


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


async def test_a_change_made_while_the_master_is_away_is_done_when_it_is_back(services: Services, mesos: StubMesos):
    """At once, not at the next repetition of a kill that was lost; and nothing is ended before the master's word."""
    await deploy(services)
    mesos.refuse_with = 503
    mesos.disconnect()

    async def away() -> bool:
        return (await services.call("GET", "/ready"))[0] == 503

    await eventually("it is away", away)
    status, _ = await services.call("PUT", "/v2/apps/shop/web", {"instances": 1})
    await asyncio.sleep(0.1)
    assert (200, []) == (status, mesos.of("KILL"))
    mesos.refuse_with = 0
    await services.settled(1)
    assert 1 == len(mesos.of("KILL"))


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
    real.clear()
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


async def test_the_registry_goes_and_comes_back_while_instances_fail(
    services: Services, mesos: StubMesos, monkeypatch: pytest.MonkeyPatch
):
    """Nothing is launched or acknowledged that cannot be recorded; afterwards all is made good."""
    await services.call("POST", "/v2/apps", APP)
    app = await services.settled(2)
    record = Store.record

    async def away(_self: Store, _record: Any) -> None:
        raise Unavailable("the registry is away")

    monkeypatch.setattr(Store, "record", away)
    victim = app["tasks"][0]["id"]
    accepted = len(mesos.of("ACCEPT"))
    await mesos.update(victim, "TASK_FAILED")
    await asyncio.sleep(0.3)
    assert accepted == len(mesos.of("ACCEPT"))
    assert 1 == len(mesos.unacknowledged)
    monkeypatch.setattr(Store, "record", record)

    async def good() -> bool:
        found = await services.app()
        return found["tasksHealthy"] == 2 and not mesos.unacknowledged

    await eventually("all is made good", good)
    assert 2 == mesos.most_alive


async def test_a_registry_that_is_not_believed_changes_nothing(
    mesos: StubMesos, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Held: no launch, no kill, 503 for changes, and /ready says why; live again, all goes on."""
    held, live = asyncio.Event(), asyncio.Event()
    real = daemon.snapshots

    async def doubtful(registry: Registry, *, keep: Path) -> AsyncIterator[Snapshot]:
        async for snapshot in real(registry, keep=keep):
            yield snapshot
            if not live.is_set() and snapshot.trust is Trust.LIVE:
                await held.wait()
                yield replace(snapshot, trust=Trust.HELD, why="another cluster")
                await live.wait()

    monkeypatch.setattr(daemon, "snapshots", doubtful)
    services = await Services(mesos, tmp_path).start()
    app = await deploy(services)
    held.set()

    async def says_so() -> bool:
        status, answer = await services.call("GET", "/ready")
        return status == 503 and "another cluster" in answer["waits"]["registry"]

    await eventually("it says so", says_so)
    calls = len(mesos.of("ACCEPT"))
    await mesos.update(min(ids(app)), "TASK_FAILED")
    await asyncio.sleep(0.2)
    status, answer = await services.call("PUT", "/v2/apps/shop/web", {"instances": 1})
    assert (503, True) == (status, "not believed" in answer["message"])
    assert (calls, []) == (len(mesos.of("ACCEPT")), mesos.of("KILL"))
    live.set()
    registry = await open_registry(services.settings.registry)
    await registry.commit([])
    await registry.close()

    async def goes_on() -> bool:
        return (await services.call("PUT", "/v2/apps/other", {**APP, "id": "/other"}))[0] in {200, 201}

    await eventually("changes are taken again", goes_on)
    await services.settled(2)
    await services.stop()
    await services.session.close()
