"""The demo's messages: two RabbitMQ brokers as apps, an exchange federated from east to west, an app at each end."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

SERVER = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")
EAST, WEST = "/demo/broker-east", "/demo/broker-west"
ORDERS, WAREHOUSE = "/demo/orders", "/demo/warehouse"
WAREHOUSE_HOST = "warehouse.localhost"
SCRIPTS = ("broker.py", "messages.py")
PACKAGES = ("fairlead_messaging", "fairlead_daemon", "pika", "prometheus_client")
"""Copied beside the scripts: what `Bus` needs, pure Python all of it."""
TOPOLOGY_NAME = "demo"
TOPOLOGY = f"""name = "{TOPOLOGY_NAME}"
[brokers.east]
service = "{EAST}"
[brokers.west]
service = "{WEST}"
[[exchanges]]
name = "orders"
type = "topic"
[[federated_exchanges]]
name = "orders"
from = ["east"]
to = ["west"]
reconnect_delay_s = 1
"""
SRV = {EAST: "_amqp._broker-east-demo._tcp.marathon.mesos", WEST: "_amqp._broker-west-demo._tcp.marathon.mesos"}


def apps(scripts: Path, dns_http: Sequence[str]) -> list[dict[str, Any]]:
    """Brokers first: they take longest."""
    return [
        broker(scripts, EAST),
        broker(scripts, WEST),
        client(scripts, ORDERS, EAST, dns_http),
        client(scripts, WAREHOUSE, WEST, dns_http),
    ]


def broker(scripts: Path, app_id: str) -> dict[str, Any]:
    name = app_id.rpartition("-")[2]
    return {
        "id": app_id,
        "cmd": "exec /usr/bin/python3 broker.py",
        "cpus": 0.5,
        "mem": 400,
        "instances": 1,
        "env": {"BROKER_NAME": name},
        "fetch": [{"uri": f"file://{scripts / 'broker.py'}", "extract": False}],
        "portDefinitions": [{"port": 0, "name": port} for port in ("amqp", "management", "nodes", "mapper")],
        "healthChecks": [_check("MESOS_TCP", grace_s=60)],
        "upgradeStrategy": {"minimumHealthCapacity": 0, "maximumOverCapacity": 0},  # two of them would be two brokers
    }


def client(scripts: Path, app_id: str, broker_id: str, dns_http: Sequence[str]) -> dict[str, Any]:
    role = app_id.rpartition("/")[2]
    return {
        "id": app_id,
        "cmd": f"PYTHONPATH={scripts / 'lib'} exec /usr/bin/python3 messages.py {role}",
        "cpus": 0.1,
        "mem": 64,
        "instances": 1,
        "env": {"BROKER_SRV": SRV[broker_id], "FAIRLEAD_DNS_HTTP": ",".join(dns_http)},
        "fetch": [{"uri": f"file://{scripts / 'messages.py'}", "extract": False}],
        "portDefinitions": [{"port": 0, "name": "http"}],
        "labels": {"HAPROXY_GROUP": "external", "HAPROXY_0_VHOST": f"{role}.localhost"},
        "healthChecks": [{**_check("MESOS_HTTP", grace_s=20), "path": "/"}],
    }


def _check(protocol: str, *, grace_s: int) -> Mapping[str, Any]:
    return {
        "protocol": protocol,
        "portIndex": 0,
        "delaySeconds": 0,
        "gracePeriodSeconds": grace_s,
        "intervalSeconds": 1,
        "timeoutSeconds": 2,
        "maxConsecutiveFailures": 5,
    }
