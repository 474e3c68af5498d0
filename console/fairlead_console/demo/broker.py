"""Runs one RabbitMQ node in a task's sandbox, everything private to it. Standard library only; becomes the node.

PORT0 amqp, PORT1 management, PORT2 between nodes (nobody else), PORT3 the port mapper. What it holds goes with the
sandbox: a broker that must keep its messages wants a disk of its own.
"""

import os
import subprocess
from pathlib import Path

NAME = os.environ["BROKER_NAME"]
AMQP, MANAGEMENT, NODES, MAPPER = (os.environ[f"PORT{number}"] for number in range(4))
SERVER = "/usr/lib/rabbitmq/bin/rabbitmq-server"  # the one in /usr/sbin insists on root or the user rabbitmq
PLUGINS = "[rabbitmq_management,rabbitmq_federation,rabbitmq_federation_management].\n"
CONFIG = f"""listeners.tcp.1 = 127.0.0.1:{AMQP}
management.tcp.ip = 127.0.0.1
management.tcp.port = {MANAGEMENT}
cluster_name = {NAME}
collect_statistics_interval = 2000
disk_free_limit.absolute = 50MB
vm_memory_high_watermark.absolute = 256MB
log.console = false
"""


def lay_out(folder: Path) -> dict[str, str]:
    """Writes what the node reads; returns its environment."""
    home = folder / "home"
    home.mkdir(exist_ok=True)
    cookie = home / ".erlang.cookie"
    if not cookie.exists():
        cookie.write_text(os.urandom(16).hex())
        cookie.chmod(0o400)
    (folder / "rabbitmq.conf").write_text(CONFIG)
    (folder / "enabled_plugins").write_text(PLUGINS)
    nothing = str(folder / "none")
    return {
        "HOME": str(home),
        "LANG": "C.UTF-8",
        "ERL_EPMD_PORT": MAPPER,
        "ERL_EPMD_ADDRESS": "127.0.0.1",
        "RABBITMQ_NODENAME": f"{NAME}@localhost",
        "RABBITMQ_DIST_PORT": NODES,
        "RABBITMQ_MNESIA_BASE": str(folder / "mnesia"),
        "RABBITMQ_LOG_BASE": str(folder / "log"),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "enabled_plugins"),
        "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq.conf"),
        "RABBITMQ_CONF_ENV_FILE": nothing,
        "RABBITMQ_ADVANCED_CONFIG_FILE": nothing,
        "RABBITMQ_PID_FILE": str(folder / "pid"),
        "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1} +sbwt none",
    }


if __name__ == "__main__":
    environment = {**os.environ, **lay_out(Path.cwd())}
    subprocess.Popen(["epmd", "-port", MAPPER, "-address", "127.0.0.1"], env=environment)  # ends with the task
    os.execve(SERVER, [SERVER], environment)  # noqa: S606  # a fixed program; this process becomes it
