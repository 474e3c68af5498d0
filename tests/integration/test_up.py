"""`fairlead up` as a whole: the demo, the clean end, the next start, fewer agents, a machine without HAProxy."""

import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.house import House
from harness.waiting import wait_until

pytestmark = [pytest.mark.needs("haproxy", "dig"), pytest.mark.timeout(240)]


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="fl-", dir="/tmp", ignore_cleanup_errors=True) as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.fixture
def demo(folder: Path) -> Iterator[House]:
    place = House(folder)
    place.up.command = [*place.up.command, "--demo"]
    yield place
    place.stop()


def said(place: House, text: str) -> bool:
    return text in place.up.log.read_text()


def test_the_demo_comes_up_ends_without_remains_and_comes_back(demo: House):
    """One app finds the other by name; the commands that are shown work; apps survive the end."""
    demo.up.start()
    wait_until("the commands are shown", lambda: said(demo, "Ctrl-C ends it all"), within_s=60)
    status, page = demo.through_lb("shop.localhost")
    assert 200 == status, page
    assert "hello number" in page
    demo.call("services_port", "PUT", "/v2/apps/demo/web", {"instances": 3})
    demo.settle("/demo/web")

    assert 0 == demo.up.stop(grace_s=60)
    assert {} == demo.left_behind()
    assert {} == demo.processes()

    demo.start()
    demo.settle("/demo/web")
    assert 200 == demo.through_lb("web.localhost")[0]
    assert 3 == len(demo.tasks("/demo/web"))


def keepers(place: House, agent: str) -> list[str]:
    return [text for text in place.left_behind().values() if "agent.keeper" in text and f"/{agent}/" in text]


def test_with_fewer_agents_the_tasks_of_the_others_move_first(folder: Path):
    """Also when `up` was killed and everything ran on."""
    place = House(folder).start()
    try:
        wait_until("both agents are registered", lambda: len(place.agents()) == 2)
        first = next(a["id"] for a in place.agents() if a["hostname"] == "agent-1")
        place.drain(first)
        place.deploy(place.app("/spread/web"))
        place.undrain(first)
        before = {t["host"] for t in place.tasks("/spread/web")}
        place.up.kill()
        place.up.command = [*place.up.command, "--agents", "1"]
        place.start()
        wait_until("the second agent is ended", lambda: "agent-2" not in place.processes(), within_s=30)
        wait_until("its keeper too", lambda: not keepers(place, "agent-2"), within_s=15)
        place.settle("/spread/web", within_s=90)

        assert {"agent-2"} == before
        assert {"agent-1"} == {t["host"] for t in place.tasks("/spread/web")}
        assert keepers(place, "agent-1")
    finally:
        place.stop()


def test_without_haproxy_everything_else_runs_and_it_is_said(folder: Path):
    """With the way to get it."""
    place = House(folder, settings={"lb": {"haproxy": "/no/such/haproxy"}})
    place.up.start()
    try:
        wait_until("the addresses are shown", lambda: said(place, "Ctrl-C ends it all"), within_s=60)
        place.call("services_port", "PUT", "/v2/apps/plain", place.app("/plain"))
        wait_until("the app has names", lambda: len(place.srv_ports("/plain")) == 2, within_s=30)

        assert said(place, "load balancer: no haproxy on PATH; apt-get install haproxy")
        assert "lb" not in place.processes()
    finally:
        place.stop()


def shown_commands(place: House) -> list[str]:
    """What stands beside the explanations below `try`."""
    lines = place.up.log.read_text().partition("\ntry\n")[2].partition("\n\n")[0].splitlines()
    return [line.split("   ")[-1].strip() for line in lines]


@pytest.mark.needs("curl")
def test_the_commands_that_are_shown_work_when_writes_need_a_token(folder: Path):
    """Pasted into one shell as they stand: verbs find the token by themselves, reading needs none."""
    place = House(folder, token="on")
    place.up.command = [*place.up.command, "--demo"]
    place.up.start()
    try:
        wait_until("the commands are shown", lambda: said(place, "Ctrl-C ends it all"), within_s=60)
        status, _ = place.call("services_port", "PUT", "/v2/apps/demo/web", {"instances": 3})
        commands = shown_commands(place)
        pasted = "set -ex\n" + "\n".join(c.replace("curl ", "curl -sSf ") for c in commands)
        done = subprocess.run(["bash", "-c", pasted], capture_output=True, text=True, timeout=90, check=False)

        assert 401 == status
        assert len(commands) >= 8
        assert 0 == done.returncode, f"{done.stdout}\n{done.stderr}"
        assert "hello" in done.stdout
        assert 4 == len(place.tasks("/demo/web"))
    finally:
        place.stop()
