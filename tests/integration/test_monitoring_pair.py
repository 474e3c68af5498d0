"""Two monitors on a real ZooKeeper: each change is told once, whoever of them dies and when ZooKeeper is away."""

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.hook import Hook
from harness.monitors import HeatPage, Monitor
from harness.rabbitmq import Epmd, RabbitMQ
from harness.waiting import wait_until
from harness.zookeeper import ZooKeeper


@pytest.fixture
def hook() -> Iterator[Hook]:
    receiver = Hook().start()
    yield receiver
    receiver.stop()


@pytest.fixture
def page() -> Iterator[HeatPage]:
    heat = HeatPage()
    yield heat
    heat.stop()


@pytest.fixture
def pair(short_dir: Path, own_zookeeper: ZooKeeper, hook: Hook, page: HeatPage) -> Iterator[tuple[Monitor, Monitor]]:
    """The first one leads."""
    one, two = (
        Monitor(short_dir, name, own_zookeeper.url, id=name, webhooks=[hook.url], scrape={"attic": page.url})
        for name in ("one", "two")
    )
    one.start()
    wait_until("the first leads", one.acting)
    two.start()
    yield one, two
    for monitor in (one, two):
        monitor.server.stop()


@pytest.fixture
def own_registry(zookeeper: ZooKeeper, short_dir: Path) -> str:
    """A place of this test alone on the session's ZooKeeper."""
    return f"{zookeeper.url}/{short_dir.name}"


def wait_states(hook: Hook, states: list[str], within_s: float = 15) -> None:
    def told() -> bool:
        assert states == hook.states()
        return True

    wait_until(f"{states} are told", told, within_s=within_s)


def test_the_second_takes_over_and_tells_only_what_changes(
    pair: tuple[Monitor, Monitor], hook: Hook, page: HeatPage, own_zookeeper: ZooKeeper
):
    """Killed while an alert fires: no call is repeated, its end is told once. ZooKeeper paused: the leader goes on."""
    one, two = pair
    page.heat = 5.0
    wait_states(hook, ["firing"])
    assert not two.acting()
    wait_until("that it was told is written down", lambda: one.answered() == 1 and not one.get("/status")["unwritten"])
    one.server.kill()
    wait_until("the second leads", two.acting, within_s=30)
    time.sleep(1)
    wait_states(hook, ["firing"])
    page.heat = 0.0
    wait_states(hook, ["firing", "resolved"])

    own_zookeeper.pause()
    try:
        time.sleep(1)
        page.heat = 5.0
        wait_states(hook, ["firing", "resolved", "firing"], within_s=40)
    finally:
        own_zookeeper.resume()
    wait_until("all is written down", lambda: (s := two.get("/status"))["leading"] and not s["unwritten"], within_s=40)
    one.start()
    page.heat = 0.0
    wait_states(hook, ["firing", "resolved", "firing", "resolved"], within_s=30)

    assert 4 == len(hook.calls)


def test_a_source_that_dies_is_no_data_and_not_well(short_dir: Path, own_registry: str, hook: Hook, page: HeatPage):
    """Firing, then nothing to be seen: told as no-data; back and well: resolved."""
    alone = Monitor(short_dir, "one", own_registry, webhooks=[hook.url], scrape={"attic": page.url}).start()
    try:
        page.heat = 5.0
        wait_states(hook, ["firing"])
        page.heat = None
        wait_states(hook, ["firing", "no-data"])
        page.heat = 0.0
        wait_states(hook, ["firing", "no-data", "resolved"])
    finally:
        alone.server.stop()


def test_rules_are_read_again_and_a_bad_file_changes_nothing(
    short_dir: Path, own_registry: str, hook: Hook, page: HeatPage
):
    """SIGHUP; the mistake stands in the log with file, rule and column."""
    alone = Monitor(short_dir, "one", own_registry, webhooks=[hook.url], scrape={"attic": page.url}).start()
    try:
        alone.rules.write_text('[[rule]]\nname = "hot"\nwhen = "heat >"\n')
        alone.server.process.send_signal(signal.SIGHUP)
        wait_until("the mistake is said", lambda: "rule hot: when: column 7" in alone.server.tail())
        assert ["heat > 1"] == [rule["when"] for rule in alone.get("/api/alerts")["rules"]]

        alone.rules.write_text('[[rule]]\nname = "hot"\nwhen = "heat > 9"\n')
        alone.server.process.send_signal(signal.SIGHUP)
        wait_until("it is read", lambda: ["heat > 9"] == [r["when"] for r in alone.get("/api/alerts")["rules"]])
    finally:
        alone.server.stop()


def test_a_bad_rule_refuses_the_start(short_dir: Path, own_registry: str):
    """Exit code 2, the rule named."""
    monitor = Monitor(short_dir, "one", own_registry)
    monitor.rules.write_text('[[rule]]\nname = "hot"\nwhen = "heat[5m] > 1"\n')
    monitor.server.start()

    assert 2 == monitor.server.process.wait(20)
    assert "rules.toml: rule hot: when: column 5" in monitor.server.tail()


def test_rabbitmqs_own_metrics_are_collected(short_dir: Path, own_registry: str):
    """A real broker's Prometheus page; killed, it is down, and its series have no value any more."""
    epmd = Epmd(short_dir)
    broker = RabbitMQ(short_dir / "rabbit", epmd, "measured").start()
    page = f"http://127.0.0.1:{broker.prometheus_port}/metrics"
    monitor = Monitor(short_dir, "one", own_registry, rabbitmq=[page]).start()

    def up() -> float:
        found = monitor.get("/api/series?name=fairlead_up&role=rabbitmq&since=-5")["series"]
        return float(found[0]["points"][-1][1])

    try:
        wait_until("it is up", lambda: up() == 1.0)
        names = monitor.get("/api/names")["names"]
        broker.kill()
        wait_until("it is down", lambda: up() == 0.0)
    finally:
        monitor.server.stop()
        broker.stop()
        epmd.stop()

    assert {"rabbitmq_queue_messages_ready", "rabbitmq_connections", "rabbitmq_identity_info"} <= set(names)
