"""kill -9 of every part, one at a time: tasks run on, names resolve, traffic flows, afterwards all is consistent."""

import os
import signal
import time
from collections.abc import Iterator

import pytest

from harness.house import House
from harness.load import Load
from harness.waiting import wait_until

pytestmark = [pytest.mark.needs("haproxy", "dig"), pytest.mark.timeout(300)]
APP = "/kill/web"
HOST = "kill-web.example"


@pytest.fixture(scope="module")
def loaded(whole: House) -> House:
    whole.deploy(whole.app(APP))
    return whole


@pytest.fixture
def load(loaded: House) -> Iterator[Load]:
    """A load that is running, over a service that is settled."""
    loaded.settle(APP)
    loaded.count_file(APP).write_text("")
    with Load(loaded.ports["lb_http_port"], HOST, loaded.folder) as running:
        wait_until("the load is served", lambda: loaded.count_file(APP).read_text())
        yield running


def finish(load: Load) -> None:
    """Lets the load run on for a moment, and ends it."""
    time.sleep(1.0)
    load.end()


def assert_lossless(house: House, load: Load) -> None:
    assert [] == load.failures()
    assert [] == house.doubled(APP)


def pids_of_tasks(house: House) -> set[int]:
    return {pid for task in house.tasks(APP) for pid in house.task_pids(task["id"])}


def test_an_instance_killed_costs_no_get_and_doubles_no_post(loaded: House, load: Load):
    """Out of names and routes, replaced, back; only POSTs that were under way may be lost."""
    victim = loaded.tasks(APP)[0]
    port = victim["ports"][0]
    for pid in loaded.task_pids(victim["id"]):
        os.kill(pid, signal.SIGKILL)

    wait_until("it is out of HAProxy", lambda: port not in loaded.lb_ports(APP), within_s=5)
    wait_until("it is out of the names", lambda: port not in loaded.srv_ports(APP), within_s=5)
    loaded.settle(APP)
    finish(load)

    assert [] == [f for f in load.failures() if " GET " in f]
    assert [] == loaded.doubled(APP, "POST")
    assert victim["id"] not in {t["id"] for t in loaded.tasks(APP)}


@pytest.mark.parametrize("name", ["master", "services", "dns-1", "lb", "agent-1"])
def test_a_daemon_killed_costs_nothing(loaded: House, load: Load, name: str):
    """Tasks keep their processes, the name resolves all the while, no request is lost."""
    processes = pids_of_tasks(loaded)
    tasks = {t["id"] for t in loaded.tasks(APP)}

    old = loaded.kill(name)
    wait_until("the name resolves", lambda: loaded.dig(loaded.dns_name(APP)), within_s=2)
    loaded.wait_restarted(name, old)
    loaded.wait_up()
    loaded.settle(APP)
    finish(load)

    assert_lossless(loaded, load)
    assert tasks == {t["id"] for t in loaded.tasks(APP)}
    assert processes == pids_of_tasks(loaded)


def test_the_registry_killed_costs_nothing(loaded: House, load: Load):
    """Readers serve their last good state; sessions, names and routes are there when it comes back."""
    processes = pids_of_tasks(loaded)

    if loaded.url == "local":
        old = loaded.kill("registry")
        loaded.wait_restarted("registry", old)
    else:
        loaded.zookeeper.kill()
        time.sleep(3)
        assert loaded.dig(loaded.dns_name(APP))
        loaded.zookeeper.start()
    loaded.wait_up()
    loaded.settle(APP)
    finish(load)

    assert_lossless(loaded, load)
    assert processes == pids_of_tasks(loaded)


def test_the_master_killed_in_the_middle_of_a_drain_finishes_it(loaded: House, load: Load):
    """A scale-down is under way: the kill is finished by the next master, nothing is republished."""
    loaded.call("services_port", "PUT", f"/v2/apps{APP}", {"instances": 4})
    loaded.settle(APP)
    before = loaded.srv_ports(APP)
    loaded.call("services_port", "PUT", f"/v2/apps{APP}", {"instances": 2})
    wait_until("two are leaving", lambda: len(loaded.srv_ports(APP)) == 2)
    kept = loaded.srv_ports(APP)

    old = loaded.kill("master")
    seen = []
    wait_until("it is back", lambda: seen.append(loaded.srv_ports(APP)) or loaded.pid("master") != old)
    loaded.wait_up()
    loaded.settle(APP)
    finish(load)

    assert set(kept) < set(before)
    assert all(set(ports) <= set(kept) for ports in seen)
    assert kept == loaded.srv_ports(APP)
    assert_lossless(loaded, load)


def test_a_keeper_killed_takes_its_tasks_and_they_are_replaced(loaded: House):
    """Its tasks end, are reported and replaced; nothing leaks."""
    loaded.settle(APP)
    before = {t["id"]: loaded.task_pids(t["id"]) for t in loaded.tasks(APP)}
    keeper = loaded.keeper_of(next(iter(before.values()))[0])
    theirs = {task for task, pids in before.items() if keeper in {parent(p) for p in pids}}
    os.kill(keeper, signal.SIGKILL)

    wait_until("its tasks end", lambda: not any(loaded.task_pids(t) for t in theirs), within_s=5)
    wait_until("they are replaced", lambda: not theirs & {t["id"] for t in loaded.tasks(APP)})
    loaded.settle(APP)

    assert theirs


def parent(pid: int) -> int:
    with open(f"/proc/{pid}/stat") as stat:
        return int(stat.read().rpartition(")")[2].split()[1])


@pytest.mark.parametrize("lb_too", [False, True])
def test_haproxys_worker_killed_is_serving_again(loaded: House, lb_too: bool):
    """Its master ends with it in 2.6; whoever watches starts it afresh, also when `fairlead lb` was killed with it."""
    loaded.settle(APP)
    worker = loaded.get("lb_admin_port", "/status")["haproxy"]["worker_pid"]
    if lb_too:
        loaded.kill("lb")
    os.kill(worker, signal.SIGKILL)
    begin = time.monotonic()

    wait_until("it serves again", lambda: loaded.through_lb(HOST)[0] == 200, within_s=10, every_s=0.01)
    print(f"serving again after {(time.monotonic() - begin) * 1000:.0f} ms")
    loaded.wait_up()
    loaded.settle(APP)


def test_up_killed_and_started_again_adopts_everything(loaded: House, load: Load):
    """The next `fairlead up` replaces the daemons one at a time; tasks and HAProxy never stop."""
    processes = pids_of_tasks(loaded)
    haproxy = loaded.get("lb_admin_port", "/status")["haproxy"]["master_pid"]
    before = loaded.processes()

    os.kill(loaded.up.pid, signal.SIGKILL)
    loaded.up.kill()
    time.sleep(1)
    loaded.up.start()
    wait_until("up is there", lambda: loaded.pid("up") == loaded.up.pid, within_s=30)
    loaded.wait_up()
    wait_until("every daemon was replaced", lambda: replaced(before, loaded.processes()), within_s=60)
    loaded.wait_up()
    loaded.settle(APP)
    finish(load)

    assert_lossless(loaded, load)
    assert processes == pids_of_tasks(loaded)
    assert haproxy == loaded.get("lb_admin_port", "/status")["haproxy"]["master_pid"]


def replaced(before: dict[str, dict[str, int]], after: dict[str, dict[str, int]]) -> bool:
    return set(before) == set(after) and all(before[name]["pid"] != after[name]["pid"] for name in before)
