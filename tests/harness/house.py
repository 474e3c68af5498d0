"""The whole of fairlead on one machine, as `fairlead up` starts it, on private ports in a temporary folder."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

from harness.ports import free_port, free_range
from harness.servers import Server, require
from harness.waiting import wait_until
from harness.zookeeper import ZooKeeper

HARNESS = Path(__file__).parent
FAIRLEAD = Path(sys.executable).with_name("fairlead")
NOBODY_READABLE = 0o755
_houses = count(1)


class House:
    """`up` with two agents and TTL 1 s. `url` is the registry: "local", or a ZooKeeper's `zk://…`."""

    def __init__(self, folder: Path, url: str = "local", **settings: object) -> None:
        self.folder = folder
        self.url = url
        agent = free_range(2)
        self.ports = {
            "master_port": free_port(),
            "agent_port": agent[0],
            "services_port": free_port(),
            "dns_port": free_port(),
            "dns_http_port": free_range(2)[0],
            "lb_admin_port": free_port(),
            "lb_http_port": free_port(),
            "lb_https_port": free_port(),
            "console_port": free_port(),
            "monitor_port": free_port(),
            "messaging_port": free_port(),
        }
        self.service_ports = free_range(20)
        tasks = free_range(200)
        self.settings: dict[str, object] = {
            "data_dir": str(folder / "data"),
            **self.ports,
            "service_ports": f"{self.service_ports[0]}-{self.service_ports[-1]}",
            "agent_ports": f"{tasks[0]}-{tasks[-1]}",
            "agent_resources": "cpus:8;mem:8192;disk:10000",
            "dns_address": own_loopback_address() if os.getuid() == 0 else "",
            "ttl_s": 1,
            "demo_brokers": "off",  # two RabbitMQ nodes take 5 s and 300 MB: only the test that is about them
            "token": "off",
            **settings,
        }
        if url != "local":
            self.settings["registry"] = url
        self.config = folder / "up.toml"
        self.config.write_text(_toml(self.settings))
        self.zookeeper: ZooKeeper | None = None
        self.up = Server([str(FAIRLEAD), "up", "--config", str(self.config)], log=folder / "up.log")
        self.counts = folder / "counts"
        self.counts.mkdir(mode=0o777)
        self.counts.chmod(0o1777)
        for script in ("counting_app.py", "finding_app.py"):
            shutil.copy(HARNESS / script, folder / script)
            (folder / script).chmod(0o755)

    # --- life ----------------------------------------------------------------------------------------------------

    def start(self, *, within_s: float = 60) -> "House":
        self.up.start()
        self.wait_up(within_s=within_s)
        return self

    def wait_up(self, *, within_s: float = 60) -> None:
        def ready() -> bool:
            if not self.up.running():
                return True  # of itself: waiting longer changes nothing
            ports = ("master_port", "services_port", "dns_http_port", "lb_admin_port")
            return all(self.get(p, "/ready")["ready"] for p in ports)

        wait_until("the house is up", ready, within_s=within_s, every_s=0.1)
        assert self.up.running(), f"`fairlead up` ended:\n{self.up.tail(60)}"

    def stop(self) -> None:
        """In order; what is left behind is a failure."""
        code = self.up.stop(grace_s=60)
        left = self.left_behind()
        for pid in left:
            os.kill(pid, signal.SIGKILL)
        assert not left, f"`up` left processes behind: {list(left.values())}"
        assert code in {0, None}, f"`up` ended with {code}:\n{self.up.tail()}"

    def registry_socket(self) -> Path:
        assert self.url == "local", "only the local registry has a socket"
        return self.folder / "data" / "registry.sock"

    def end_keepers(self, data: Path) -> None:
        """Kills the keeper and the tasks of an agent that the test started itself."""
        for pid in self.left_behind(data):
            os.kill(pid, signal.SIGKILL)

    def left_behind(self, folder: Path | None = None) -> dict[int, str]:
        """Processes whose command line or environment names the folder, by default the house's."""
        wanted, found = str(folder or self.folder).encode(), {}
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit() or int(entry.name) == os.getpid():
                continue
            try:
                words = (entry / "cmdline").read_bytes() + b"\0" + (entry / "environ").read_bytes()
                state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
            except OSError:
                continue
            if wanted in words and state != "Z" and b"QuorumPeer" not in words:
                found[int(entry.name)] = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()[:150]
        return found

    def processes(self) -> dict[str, dict[str, int]]:
        value: dict[str, dict[str, int]] = json.loads((self.folder / "data" / "processes.json").read_text())
        return value

    def pid(self, name: str) -> int:
        return self.processes()[name]["pid"]

    def kill(self, name: str) -> int:
        """SIGKILL to one daemon; `up` starts it again. Returns the killed pid."""
        pid = self.pid(name)
        os.kill(pid, signal.SIGKILL)
        return pid

    def wait_restarted(self, name: str, old_pid: int, *, within_s: float = 20) -> None:
        wait_until(f"{name} is started again", lambda: self.pid(name) != old_pid, within_s=within_s)

    def log(self, name: str, lines: int = 40) -> str:
        return "\n".join((self.folder / "data" / "log" / f"{name}.log").read_text().splitlines()[-lines:])

    # --- HTTP ----------------------------------------------------------------------------------------------------

    def call(self, port: str, method: str, path: str, body: object = None) -> tuple[int, Any]:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.ports[port]}{path}",
            data=data,
            method=method,
            headers={"Content-Type": "application/json"} if data else {},
        )
        try:
            with urllib.request.urlopen(request, timeout=10) as response:
                return response.status, _parsed(response.read())
        except urllib.error.HTTPError as error:
            return error.code, _parsed(error.read())

    def get(self, port: str, path: str) -> Any:
        return self.call(port, "GET", path)[1]

    # --- apps ----------------------------------------------------------------------------------------------------

    def app(self, app_id: str, **changes: object) -> dict[str, Any]:
        """The counting service as an app definition: 2 instances, health check, virtual host `<id>.example`."""
        name = app_id.strip("/").replace("/", "-")
        work_s = changes.pop("work_s", 0.01)
        return {
            "id": app_id,
            "cmd": f"exec /usr/bin/python3 {self.folder}/counting_app.py",
            "cpus": 0.1,
            "mem": 32,
            "instances": 2,
            "env": {"COUNT_FILE": str(self.count_file(app_id)), "WORK_S": str(work_s)},
            "portDefinitions": [{"port": 0, "name": "http", "protocol": "tcp"}],
            "labels": {"HAPROXY_0_VHOST": f"{name}.example"},
            "healthChecks": [
                {
                    "protocol": "MESOS_HTTP",
                    "path": "/",
                    "portIndex": 0,
                    "gracePeriodSeconds": 20,
                    "intervalSeconds": 2,
                    "timeoutSeconds": 5,
                    "maxConsecutiveFailures": 3,
                }
            ],
            "upgradeStrategy": {"minimumHealthCapacity": 1.0, "maximumOverCapacity": 1.0},
            "backoffSeconds": 0,
            **changes,
        }

    def count_file(self, app_id: str) -> Path:
        file = self.counts / app_id.strip("/").replace("/", "-")
        if not file.exists():
            file.touch()
            file.chmod(0o666)
        return file

    def served(self, app_id: str) -> dict[tuple[str, int], int]:
        """How often each (method, number) was executed."""
        out: dict[tuple[str, int], int] = {}
        for line in self.count_file(app_id).read_text().splitlines():
            method, number, *_ = line.split()
            key = (method, int(number))
            out[key] = out.get(key, 0) + 1
        return out

    def servers(self, app_id: str) -> set[str]:
        """Task ids that served a numbered request."""
        return {line.split()[2] for line in self.count_file(app_id).read_text().splitlines()}

    def doubled(self, app_id: str, method: str | None = None) -> list[tuple[str, int]]:
        return [k for k, n in self.served(app_id).items() if n > 1 and method in {None, k[0]}]

    def deploy(self, definition: Mapping[str, Any], *, within_s: float = 60) -> None:
        """Creates or changes the app, waits for the deployment and until the balancer routes to every instance."""
        app_id = definition["id"]
        status, answer = self.call("services_port", "PUT", f"/v2/apps{app_id}", dict(definition))
        assert status in {200, 201}, answer
        self.settle(app_id, within_s=within_s)

    def deploy_unnamed(self, definition: Mapping[str, Any]) -> None:
        """As deploy, for an app whose DNS name is another's too: names are not compared."""
        status, answer = self.call("services_port", "PUT", f"/v2/apps{definition['id']}", dict(definition))
        assert status in {200, 201}, answer
        self.settle(definition["id"], named=False)

    def remove(self, app_id: str) -> None:
        """Deletes the app and waits until its tasks are gone."""
        assert 200 == self.call("services_port", "DELETE", f"/v2/apps{app_id}")[0]
        wait_until(f"{app_id} is gone", lambda: not self.published(app_id) and not self.running(app_id), within_s=60)

    def running(self, app_id: str) -> list[str]:
        """Ids of the app's tasks that the master knows as not ended."""
        prefix = app_id.strip("/").replace("/", "_") + ".instance-"
        tasks = [t for f in self.get("master_port", "/state")["frameworks"] for t in f["tasks"]]
        return [t["id"] for t in tasks if t["id"].startswith(prefix)]

    def published(self, app_id: str) -> list[int]:
        return self.lb_ports(app_id)

    def operate(self, call: str, agent_id: str) -> None:
        body = {"type": call, call.lower(): {"agent_id": {"value": agent_id}}}
        status, answer = self.call("master_port", "POST", "/api/v1", body)
        assert status in {200, 202}, answer

    def drain(self, agent_id: str) -> None:
        self.operate("DRAIN_AGENT", agent_id)

    def undrain(self, agent_id: str) -> None:
        self.operate("REACTIVATE_AGENT", agent_id)

    def settle(self, app_id: str, *, within_s: float = 60, named: bool = True) -> None:
        """Until no deployment runs, every instance is healthy, and names and balancer show exactly these."""

        def settled() -> bool:
            app = self.get("services_port", f"/v2/apps{app_id}")["app"]
            assert not self.get("services_port", "/v2/deployments"), "a deployment runs"
            assert app["instances"] == app["tasksRunning"] == app["tasksHealthy"], f"tasks: {app}"
            tasks = self.get("services_port", f"/v2/apps{app_id}/tasks")["tasks"]
            ports = sorted(t["ports"][0] for t in tasks)
            if named:
                assert ports == self.srv_ports(app_id), f"names: {self.srv_ports(app_id)} are not {ports}"
            assert ports == self.lb_ports(app_id), f"balancer: {self.lb_ports(app_id)} are not {ports}"
            return True

        wait_until(f"{app_id} settles", settled, within_s=within_s, every_s=0.1)

    def tasks(self, app_id: str) -> list[dict[str, Any]]:
        value: list[dict[str, Any]] = self.get("services_port", f"/v2/apps{app_id}/tasks")["tasks"]
        return value

    def task_pids(self, task_id: str) -> list[int]:
        """Processes whose environment carries the task's id."""
        marker = f"MESOS_TASK_ID={task_id}".encode()
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    if marker in (entry / "environ").read_bytes().split(b"\0"):
                        found.append(int(entry.name))
                except OSError:
                    continue
        return found

    def keeper_of(self, task_pid: int) -> int:
        """Pid of the keeper among the ancestors of a task's process."""
        pid = task_pid
        while pid > 1:
            pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
            if b"keeper" in Path(f"/proc/{pid}/cmdline").read_bytes():
                return pid
        raise AssertionError(f"no keeper above {task_pid}")

    def agents(self) -> list[dict[str, Any]]:
        value: list[dict[str, Any]] = self.get("master_port", "/slaves")["slaves"]
        return value

    # --- names and routes ----------------------------------------------------------------------------------------

    def dns_name(self, app_id: str) -> str:
        return "-".join(reversed(app_id.strip("/").split("/"))) + ".marathon.mesos"

    def dig(self, name: str, kind: str = "A") -> list[str]:
        out = subprocess.run(
            [
                require("dig"),
                "@127.0.0.1",
                "-p",
                str(self.ports["dns_port"]),
                name,
                kind,
                "+short",
                "+tries=1",
                "+time=2",
            ],
            capture_output=True,
            text=True,
            timeout=10,
            check=False,
        )
        return sorted(line for line in out.stdout.splitlines() if not line.startswith(";;"))

    def srv_ports(self, app_id: str) -> list[int]:
        name = self.dns_name(app_id)
        return sorted(
            int(line.split()[2]) for line in self.dig(f"_{name.replace('.marathon', '._tcp.marathon')}", "SRV")
        )

    def lb_ports(self, app_id: str) -> list[int]:
        """Ports of the servers that HAProxy gives new requests to, asked of HAProxy's own admin page."""
        status = self.get("lb_admin_port", "/status")
        return sorted(
            int(server["port"])
            for service in status["services"]
            if service["service"] == f"marathon:{app_id}"
            for server in service["servers"]
            if server["state"] == "ready"
        )

    def through_lb(self, host: str, path: str = "/") -> tuple[int, str]:
        request = urllib.request.Request(f"http://127.0.0.1:{self.ports['lb_http_port']}{path}", headers={"Host": host})
        try:
            with urllib.request.urlopen(request, timeout=10) as response:
                return response.status, response.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode(errors="replace")


