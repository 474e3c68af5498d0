"""The scheduler dies before or after any write to the registry, or any call to the master, and starts again.

However it dies, in the end there are exactly the instances that were asked for; no task is ever launched twice, and
never are there more than an upgrade may have.
"""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from fairlead_core.services.adapters.mesos import Subscription
from fairlead_core.services.adapters.store import Store
from harness.services import APP, Services
from harness.stub_mesos import StubMesos
from harness.waiting import eventually

QUIET = frozenset({"ACKNOWLEDGE", "SUPPRESS", "REVIVE", "DECLINE", "RECONCILE"})
"""Calls that are not counted as points: most of them come at any time."""


class Died(Exception):  # noqa: N818  # it is no error but the end
    """kill -9 at this very point."""


class Fuse:
    """Burns down with every write and call; at zero the process dies, before or after the deed is done."""

    def __init__(self, points: int, *, after: bool) -> None:
        self.left = points
        self.after = after

    async def around(self, deed: Callable[[], Awaitable[Any]]) -> Any:
        self.left -= 1
        if self.left == 0 and not self.after:
            raise Died
        result = await deed()
        if self.left == 0:
            raise Died
        return result


def fuse_in(fuse: Fuse, patch: pytest.MonkeyPatch) -> None:
    change, record, call = Store.change, Store.record, Subscription.call

    async def changing(self: Store, writes: Any) -> Any:
        return await fuse.around(lambda: change(self, writes))

    async def recording(self: Store, written: Any) -> Any:
        return await fuse.around(lambda: record(self, written))

    async def calling(self: Subscription, kind: str, **payload: Any) -> Any:
        if kind in QUIET:
            return await call(self, kind, **payload)
        return await fuse.around(lambda: call(self, kind, **payload))

    patch.setattr(Store, "change", changing)
    patch.setattr(Store, "record", recording)
    patch.setattr(Subscription, "call", calling)


async def insist(services: Services, method: str, path: str, body: object = None) -> tuple[int, Any]:
    """Asks until there is an answer, starting the process again when it has died."""

    async def probe() -> tuple[int, Any] | None:
        if services.task is None or services.task.done():
            await services.stop()
            await services.start()
        status, answer = await services.call(method, path, body)
        return None if status in {500, 503} else (status, answer)

    found = await eventually(f"{method} {path}", probe)
    assert found is not None
    return found


async def settles(services: Services, count: int, cmd: str) -> None:
    async def probe() -> bool:
        _, app = await insist(services, "GET", "/v2/apps/shop/web")
        _, deployments = await insist(services, "GET", "/v2/deployments")
        assert not deployments
        assert (count, count, cmd) == (app["app"]["tasksHealthy"], len(app["app"]["tasks"]), app["app"]["cmd"])
        return True

    await eventually(f"{count} instances of {cmd}", probe, within_s=8)


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("point", range(1, 15))
async def test_a_crash_at_any_point_loses_and_doubles_nothing(
    point: int, after: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Create 2, upgrade, scale to 1, with one death on the way."""
    async with StubMesos() as mesos:
        services = Services(mesos, tmp_path)
        await services.start()
        fuse_in(Fuse(point, after=after), monkeypatch)
        try:
            status, _ = await insist(services, "POST", "/v2/apps", APP)
            assert status in {201, 409}  # 409: what died had been done
            await settles(services, 2, str(APP["cmd"]))
            status, _ = await insist(services, "PUT", "/v2/apps/shop/web?force=true", {"cmd": "new", "instances": 1})
            assert 200 == status
            await settles(services, 1, "new")
        finally:
            await services.stop()
            await services.session.close()

        assert 1 == len(mesos.of_app("shop_web"))
        assert mesos.most_alive <= 4
        assert {"F0"} == set(mesos.frameworks)
