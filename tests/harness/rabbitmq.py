"""Real RabbitMQ nodes of Debian's package, everything private: ports, epmd, cookie, data. Killable, restartable."""

import json
import os
import signal
import urllib.error
import urllib.request
from base64 import b64encode
from pathlib import Path
from typing import Any
from urllib.parse import quote

from harness.ports import free_port
from harness.servers import Server, missing, require
from harness.waiting import wait_until

PROGRAMS = Path("/usr/lib/rabbitmq/bin")
PLUGINS = ("rabbitmq_management", "rabbitmq_federation", "rabbitmq_federation_management", "rabbitmq_prometheus")
USER, PASSWORD = "guest", "guest"


class Epmd:
    """One port mapper for the nodes of a test session, in the foreground so that it ends by pid."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        command = [require("epmd"), "-port", str(self.port), "-address", "127.0.0.1"]
        self.server = Server(command, log=folder / "epmd.log").start()

    def stop(self) -> None:
        self.server.stop()


class RabbitMQ:
    """`management` is "http://127.0.0.1:<port>", `url` "amqp://guest:guest@127.0.0.1:<port>". Boots in about 5 s."""

    def __init__(self, folder: Path, epmd: Epmd, name: str) -> None:
        if not PROGRAMS.exists():
            missing("rabbitmq-server is not installed")
        self.name = name
        self.folder = folder
        self.epmd = epmd
        self.port, self.management_port, self.prometheus_port, dist = (free_port() for _ in range(4))
        self.env = _lay_out(folder, self)
        self.env["RABBITMQ_DIST_PORT"] = str(dist)
        command = ["/usr/bin/env", "-i", *(f"{k}={v}" for k, v in self.env.items()), str(PROGRAMS / "rabbitmq-server")]
        self.server = Server(command, log=folder / "rabbitmq.log")

    @property
    def management(self) -> str:
        return f"http://127.0.0.1:{self.management_port}"

    @property
    def url(self) -> str:
        return f"amqp://{USER}:{PASSWORD}@127.0.0.1:{self.port}"

    @property
    def node(self) -> str:
        return f"{self.name}@localhost"

    def start(self) -> "RabbitMQ":
        self.begin()
        return self.wait()

    def begin(self) -> None:
        """Starts without waiting: two nodes boot side by side."""
        (self.folder / "pid").unlink(missing_ok=True)
        self.server.start()

    def wait(self) -> "RabbitMQ":
        self.server.wait_ready(f"RabbitMQ {self.name}", self.ready, within_s=60)
        return self

    def ready(self) -> bool:
        """The AMQP listener comes last, after the management API answers."""
        checks = ("virtual-hosts", f"port-listener/{self.port}")
        return all(self.api("GET", f"/api/health/checks/{check}")["status"] == "ok" for check in checks)

    def kill(self) -> None:
        """SIGKILL to the node itself, as a machine that loses power."""
        pid = self.beam_pid()
        if pid is not None and self.server.running():
            os.kill(pid, signal.SIGKILL)
            wait_until("the node's end", lambda: not Path(f"/proc/{pid}").exists() or not self.server.running())
        self.server.kill()

    def keep(self, queue: str) -> None:
        """Makes a durable queue, and ends and starts in order. Killed soon after it was made, RabbitMQ 3.10 forgets a queue
        now and then, and confirmed messages with it (tried: 1 of 6 times).
        """
        self.api("PUT", f"/api/queues/%2F/{queue}", {"durable": True})
        self.stop()
        self.start()

    def beam_pid(self) -> int | None:
        try:
            return int((self.folder / "pid").read_text())
        except (OSError, ValueError):
            return None

    def stop(self) -> None:
        """In order, as SIGTERM to the node does; SIGKILL after 15 s."""
        pid = self.beam_pid()
        if pid is not None and Path(f"/proc/{pid}").exists():
            os.kill(pid, signal.SIGTERM)
            try:
                wait_until("the node's end", lambda: not self.server.running(), within_s=15)
            except AssertionError:
                self.kill()
        self.server.kill()

    def control(self, *words: str) -> str:
        """`rabbitmqctl` on this node; its output."""
        import subprocess

        command = [str(PROGRAMS / "rabbitmqctl"), "-q", "-n", self.node, *words]
        return subprocess.run(command, env=self.env, capture_output=True, text=True, check=True, timeout=60).stdout

    def api(self, method: str, path: str, body: object = None) -> Any:
        """The management API, decoded; None for an empty answer."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.management + path, data=data, method=method)
        request.add_header("Authorization", "Basic " + b64encode(f"{USER}:{PASSWORD}".encode()).decode())
        request.add_header("Content-Type", "application/json")
        with urllib.request.urlopen(request, timeout=10) as response:
            raw = response.read()
        return json.loads(raw) if raw else None

    def found(self, path: str) -> Any:
        """As api("GET"); None when there is no such thing."""
        try:
            return self.api("GET", path)
        except urllib.error.HTTPError as error:
            if error.code == 404:
                return None
            raise

    def make_vhost(self, name: str) -> None:
        self.api("PUT", f"/api/vhosts/{quote(name, safe='')}", {})

    def delete_vhost(self, name: str) -> None:
        self.api("DELETE", f"/api/vhosts/{quote(name, safe='')}")


def _lay_out(folder: Path, node: RabbitMQ) -> dict[str, str]:
    """Writes its files; returns the environment it needs, and no more."""
    home = folder / "home"
    home.mkdir(parents=True, exist_ok=True)
    cookie = home / ".erlang.cookie"
    if not cookie.exists():
        cookie.write_text("fairleadtests")
        cookie.chmod(0o400)
    (folder / "enabled_plugins").write_text(f"[{','.join(PLUGINS)}].\n")
    (folder / "rabbitmq.conf").write_text(
        f"listeners.tcp.1 = 127.0.0.1:{node.port}\n"
        f"management.tcp.ip = 127.0.0.1\nmanagement.tcp.port = {node.management_port}\n"
        f"prometheus.tcp.ip = 127.0.0.1\nprometheus.tcp.port = {node.prometheus_port}\n"
        f"cluster_name = {node.name}\ncollect_statistics_interval = 1000\n"
        "disk_free_limit.absolute = 50MB\nlog.console = false\nloopback_users.guest = true\n"
    )
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "LANG": "C.UTF-8",
        "ERL_EPMD_PORT": str(node.epmd.port),
        "ERL_EPMD_ADDRESS": "127.0.0.1",
        "RABBITMQ_NODENAME": node.node,
        "RABBITMQ_MNESIA_BASE": str(folder / "mnesia"),
        "RABBITMQ_LOG_BASE": str(folder / "log"),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "enabled_plugins"),
        "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq.conf"),
        "RABBITMQ_CONF_ENV_FILE": str(folder / "none"),
        "RABBITMQ_ADVANCED_CONFIG_FILE": str(folder / "none"),
        "RABBITMQ_PID_FILE": str(folder / "pid"),
        "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1} +sbwt none",
    }


class Pair:
    """East and west: two brokers that know nothing of one another."""

    def __init__(self, folder: Path) -> None:
        self.epmd = Epmd(folder)
        self.east, self.west = (RabbitMQ(folder / name, self.epmd, name) for name in ("east", "west"))

    def start(self) -> "Pair":
        for broker in (self.east, self.west):
            broker.begin()
        for broker in (self.east, self.west):
            broker.wait()
        return self

    def stop(self) -> None:
        """By SIGKILL: their data goes with the folder, and an orderly end takes 6 s each."""
        for broker in (self.east, self.west):
            broker.kill()
        self.epmd.stop()
