"""Records that no rule has seen (another version's, a hand's): each costs itself, never the scheduler or another app."""

from typing import Any

import msgspec
import pytest

from fairlead_discovery import paths
from fairlead_discovery.backends import open_registry
from harness.services import APP, Services, deploy
from harness.stub_mesos import StubMesos
from harness.waiting import eventually

VERSION = "2026-11-20T09:15:03.123Z"
HUGE = [
    {"taskKillGracePeriodSeconds": 1e300},
    {"cpus": 1e308, "mem": 1e308},
    {"upgradeStrategy": {"minimumHealthCapacity": 1e300, "maximumOverCapacity": 1e308}, "instances": 10**30},
    {"constraints": [["rack", "MAX_PER", "²"]]},
    {"constraints": [["rack", "LIKE", "("]]},
]


async def stored(services: Services, name: str, definition: dict[str, Any]) -> None:
    """The record stands when the scheduler starts."""
    registry = await open_registry(services.settings.registry)
    await services.stop()
    await registry.write(f"{paths.APPS}/{name}", msgspec.json.encode(definition))
    await services.start()
    await registry.close()


@pytest.mark.parametrize("huge", HUGE)
async def test_a_stored_app_that_cannot_be_scheduled_costs_nobody_else(
    services: Services, mesos: StubMesos, huge: dict[str, Any]
):
    """It is excluded and named; others are launched; it can be changed, and then runs, and can be deleted."""
    definition = {**APP, "id": "/evil", "version": VERSION, "instances": 1, **huge}
    await stored(services, paths.escape(f"/evil@{VERSION}"), definition)

    async def named() -> bool:
        await mesos.offer()
        return "excluded" in str((await services.get("/fairlead/explain?app=/evil"))["reasons"])

    await eventually("explain names it", named)
    await deploy(services, 2)

    for page in ("/v2/apps", "/v2/apps/evil", "/v2/queue", "/v2/tasks", "/v2/groups", "/v2/deployments"):
        assert 200 == (await services.call("GET", page))[0], page
    plain = {k: APP[k] for k in ("cmd", "cpus", "mem")}
    status, answer = await services.call(
        "PUT", "/v2/apps/evil?force=true&partialUpdate=false", {**plain, "instances": 1, "backoffSeconds": 0}
    )
    assert 200 == status, answer
    await services.settled(1, "/evil")
    assert 200 == (await services.call("DELETE", "/v2/apps/evil"))[0]


@pytest.mark.parametrize("name", ["%2Fevil@x", "evil@2026-11-20T09:15:03.123Z", "%2F%2Fevil@2026-11-20T09:15:03.123Z"])
async def test_a_record_under_a_name_that_is_none_is_not_scheduled(services: Services, mesos: StubMesos, name: str):
    """It could be neither shown nor removed: it counts as unreadable, and what is well named goes on."""
    await stored(services, name, {**APP, "id": paths.unescape(name).partition("@")[0], "instances": 1})
    await deploy(services, 2)

    assert [] == mesos.of_app("evil")
    assert ["/shop/web"] == [a["id"] for a in (await services.get("/v2/apps"))["apps"]]


async def test_a_record_that_holds_another_app_is_not_scheduled(services: Services, mesos: StubMesos):
    """Its name and its definition must be of one app."""
    await stored(services, paths.escape(f"/evil@{VERSION}"), {**APP, "id": "/other", "version": VERSION})
    await deploy(services, 2)

    assert [] == mesos.of_app("other")
    assert 404 == (await services.call("GET", "/v2/apps/evil"))[0]
