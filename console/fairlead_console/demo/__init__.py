"""The demo: two apps as standard-library scripts, which `up --demo` copies to where tasks can read them.

`/demo/web` counts its requests; `/demo/shop` finds it by name and shows its answer. Definitions are made here.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

WEB = "/demo/web"
SHOP = "/demo/shop"
WEB_HOST = "web.localhost"
SHOP_HOST = "shop.localhost"
WEB_NAME = "web-demo.marathon.mesos"
SCRIPTS = ("web.py", "shop.py")
FOLDER = Path(__file__).parent


def web(scripts: Path) -> dict[str, Any]:
    """Two instances; the balancer gives them a service port."""
    return {**_app(WEB, scripts / "web.py", host=WEB_HOST), "instances": 2}


def shop(scripts: Path, *, web_port: int, dns: str) -> dict[str, Any]:
    """`web_port` is the service port at which the balancer serves /demo/web on every machine; `dns` is a name server."""
    env = {"WEB_NAME": WEB_NAME, "WEB_PORT": str(web_port), "FAIRLEAD_DNS": dns}
    return {**_app(SHOP, scripts / "shop.py", host=SHOP_HOST), "env": env}


def _app(app_id: str, script: Path, *, host: str) -> dict[str, Any]:
    check: Mapping[str, Any] = {
        "protocol": "MESOS_HTTP",
        "path": "/health",
        "portIndex": 0,
        "delaySeconds": 0,
        "gracePeriodSeconds": 10,
        "intervalSeconds": 1,
        "timeoutSeconds": 2,
        "maxConsecutiveFailures": 3,
    }
    return {
        "id": app_id,
        "cmd": f"exec /usr/bin/python3 {script.name}",
        "cpus": 0.1,
        "mem": 32,
        "instances": 1,
        "fetch": [{"uri": f"file://{script}", "extract": False}],
        "portDefinitions": [{"port": 0, "name": "http"}],
        "labels": {"HAPROXY_GROUP": "external", "HAPROXY_0_VHOST": host},
        "healthChecks": [check],
    }
