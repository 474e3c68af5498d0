"""Two neighbouring versions of fairlead's daemons on one registry, upgraded one at a time under requests, and back."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from fairlead_discovery import paths
from fairlead_discovery.records import SCHEMA
from harness.house import FAIRLEAD, HARNESS, House, house
from harness.load import Load

pytestmark = [pytest.mark.needs("haproxy", "dig"), pytest.mark.timeout(300)]
APP = "/mixed/web"
DAEMONS = ("registry", "master", "agent-1", "services", "lb", "dns-1")
KEY = "of_the_next_version"


def registry(place: House, *words: str) -> str:
    command = [str(FAIRLEAD), "registry", *words, "--data-dir", str(place.folder / "data")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert 0 == done.returncode, done.stderr
    return done.stdout


def members_of_next(place: House) -> list[bool]:
    """Of each of the app's members: whether the next version published it."""
    folder = paths.endpoint_folder(f"marathon:{APP}")
    found = [line.split()[0] for line in registry(place, "tree", folder).splitlines() if "member_" in line]
    return [KEY in json.loads(registry(place, "get", path)) for path in found]


def restart(place: House, name: str) -> None:
    old = place.kill(name)
    place.wait_restarted(name, old)
    place.wait_up()
    place.settle(APP)


def test_daemons_are_upgraded_one_at_a_time_under_requests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Each next to older ones; no request is lost, no task restarted; records of the next version are read by the old."""
    upgraded = tmp_path / "upgraded"
    upgraded.touch()
    monkeypatch.setenv("PYTHONPATH", f"{HARNESS / 'next_version'}:{os.environ.get('PYTHONPATH', '')}")
    monkeypatch.setenv("NEXT_VERSION", str(upgraded))
    with house() as place:
        monkeypatch.undo()
        place.deploy(place.app(APP))
        tasks = {t["id"] for t in place.tasks(APP)}
        with Load(place.ports["lb_http_port"], "mixed-web.example", place.folder, rate=40) as load:
            for name in DAEMONS:
                with upgraded.open("a") as file:
                    file.write(f"{name}\n")
                restart(place, name)
        assert [] == load.failures()
        assert tasks <= {t["id"] for t in place.tasks(APP)}
        place.deploy(place.app(APP, instances=3))
        assert True in members_of_next(place)

        upgraded.write_text("")
        restart(place, "master")  # the old one again, over what the next one published
        place.deploy(place.app(APP, instances=2))
        assert SCHEMA == json.loads(registry(place, "get", paths.CLUSTER)).get("schema", 1)
