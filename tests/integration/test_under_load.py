"""Rescale, restart, upgrade, drain, under a fixed load: not one failed, not one doubled request. On both registries."""

from collections.abc import Callable

import pytest

from harness.house import House
from harness.load import Load
from harness.waiting import wait_until

pytestmark = [pytest.mark.needs("haproxy", "dig"), pytest.mark.timeout(400)]
APP = "/load/web"
HOST = "load-web.example"


@pytest.fixture(scope="module")
def loaded(whole: House) -> House:
    whole.deploy(whole.app(APP))
    return whole


def under_load(house: House, change: Callable[[], None]) -> Load:
    house.count_file(APP).write_text("")
    with Load(house.ports["lb_http_port"], HOST, house.folder) as load:
        wait_until("the load is served", lambda: house.count_file(APP).read_text())
        change()
    return load


def assert_lossless(house: House, load: Load) -> None:
    served = house.served(APP)
    unserved = [
        n for n in range(1, sum(load.result["sent"].values()) + 1) if not {("GET", n), ("POST", n)} & set(served)
    ]

    assert [] == load.failures()
    assert [] == house.doubled(APP)
    assert [] == unserved


def test_scale_up_and_down(loaded: House):
    """2 → 6 → 2 instances."""

    def change() -> None:
        for instances in (6, 2):
            assert 200 == loaded.call("services_port", "PUT", f"/v2/apps{APP}", {"instances": instances})[0]
            loaded.settle(APP)
            running = {t["id"] for t in loaded.tasks(APP)}
            wait_until("every instance serves", lambda: running <= loaded.servers(APP))  # noqa: B023  # awaited here

    load = under_load(loaded, change)

    assert_lossless(loaded, load)


def test_restart(loaded: House):
    """POST /restart replaces every instance."""
    old = {t["id"] for t in loaded.tasks(APP)}

    def change() -> None:
        assert 200 == loaded.call("services_port", "POST", f"/v2/apps{APP}/restart")[0]
        loaded.settle(APP)

    load = under_load(loaded, change)

    assert not old & {t["id"] for t in loaded.tasks(APP)}
    assert_lossless(loaded, load)


def test_upgrade_without_room_above(loaded: House):
    """A new version, half the instances at a time."""

    def change() -> None:
        loaded.deploy(
            loaded.app(APP, work_s=0.02, upgradeStrategy={"minimumHealthCapacity": 0.5, "maximumOverCapacity": 0.0})
        )

    load = under_load(loaded, change)

    assert_lossless(loaded, load)


def test_drain_of_the_agent_that_holds_every_instance(loaded: House):
    """Everything sits on one machine, and that machine is taken away in order."""
    agents = {a["id"]: a for a in loaded.agents()}
    other = next(iter(agents))
    loaded.drain(other)
    loaded.settle(APP)
    holder = next(a for a in agents if a != other)
    loaded.undrain(other)
    assert {holder} == {t["slaveId"] for t in loaded.tasks(APP)}

    def change() -> None:
        loaded.drain(holder)
        wait_until("all moved", lambda: {other} == {t["slaveId"] for t in loaded.tasks(APP)}, within_s=60)
        loaded.settle(APP)

    load = under_load(loaded, change)
    loaded.undrain(holder)

    assert_lossless(loaded, load)
