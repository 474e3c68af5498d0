"""Blue and green on real daemons, under load: `fairlead app zdd` takes over, is killed, and goes back; nothing is lost."""

import json
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.house import FAIRLEAD, House, house
from harness.load import Load
from harness.waiting import wait_until

pytestmark = [pytest.mark.needs("haproxy", "dig"), pytest.mark.timeout(300)]
APP, HOST = "/zdd/web", "zdd-web.example"


@pytest.fixture(scope="module")
def place() -> Iterator[House]:
    with house("local") as made:
        yield made


def command(place: House, *words: str) -> list[str]:
    return [str(FAIRLEAD), "app", "zdd", *words, "--data-dir", str(place.folder / "data"), "--timeout", "60"]


def zdd(place: House, *words: str) -> str:
    done = subprocess.run(command(place, *words), capture_output=True, text=True, timeout=120, check=False)
    assert 0 == done.returncode, done.stdout + done.stderr
    return done.stdout


def definition(place: House, version: str) -> str:
    app: dict[str, Any] = place.app(APP, instances=2)
    app["env"]["VERSION"] = version
    file = Path(place.folder) / f"{version}.json"
    file.write_text(json.dumps(app))
    return str(file)


def instances(place: House) -> dict[str, int]:
    apps = place.get("services_port", "/v2/apps")["apps"]
    return {a["id"]: a["instances"] for a in apps if a["id"].startswith(APP)}


def test_green_takes_over_is_stopped_halfway_and_goes_back(place: House):
    """Not one request fails or is executed twice, the service port stays, and no step is a reload of HAProxy."""
    zdd(place, definition(place, "1"))
    assert {f"{APP}-blue": 2} == instances(place)
    assert not place.get("lb_admin_port", "/status")["refused"]
    before = place.get("lb_admin_port", "/status")["reloads"]
    place.count_file(APP).write_text("")
    with Load(place.ports["lb_http_port"], HOST, place.folder) as load:
        wait_until("the load is served", lambda: place.count_file(APP).read_text())
        zdd(place, definition(place, "2"))
        assert {f"{APP}-green": 2} == instances(place)
        _killed_halfway(place, definition(place, "3"))
        refused = subprocess.run(command(place, definition(place, "3")), capture_output=True, text=True, check=False)
        assert (1, True) == (refused.returncode > 0, "--resume" in refused.stderr)
        zdd(place, definition(place, "3"), "--complete-prev")
    served = place.served(APP)

    assert {f"{APP}-green": 2} == instances(place)
    assert [] == load.failures()
    assert [] == place.doubled(APP)
    assert sum(load.result["sent"].values()) == len(served)
    assert {"blue", "green"} == {task.split(".")[0].rpartition("-")[2] for task in place.servers(APP)}
    assert before == place.get("lb_admin_port", "/status")["reloads"]


def _killed_halfway(place: House, file: str) -> None:
    """Its first instance serves, and then nobody goes on with it."""
    with subprocess.Popen(command(place, file), stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as running:
        wait_until("blue is there again", lambda: f"{APP}-blue" in instances(place), within_s=30)
        wait_until("it serves", lambda: place.tasks(f"{APP}-blue")[0]["id"] in place.servers(APP), within_s=60)
        running.send_signal(signal.SIGKILL)