def _toml(settings: Mapping[str, Any]) -> str:
    """Plain keys, then one level of tables: `{"settings": {"master": {…}}}`."""
    plain = {k: v for k, v in settings.items() if not isinstance(v, dict)}
    lines = [f"{k} = {json.dumps(v)}\n" for k, v in plain.items()]
    for name, tables in settings.items():
        for daemon, table in tables.items() if isinstance(tables, dict) else ():
            lines += [f"\n[{name}.{daemon}]\n", *(f"{k} = {json.dumps(v)}\n" for k, v in table.items())]
    return "".join(lines)


def own_loopback_address() -> str:
    """An address for DNS on port 53 that other houses of this machine do not use."""
    return f"127.53.{os.getpid() % 250 + 1}.{next(_houses) % 250 + 1}"


def _parsed(raw: bytes) -> Any:
    try:
        return json.loads(raw) if raw else None
    except ValueError:
        return raw.decode(errors="replace")


@contextmanager
def house(url: str = "local", **settings: object) -> Iterator[House]:
    """A started house, stopped and removed at the end; on a failure the logs' ends are printed."""
    folder = Path(tempfile.mkdtemp(prefix="fl-", dir="/tmp"))
    folder.chmod(NOBODY_READABLE)
    place = House(folder, url, **settings)
    begin = time.monotonic()
    try:
        place.start()
        print(f"house up in {time.monotonic() - begin:.1f} s")
        yield place
    except BaseException:
        for log in sorted((folder / "data" / "log").glob("*.log")):
            print(f"--- {log.name}\n" + "\n".join(log.read_text(errors="replace").splitlines()[-40:]))
        print("--- up\n" + place.up.tail(60))
        for pid in place.left_behind():
            os.kill(pid, signal.SIGKILL)
        raise
    else:
        place.stop()
    finally:
        if os.environ.get("FAIRLEAD_KEEP") is None:
            shutil.rmtree(folder, ignore_errors=True)
