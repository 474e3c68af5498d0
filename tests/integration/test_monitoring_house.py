"""The monitor in a whole house: its rules, a real webhook receiver, a real Prometheus, a real carbon, the verbs."""

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from harness.carbon import Carbon
from harness.hook import Hook
from harness.house import FAIRLEAD, HARNESS, House, house
from harness.prometheus import Prometheus
from harness.waiting import wait_until

pytestmark = pytest.mark.needs("haproxy", "carbon-cache", "prometheus")
RULES = """
[[rule]]
name = "fewer-instances-than-wanted"
when = 'fairlead_service_wanted - fairlead_service_instances{state="healthy"} > 0'
severity = "critical"
summary = "{service}: {value} healthy instances fewer than wanted"

[[rule]]
name = "daemon-down"
when = 'fairlead_up{page="metrics", role!="agent"} < 1'
for = "1s"
"""


@pytest.fixture(scope="module")
def hook() -> Iterator[Hook]:
    receiver = Hook().start()
    yield receiver
    receiver.stop()


@pytest.fixture(scope="module")
def carbon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Carbon]:
    server = Carbon(tmp_path_factory.mktemp("carbon")).start()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def place(hook: Hook, carbon: Carbon, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    rules = tmp_path_factory.mktemp("rules") / "mine.toml"
    rules.write_text(RULES)
    told = {
        "rules": [str(rules)],
        "webhooks": [hook.url],
        "interval_s": 1.0,
        "graphite": carbon.address,
        "graphite_interval_s": 1,
        "graphite_settle_s": 5.0,
    }
    with house(settings={"monitor": told}) as whole:
        shutil.copy(HARNESS / "metrics_app.py", whole.folder / "metrics_app.py")
        whole.deploy(whole.app("/shop/web"))
        yield whole


def alerts(place: House, rule: str, *states: str) -> list[dict[str, Any]]:
    found = place.get("monitor_port", "/api/alerts")["alerts"]
    return [a for a in found if a["rule"] == rule and (not states or a["state"] in states)]


def wait_told(hook: Hook, rule: str, states: list[str], within_s: float = 20) -> list[dict[str, Any]]:
    """The bodies of all calls about a rule once exactly these states were told."""

    def told() -> list[dict[str, Any]]:
        found = [body for _, body in hook.calls if body["rule"] == rule]
        assert states == [body["state"] for body in found]
        return found

    return wait_until(f"{rule} is told as {states}", told, within_s=within_s, every_s=0.05)


def quiet(place: House, hook: Hook) -> None:
    """What earlier deployments set off is over and told."""

    def over() -> bool:
        listed = place.get("monitor_port", "/api/alerts")["alerts"]
        return not [a for a in listed if a["state"] not in {"resolved", "gone"} or a["untold"]]

    wait_until("no alert is left", over, within_s=30)
    hook.calls.clear()


GREEDY = {"cpus": 100, "instances": 1, "healthChecks": []}


def test_fewer_healthy_instances_than_wanted_is_told_once_and_so_is_its_end(place: House, hook: Hook):
    """An instance that fits nowhere: one call; wanted no more: one call more."""
    quiet(place, hook)
    place.call("services_port", "PUT", "/v2/apps/greedy", place.app("/greedy", **GREEDY))
    bodies = wait_told(hook, "fewer-instances-than-wanted", ["firing"])
    assert {"service": "marathon:/greedy"} == bodies[0]["labels"]
    assert "marathon:/greedy: 1 healthy instances fewer than wanted" == bodies[0]["summary"]

    place.call("services_port", "PUT", "/v2/apps/greedy?force=true", {"instances": 0})
    wait_told(hook, "fewer-instances-than-wanted", ["firing", "resolved"])


def test_an_app_that_is_deleted_while_its_alert_fires_is_resolved(place: House, hook: Hook):
    """Its end is data: nobody keeps an incident of what is no more."""
    quiet(place, hook)
    place.call("services_port", "PUT", "/v2/apps/gone", place.app("/gone", **GREEDY))
    wait_told(hook, "fewer-instances-than-wanted", ["firing"])

    place.call("services_port", "DELETE", "/v2/apps/gone?force=true")
    wait_told(hook, "fewer-instances-than-wanted", ["firing", "resolved"])


def test_a_lost_agent_is_told_and_its_return(place: House, hook: Hook):
    """Stopped, it is suspect after four seconds, and back at the next beat."""
    quiet(place, hook)
    os.kill(place.pid("agent-2"), signal.SIGSTOP)
    try:
        bodies = wait_told(hook, "agent-lost", ["firing"])
    finally:
        os.kill(place.pid("agent-2"), signal.SIGCONT)

    assert "agent-2" == bodies[0]["labels"]["host"]
    wait_told(hook, "agent-lost", ["firing", "resolved"])
    place.settle("/shop/web")


def test_a_balancer_that_does_not_apply_changes_is_behind(place: House, hook: Hook):
    """Its daemon hangs while the registry moves on."""
    quiet(place, hook)
    os.kill(place.pid("lb"), signal.SIGSTOP)
    try:
        place.call("services_port", "PUT", "/v2/apps/shop/web", {"instances": 3})
        wait_told(hook, "balancer-behind", ["firing"], within_s=30)
    finally:
        os.kill(place.pid("lb"), signal.SIGCONT)
    wait_told(hook, "balancer-behind", ["firing", "resolved"])
    place.call("services_port", "PUT", "/v2/apps/shop/web?force=true", {"instances": 2})
    place.settle("/shop/web")


def test_a_registry_out_of_sight_is_told_although_the_journal_stands_in_it(place: House, hook: Hook):
    """The registry hangs: the monitor that led goes on from its own disk, and tells once."""
    quiet(place, hook)
    os.kill(place.pid("registry"), signal.SIGSTOP)
    try:
        wait_told(hook, "registry-stale", ["firing"], within_s=40)
    finally:
        os.kill(place.pid("registry"), signal.SIGCONT)
    wait_told(hook, "registry-stale", ["firing", "resolved"], within_s=30)
    place.settle("/shop/web")


def test_a_daemon_that_hangs_delays_no_other_source_and_is_down(place: House, hook: Hook):
    """Its absence is a sample; the others are looked at every second all the while."""
    quiet(place, hook)
    begin_s = time.time()
    os.kill(place.pid("dns-2"), signal.SIGSTOP)
    try:
        bodies = wait_told(hook, "daemon-down", ["firing"])
        measured = place.get("monitor_port", f"/api/series?name=fairlead_service_wanted&since={begin_s}")
    finally:
        os.kill(place.pid("dns-2"), signal.SIGCONT)

    times = [at for at, _ in measured["series"][0]["points"]]
    assert "dns-2" == bodies[0]["labels"]["source"]
    assert len(times) >= 3
    assert max(b - a for a, b in pairwise(times)) < 2.5
    wait_told(hook, "daemon-down", ["firing", "resolved"])


def test_a_silenced_alert_is_judged_and_not_told(place: House, hook: Hook):
    """`fairlead alert silence` keeps it quiet; `fairlead alert list` shows it all the same."""
    quiet(place, hook)
    made = json.loads(fairlead(place, "alert", "silence", "daemon-down", "--for", "5m", "--json").stdout)
    wait_until("the silence is known", lambda: place.get("monitor_port", "/api/alerts")["silences"])
    os.kill(place.pid("dns-1"), signal.SIGSTOP)
    try:
        wait_until("it fires", lambda: alerts(place, "daemon-down", "firing"), within_s=20)
        listed = fairlead(place, "alert", "list")
    finally:
        os.kill(place.pid("dns-1"), signal.SIGCONT)
    wait_until("it is resolved", lambda: not alerts(place, "daemon-down", "firing"), within_s=20)
    fairlead(place, "alert", "silence", "--end", made["id"])

    assert (1, True) == (listed.returncode, "dns-1" in listed.stdout)
    assert [] == [body for _, body in hook.calls if body["rule"] == "daemon-down"]


def fairlead(place: House, *words: str) -> "subprocess.CompletedProcess[str]":
    environment = {**os.environ, "FAIRLEAD_DATA_DIR": str(place.folder / "data")}
    return subprocess.run(
        [str(FAIRLEAD), *words], capture_output=True, text=True, timeout=30, env=environment, check=False
    )


def test_top_shows_services_and_daemons(place: House):
    """Once, as a table and as JSON."""
    table = fairlead(place, "top", "--once").stdout
    page = json.loads(fairlead(place, "top", "--json").stdout)

    assert "marathon:/shop/web" in table
    assert {"master", "services", "dns-1", "monitor"} <= {d["daemon"] for d in page["daemons"]}
    assert (2, 2) == next((s["healthy"], s["wanted"]) for s in page["services"] if "shop" in s["service"])
    assert all(d["cpu_percent"] is not None for d in page["daemons"] if d["daemon"] == "master")


def test_requests_per_second_are_a_series(place: House):
    """What goes through the balancer stands in the graph's answer."""
    end_s = time.monotonic() + 3
    while time.monotonic() < end_s:
        place.through_lb("shop-web.example")

    def seen() -> float:
        page = place.get("monitor_port", "/api/series?name=fairlead_service_requests_per_second&since=-20")
        return max(value for s in page["series"] for _, value in s["points"])

    assert wait_until("requests are counted", lambda: seen() > 1 and seen())


def test_prometheus_scrapes_every_task_that_sd_names(place: House, tmp_path: Path):
    """A real Prometheus reads /sd and /metrics: a target a port with its labels, the service's numbers by name."""
    place.deploy(place.app("/stats", instances=2, cmd=f"exec /usr/bin/python3 {place.folder}/metrics_app.py"))
    base = f"127.0.0.1:{place.ports['monitor_port']}"
    server = Prometheus(
        tmp_path / "prometheus",
        f"- job_name: tasks\n  http_sd_configs: [{{url: 'http://{base}/sd?app=/stats', refresh_interval: 1s}}]\n"
        f"- job_name: monitor\n  static_configs: [{{targets: ['{base}']}}]\n",
    ).start()
    try:
        found = wait_until(
            "both tasks are scraped", lambda: len(f := server.query("orders_total")) == 2 and f, within_s=20
        )
        tasks = {t["id"] for t in place.tasks("/stats")}
        wait_until("the monitor is scraped", lambda: server.query('fairlead_up{source="master"}'), within_s=10)
        wanted = server.query('fairlead_service_wanted{service="marathon:/stats"}')
        healthy = server.query('fairlead_service_instances{service="marathon:/stats", state="healthy"}')
        place.remove("/stats")
        wait_until("ended tasks are no targets", lambda: not server.targets("tasks"), within_s=20)
    finally:
        server.stop()

    assert tasks == {s["metric"]["task"] for s in found}
    assert {("/stats", "http", "marathon:/stats")} == {
        (s["metric"]["app"], s["metric"]["port"], s["metric"]["service"]) for s in found
    }
    assert ("2", "2") == (wanted[0]["value"][1], healthy[0]["value"][1])


def test_graphite_gets_a_point_a_second_through_kills_of_the_monitor_and_of_carbon(place: House, carbon: Carbon):
    """Every stamp the monitor spooled is there with its value; only while the monitor itself is away there are gaps."""
    path = wait_until(
        "a path of the service is made",
        lambda: [n for n in carbon.names() if n.startswith("fairlead.service_wanted.marathon_shop_web")],
        within_s=20,
    )[0]
    begin_s = int(time.time())
    time.sleep(2)
    carbon.kill()
    time.sleep(2)
    carbon.start()
    time.sleep(1)
    killed_s = int(time.time())
    place.wait_restarted("monitor", place.kill("monitor"))

    def again() -> bool:
        return max(carbon.known([path])[path]) > killed_s + 1

    wait_until("points come again", again, within_s=40, every_s=0.5)
    known = {at: v for at, v in carbon.known([path])[path].items() if begin_s < at < killed_s}

    assert dict.fromkeys(range(begin_s + 1, killed_s), 2.0) == known


def test_what_fired_before_a_kill_is_not_told_again_and_its_end_is(place: House, hook: Hook):
    """kill -9 of the monitor while an alert fires."""
    quiet(place, hook)
    os.kill(place.pid("dns-2"), signal.SIGSTOP)
    try:
        wait_told(hook, "daemon-down", ["firing"])
        place.wait_restarted("monitor", place.kill("monitor"))
        wait_until("it leads again", lambda: place.get("monitor_port", "/status")["acting"], within_s=30)
        wait_until("it fires still", lambda: alerts(place, "daemon-down", "firing"), within_s=20)
        time.sleep(2)
        wait_told(hook, "daemon-down", ["firing"])
    finally:
        os.kill(place.pid("dns-2"), signal.SIGCONT)
    wait_told(hook, "daemon-down", ["firing", "resolved"])


def test_a_kill_while_the_receiver_thinks_repeats_the_call_under_its_key(place: House, hook: Hook):
    """The receiver read the request and the monitor died: the next one asks again, with the same Idempotency-Key."""
    quiet(place, hook)
    old = place.pid("monitor")

    def answer(_body: dict[str, Any]) -> int:
        if place.pid("monitor") == old:
            os.kill(old, signal.SIGKILL)
            return 0
        return 200

    hook.answer = answer
    os.kill(place.pid("dns-2"), signal.SIGSTOP)
    try:
        wait_until("it was asked again", lambda: len(hook.calls) >= 2, within_s=40)
    finally:
        os.kill(place.pid("dns-2"), signal.SIGCONT)
        hook.answer = lambda _body: 200

    def told() -> bool:
        return hook.told() == [("daemon-down", "firing"), ("daemon-down", "resolved")]

    wait_until("its end is told", told, within_s=30)
    assert hook.calls[0][0] == hook.calls[1][0]
