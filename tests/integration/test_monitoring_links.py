"""A federation link between two real brokers that stops running is told once, and so is its return."""

import json
import urllib.request
from pathlib import Path

from harness.hook import Hook
from harness.house import FAIRLEAD
from harness.monitors import Monitor
from harness.ports import free_port
from harness.rabbitmq import Pair
from harness.servers import Server
from harness.waiting import wait_until

RULES = """
[[rule]]
name = "link-not-running"
when = "fairlead_link_running < 1"
for = "1s"
summary = "{kind} {name}: the federation link from {upstream} to {broker} does not run"
"""


def topology(pair: Pair) -> str:
    brokers = "\n".join(
        f'[brokers.{b.name}]\nmanagement = "{b.management}"\namqp = ["amqp://127.0.0.1:{b.port}"]\ncluster_name = "{b.name}"'
        for b in (pair.east, pair.west)
    )
    return (
        f'name = "shop"\n{brokers}\n[[vhosts]]\nname = "shop"\n[[exchanges]]\nvhost = "shop"\nname = "orders"\ntype = "topic"\n'
        '[[federated_exchanges]]\nvhost = "shop"\nname = "orders"\nfrom = ["east"]\nto = ["west"]\nreconnect_delay_s = 1\n'
    )


def links(url: str) -> list[str]:
    with urllib.request.urlopen(f"{url}/status", timeout=5) as answer:
        return [link["state"] for link in json.loads(answer.read())["links"]]


def test_a_link_that_does_not_run_is_told_and_its_return(short_dir: Path):
    """The upstream broker is killed and started again: firing once, resolved once."""
    pair, hook, port = Pair(short_dir), Hook().start(), free_port()
    (short_dir / "topology.toml").write_text(topology(pair))
    shared = [
        "--set",
        f"registry=local:{short_dir}/r.sock",
        "--set",
        "token=off",
        "--set",
        f"data_dir={short_dir}/data",
    ]
    url = f"http://127.0.0.1:{port}"
    own = ["--set", f"port={port}", "--set", f'topologies=["{short_dir}/topology.toml"]', "--set", "every_s=0.5"]
    registry = Server([str(FAIRLEAD), "registry", *shared], log=short_dir / "registry.log").start()
    messaging = Server([str(FAIRLEAD), "messaging", *shared, *own], log=short_dir / "messaging.log")
    monitor = Monitor(short_dir, "one", f"local:{short_dir}/r.sock", webhooks=[hook.url], messaging=url)
    monitor.rules.write_text(RULES)
    try:
        pair.start()
        messaging.start()
        wait_until("the link runs", lambda: links(url) == ["running"], within_s=30, every_s=0.2)
        monitor.start()
        wait_until("it is measured", lambda: monitor.get("/api/series?name=fairlead_link_running")["series"])
        pair.east.kill()
        wait_until("it is told", lambda: hook.states() == ["firing"], within_s=30)
        pair.east.start()
        wait_until("its return is told", lambda: hook.states() == ["firing", "resolved"], within_s=40)
    finally:
        for server in (monitor.server, messaging, registry):
            server.stop()
        pair.stop()
        hook.stop()

    assert {
        "broker": "west",
        "upstream": "fairlead.shop.east",
        "vhost": "shop",
        "kind": "exchange",
        "name": "orders",
    } == hook.calls[0][1]["labels"]
    assert 2 == len(hook.calls)
