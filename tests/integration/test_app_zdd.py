"""Blue and green on real daemons, under load: `fairlead app zdd` takes over, is killed, and goes back; nothing is lost."""

import json
import signal
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime
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


def test_green_takes_over_in_two_parts_and_what_is_killed_halfway_goes_back(place: House):
    """Not one request fails or is executed twice, the service port stays, and no step is a reload of HAProxy."""
    zdd(place, definition(place, "1"))
    assert {f"{APP}-blue": 2} == instances(place)
    assert not place.get("lb_admin_port", "/status")["refused"]
    before = place.get("lb_admin_port", "/status")["reloads"]
    place.count_file(APP).write_text("")
    with Load(place.ports["lb_http_port"], HOST, place.folder) as load:
        wait_until("the load is served", lambda: place.count_file(APP).read_text())
        zdd(place, definition(place, "2"), "--new-instances", "1")
        assert {f"{APP}-blue": 1, f"{APP}-green": 1} == instances(place)
        zdd(place, definition(place, "2"), "--complete-cur")
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


class Zdd:
    """marathon-lb's zdd.py in our words: it knows Marathon's REST API and the pages at :9090, and nothing of fairlead."""

    def __init__(self, place: House, app: dict[str, Any]) -> None:
        self._place = place
        self._app = app
        self._port = app["ports"][0]

    def _apps(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self._place.get("services_port", "/v2/apps")["apps"]
        mine = [a for a in found if a["labels"].get("HAPROXY_DEPLOYMENT_GROUP") == "old"]
        return sorted(mine, key=lambda a: a["labels"]["HAPROXY_DEPLOYMENT_STARTED_AT"])

    def deploy(self) -> None:
        before = self._apps()
        last = before[-1] if before else None
        colour = "green" if last is not None and last["labels"]["HAPROXY_DEPLOYMENT_COLOUR"] == "blue" else "blue"
        port = self._port + 1 if last is not None and last["ports"][0] == self._port else self._port
        labels = {
            "HAPROXY_DEPLOYMENT_GROUP": "old",
            "HAPROXY_DEPLOYMENT_ALT_PORT": str(self._port + 1),
            "HAPROXY_APP_ID": self._app["id"],
            "HAPROXY_0_PORT": str(self._port),
            "HAPROXY_DEPLOYMENT_NEW_INSTANCES": "0",
            "HAPROXY_DEPLOYMENT_TARGET_INSTANCES": str(last["instances"] if last else self._app["instances"]),
            "HAPROXY_DEPLOYMENT_COLOUR": colour,
            "HAPROXY_DEPLOYMENT_STARTED_AT": datetime.now(UTC).replace(tzinfo=None).isoformat(),
        }
        new = {
            **self._app,
            "id": f"{self._app['id']}-{colour}",
            "ports": [port],
            "labels": self._app["labels"] | labels,
        }
        if last is not None:
            new["instances"] = 1
        status, answer = self._place.call("services_port", "POST", "/v2/apps", new)
        assert status == 201, answer
        if last is not None:
            wait_until("it took over", lambda: self._turn(new["id"], last["id"]), within_s=90, every_s=0.5)

    def _turn(self, new_id: str, old_id: str) -> bool:
        """One look, and what follows from it. True when the old app was deleted."""
        new, old = (self._place.get("services_port", f"/v2/apps{i}")["app"] for i in (new_id, old_id))
        if new["deployments"] or len(str(self._place.get("lb_admin_port", "/_haproxy_getpids")).split()) != 1:
            return False
        rows = self._listeners()
        target = int(new["labels"]["HAPROXY_DEPLOYMENT_TARGET_INSTANCES"])
        up, drained = (
            {r["svname"] for r in rows if r["status"] == state and (state == "UP" or not int(r["scur"] or 0))}
            for state in ("UP", "MAINT")
        )
        if len(rows) != new["instances"] + old["instances"] or len(up) < target or not drained:
            return False
        gone = [t["id"] for t in old["tasks"] if _listed_as(t) in drained]
        if new["instances"] == target and len(gone) == old["instances"]:
            assert 200 == self._place.call("services_port", "DELETE", f"/v2/apps{old_id}")[0]
            return True
        assert 200 == self._place.call("services_port", "POST", "/v2/tasks/delete?scale=true", {"ids": gone})[0]
        if new["instances"] < target:
            assert 200 == self._place.call("services_port", "PUT", f"/v2/apps{new_id}", {"instances": target})[0]
        return False

    def _listeners(self) -> list[dict[str, str]]:
        lines = self._place.get("lb_admin_port", "/haproxy?stats;csv").splitlines()
        heads = lines[0].lstrip("# ").rstrip(",").split(",")
        rows = [dict(zip(heads, line.split(",")[:-1], strict=True)) for line in lines[1:]]
        mine = [r for r in rows if r["pxname"] == f"old_{self._port}"]
        return [r for r in mine if r["svname"] not in ("BACKEND", "FRONTEND")]


def _listed_as(task: dict[str, Any]) -> str:
    """By the host that Marathon tells, and its address, where it is no address itself."""
    host, address = task["host"], task["ipAddresses"][0]["ipAddress"]
    return f"{host if host == address else f'{host}_{address}'}_{task['ports'][0]}".replace(".", "_")


def test_zdd_as_it_was_finds_all_it_reads(place: House):
    """By Marathon's API and marathon-lb's pages alone; one service port for both colours, nothing lost."""
    app = place.app("/old", instances=2, ports=[place.service_ports[5]])
    del app["portDefinitions"]
    zdd = Zdd(place, app)
    zdd.deploy()
    wait_until("blue serves", lambda: place.through_lb("old.example")[0] == 200, within_s=60)
    place.count_file("/old").write_text("")
    with Load(place.ports["lb_http_port"], "old.example", place.folder) as load:
        wait_until("the load is served", lambda: place.count_file("/old").read_text())
        zdd.deploy()
        green = [t["id"] for t in place.tasks("/old-green")]
        wait_until("green serves", lambda: set(green) <= place.servers("/old"))

    assert 2 == len(green)
    assert [] == load.failures()
    assert [] == place.doubled("/old")
    assert 404 == place.call("services_port", "GET", "/v2/apps/old-blue")[0]


def _killed_halfway(place: House, file: str) -> None:
    """Its first instance serves, and then nobody goes on with it."""
    with subprocess.Popen(command(place, file), stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as running:
        wait_until("blue is there again", lambda: f"{APP}-blue" in instances(place), within_s=30)
        wait_until("it serves", lambda: place.tasks(f"{APP}-blue")[0]["id"] in place.servers(APP), within_s=60)
        running.send_signal(signal.SIGKILL)
