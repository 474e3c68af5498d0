"""The demo's messages: two brokers placed by the scheduler, an order published on one consumed from the other."""

import json
import os
import shutil
import signal
import subprocess
import tempfile
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.house import FAIRLEAD, House
from harness.waiting import wait_until


@pytest.fixture
def demo() -> Iterator[House]:
    folder = Path(tempfile.mkdtemp(prefix="fl-", dir="/tmp"))
    folder.chmod(0o755)
    place = House(folder, demo_brokers="auto")
    place.up.command = [*place.up.command, "--demo"]
    try:
        yield place.start()
        place.stop()
    finally:
        for pid in place.left_behind():
            os.kill(pid, signal.SIGKILL)
        if os.environ.get("FAIRLEAD_KEEP") is None:
            shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.needs("epmd")
def test_an_order_on_one_broker_reaches_the_app_on_the_other(demo: House):
    """Brokers, federation and both apps come up by themselves; a broker that dies is replaced, and orders flow again."""
    up = demo.folder / "up.log"
    line = wait_until("the first order", lambda: said(up, "messages"), within_s=90, every_s=0.2)
    assert "/demo/orders reaches /demo/warehouse over two brokers" in line
    wait_until("the link runs", lambda: ["running"] == [link["state"] for link in links(demo)], every_s=0.3)

    before = tasks(demo, "/demo/broker-east")[0]["id"]
    demo.call("services_port", "DELETE", f"/v2/apps/demo/broker-east/tasks/{before}")
    wait_until("another broker", lambda: replaced(demo, before), within_s=60, every_s=0.3)
    count = received(demo)
    wait_until("orders flow again", lambda: received(demo) > count, within_s=60, every_s=0.3)


def said(log: Path, step: str) -> str:
    return next((line for line in log.read_text().splitlines() if line.split()[2:3] == [step]), "")


def links(demo: House) -> Any:
    command = [str(FAIRLEAD), "broker", "links", "--json", "--data-dir", str(demo.folder / "data")]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=False, timeout=30).stdout)


def tasks(demo: House, app: str) -> list[Any]:
    found: list[Any] = demo.get("services_port", f"/v2/apps{app}")["app"]["tasks"]
    return found


def replaced(demo: House, before: str) -> bool:
    now = tasks(demo, "/demo/broker-east")
    return [t["id"] for t in now] != [before] and any(
        r.get("alive") for t in now for r in t.get("healthCheckResults") or ()
    )


def received(demo: House) -> int:
    port = tasks(demo, "/demo/warehouse")[0]["ports"][0]
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5) as response:
        return int(json.load(response).get("received", 0))
