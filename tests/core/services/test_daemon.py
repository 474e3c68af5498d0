"""The scheduler from HTTP to the master's calls, and back."""

from typing import Any

import pytest

from harness.stub_mesos import StubMesos
from harness.waiting import eventually

from .conftest import APP, Services


async def deploy(services: Services, count: int = 2, **changes: Any) -> dict[str, Any]:
    status, answer = await services.call("POST", "/v2/apps", {**APP, "instances": count, **changes})
    assert 201 == status, answer
    return await services.settled(count)


async def test_an_app_is_created_launched_and_healthy(services: Services, mesos: StubMesos):
    """POST answers 201 with the app and its deployment; the tasks run on both agents."""
    status, answer = await services.call("POST", "/v2/apps", APP)
    app = await services.settled(2)

    assert 201 == status
    assert ["id"] == list(answer["deployments"][0])
    assert {"host-S0", "host-S1"} == {t["host"] for t in app["tasks"]}
    assert mesos.of_app("shop_web") == sorted(t["id"] for t in app["tasks"])
