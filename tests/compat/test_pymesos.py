"""pymesos 0.3.15, unchanged, against the real master, registry and agent: every one a process."""

import json
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from harness.ports import free_port
from harness.servers import Server, missing
from harness.waiting import wait_until
from harness.zookeeper import ZooKeeper

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = Path(__file__).with_name("pymesos_program.py")
DAEMONS = {
    "registry": "fairlead_discovery.registryd",
    "master": "fairlead_core.master.daemon",
    "agent": "fairlead_core.agent.daemon",
}


@pytest.fixture(scope="session")
def pymesos() -> Path:
    """The python of pymesos' own virtual environment, made when it is not there."""
    made = subprocess.run([ROOT / "scripts" / "compat-venv", "pymesos"], capture_output=True, text=True, check=False)
    if made.returncode:
        missing(f"pymesos cannot be installed: {made.stderr[-500:]}")
    return Path(made.stdout.strip()) / "bin" / "python"


def daemon(folder: Path, name: str, **settings: object) -> Server:
    code = (
        f"import sys; from {DAEMONS[name]} import DAEMON; from fairlead_daemon.main import main; "
        "sys.exit(main(DAEMON, sys.argv[1:]))"
    )
    given = {"data_dir": str(folder / name), "token": "off", **settings}
    arguments = [f"--set={key}={value}" for key, value in given.items()]
    return Server([sys.executable, "-c", code, *arguments], log=folder / f"{name}.log")


def ready(port: int) -> bool:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/ready", timeout=2) as response:
        return response.status == 200


class House:
    """Registry (unless it is a ZooKeeper), master and one agent. The master can be killed and started again."""

    def __init__(self, folder: Path, registry: str = "") -> None:
        self.folder = folder
        self.port = free_port()
        url = registry or f"local:{folder}/r.sock"
        resources = "cpus:4;mem:1024;disk:1000;ports:[31000-31100]"
        self.registry = None if registry else daemon(folder, "registry", registry=url)
        self.master = daemon(folder, "master", registry=url, port=self.port)
        self.agent = daemon(folder, "agent", registry=url, port=free_port(), resources=resources)

    def start(self) -> "House":
        if self.registry is not None:
            self.registry.start()
        self.master.start().wait_ready("master", lambda: ready(self.port))
        self.agent.start()
        wait_until("an agent is registered", lambda: self.state()["slaves"], within_s=20)
        return self

    def state(self) -> dict:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/state", timeout=2) as response:
            return json.load(response)

    def stop(self) -> None:
        self.agent.stop()
        keeper_pids = [
            int(entry.name)
            for entry in Path("/proc").iterdir()
            if entry.name.isdigit() and str(self.folder).encode() in _words(entry)
        ]
        for pid in keeper_pids:
            if pid not in {self.master.pid, self.registry.pid if self.registry else 0}:
                subprocess.run(["kill", "-9", str(pid)], check=False, capture_output=True)
        self.master.stop()
        if self.registry is not None:
            self.registry.stop()


def _words(entry: Path) -> bytes:
    try:
        return (entry / "cmdline").read_bytes()
    except OSError:
        return b""


@pytest.fixture
def house(short_dir: Path) -> Iterator[House]:
    made = House(short_dir)
    yield made.start()
    made.stop()


class Client:
    """The program as a process; `said` is what it told so far."""

    def __init__(self, python: Path, folder: Path, *arguments: str) -> None:
        self.server = Server([str(python), str(PROGRAM), *arguments], log=folder / "client.log").start()

    def said(self) -> list[dict]:
        return [json.loads(line) for line in self.server.log.read_text().splitlines() if line.startswith("{")]

    def events(self, name: str) -> list[dict]:
        return [e for e in self.said() if e["event"] == name]

    def states(self) -> list[str]:
        return [e["state"] for e in self.events("update")]

    def wait(self, what: str, probe: Callable[[], object], within_s: float = 30) -> None:
        try:
            wait_until(what, probe, within_s=within_s)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.server.tail(60)}") from error


def test_pymesos_runs_its_tasks_to_the_end(pymesos: Path, house: House, short_dir: Path) -> None:
    """Subscribe, offers, accept, decline, updates with acknowledgements, teardown: every task finishes."""
    client = Client(pymesos, short_dir, f"127.0.0.1:{house.port}", "3", "exit 0")
    client.wait("the client ends", lambda: not client.server.running())

    assert client.said()[-1] == {"event": "ended", "states": ["TASK_FINISHED"] * 3}
    assert client.events("registered")[0]["version"] == "1.11.0"
    assert client.events("error") == []
    wait_until("the framework is torn down", lambda: not house.state()["frameworks"])


def test_pymesos_lives_through_a_killed_master(pymesos: Path, house: House, short_dir: Path) -> None:
    """kill -9 of the master while tasks run: the driver is reregistered, the tasks run on, then they are killed."""
    go = short_dir / "go"
    client = Client(pymesos, short_dir, f"127.0.0.1:{house.port}", "2", "sleep 300", "--hold", str(go))
    client.wait("two tasks run", lambda: client.states().count("TASK_RUNNING") == 2)
    house.master.kill()
    client.wait("the driver notices", lambda: client.events("disconnected"))
    house.master.start().wait_ready("master", lambda: ready(house.port))
    client.wait("it is registered again", lambda: client.events("reregistered"))
    client.wait("its tasks are reconciled", lambda: _reconciled(client) == ["TASK_RUNNING"] * 2)
    tasks = [t["state"] for f in house.state()["frameworks"] for t in f["tasks"]]
    go.touch()
    client.wait("the client ends", lambda: not client.server.running())

    assert tasks == ["TASK_RUNNING"] * 2
    assert client.said()[-1] == {"event": "ended", "states": ["TASK_KILLED"] * 2}


def _reconciled(client: Client) -> list[str]:
    return [e["state"] for e in client.events("update") if e["reason"] == "REASON_RECONCILIATION"]


def test_pymesos_finds_the_master_in_zookeeper(pymesos: Path, zookeeper: ZooKeeper, short_dir: Path) -> None:
    """`zk://…/mesos`, as with Mesos: the lowest candidate's MasterInfo leads it here, also after a kill -9."""
    house = House(short_dir, registry=f"{zookeeper.url}/compat").start()
    try:
        client = Client(pymesos, short_dir, f"{zookeeper.url}/compat/mesos", "2", "sleep 5")
        client.wait("two tasks run", lambda: client.states().count("TASK_RUNNING") >= 2)
        house.master.kill()
        house.master.start()
        client.wait("the client ends", lambda: not client.server.running(), 60)
    finally:
        house.stop()

    assert client.events("reregistered")
    assert client.said()[-1] == {"event": "ended", "states": ["TASK_FINISHED"] * 2}
