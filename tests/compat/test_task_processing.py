"""Yelp's task_processing 1.4, unchanged, against the real master and a real agent: what its examples do."""

import json
import shutil
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.ports import free_port
from harness.servers import Server, missing
from harness.waiting import wait_until

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = Path(__file__).with_name("task_processing_program.py")
FAIRLEAD = Path(sys.executable).with_name("fairlead")
ROLE = "taskproc"
RESOURCES = f"cpus({ROLE}):2;mem({ROLE}):1024;disk({ROLE}):1000;ports({ROLE}):[31200-31219,31230-31239]"
pytestmark = pytest.mark.timeout(120)


@pytest.fixture(scope="session")
def python() -> Path:
    """The python of task_processing's own virtual environment, made when it is not there."""
    command = [ROOT / "scripts" / "compat-venv", "task_processing"]
    made = subprocess.run(command, capture_output=True, text=True, check=False)
    if made.returncode:
        missing(f"task_processing cannot be installed: {made.stderr[-500:]}")
    return Path(made.stdout.strip()) / "bin" / "python"


class Place:
    """Registry, master and one agent whose every resource is reserved for the role."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        url = f"local:{folder}/r.sock"
        self.registry = self._daemon("registry", registry=url)
        self.master = self._daemon("master", registry=url, port=self.port)
        self.agent = self._daemon("agent", registry=url, port=free_port(), resources=RESOURCES)

    def _daemon(self, name: str, **settings: object) -> Server:
        given = {"data_dir": str(self.folder / name), "token": "off", **settings}
        command = [str(FAIRLEAD), name, *(f"--set={key}={value}" for key, value in given.items())]
        return Server(command, log=self.folder / f"{name}.log")

    def start(self) -> "Place":
        self.registry.start()
        self.master.start().wait_ready("master", lambda: self.get("/ready")["ready"])
        self.agent.start()
        wait_until("an agent is registered", lambda: self.get("/state")["slaves"], within_s=20)
        return self

    def get(self, path: str) -> Any:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=5) as response:
            return json.load(response)

    def stop(self) -> None:
        for server in (self.agent, self.master, self.registry):
            server.stop()
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and str(self.folder).encode() in _words(entry):
                subprocess.run(["kill", "-9", entry.name], check=False, capture_output=True)


def _words(entry: Path) -> bytes:
    try:
        return (entry / "cmdline").read_bytes()
    except OSError:
        return b""


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    folder = Path(tempfile.mkdtemp(prefix="fl-", dir="/tmp"))
    folder.chmod(0o755)  # tasks' user must reach it
    made = Place(folder)
    try:
        yield made.start()
    finally:
        made.stop()
        shutil.rmtree(folder, ignore_errors=True)


def run(python: Path, place: Place, example: str) -> list[dict[str, Any]]:
    """What the example told; it has ended by itself, and its framework is gone from the master."""
    command = [python, PROGRAM, f"127.0.0.1:{place.port}", ROLE, example]
    done = subprocess.run(command, capture_output=True, text=True, timeout=90, check=False)
    told = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert (0, {"ended": example}) == (done.returncode, told[-1] if told else {}), (
        f"{done.stdout}\n{done.stderr[-4000:]}"
    )
    names = [framework["name"] for framework in place.get("/state")["frameworks"]]
    assert example not in names
    return told[:-1]


def outcome(state: str, *, success: bool) -> dict[str, Any]:
    return {"state": state, "success": success, "terminal": True}


def test_hello_world_succeeds_and_exit_3_fails(python: Path, place: Place):
    """The example everyone begins with, one task after the other; what was reserved for its role is free again."""
    told = run(python, place, "sync")
    agent = place.get("/slaves")["slaves"][0]

    assert [outcome("finished", success=True), outcome("failed", success=False)] == told
    assert (2, 0) == (agent["resources"]["cpus"], agent["used_resources"]["cpus"])


def test_events_come_to_a_callback(python: Path, place: Place):
    """Its async runner."""
    assert [outcome("finished", success=True)] == run(python, place, "async")


def test_several_tasks_are_futures(python: Path, place: Place):
    """Its promise runner: three at once, of which the first only succeeds."""
    told = run(python, place, "promise")

    assert [True, False, False] == [event["success"] for event in told]


def test_a_subscriber_hears_every_state_in_order(python: Path, place: Place):
    """Staging is its own word for a launch; the rest are the master's updates, each acknowledged explicitly."""
    states = [event["state"] for event in run(python, place, "subscription")]

    assert "staging" == states[0]
    assert ["running", "finished"] == states[-2:]


def test_a_failing_task_is_run_again(python: Path, place: Place):
    """Its retrying executor tells the end once all tries are used up."""
    told = run(python, place, "retry")

    assert [outcome("failed", success=False), {"tries_left": "0/2"}] == told


def test_a_task_over_its_time_is_killed(python: Path, place: Place):
    """Its timeout executor kills by task id."""
    assert [outcome("killed", success=False)] == run(python, place, "timeout")


def test_a_running_task_is_killed(python: Path, place: Place):
    """By its id, at the first event that says it runs."""
    assert [outcome("killed", success=False)] == run(python, place, "kill")
