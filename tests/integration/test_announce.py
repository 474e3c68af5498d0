"""What fairlead does not schedule: announced, resolved, balanced, withdrawn, drained. The whole house, real processes."""

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.house import FAIRLEAD, HARNESS, House
from harness.ports import free_port
from harness.servers import Server
from harness.waiting import wait_until

pytestmark = pytest.mark.needs("haproxy")
VHOST = "shop.outside"


class Outside:
    """A server of ours and its announcer beside it, with checks every 0.2 s."""

    def __init__(self, house: House, **options: str) -> None:
        self.house = house
        self.port = free_port()
        self.sick = house.folder / f"sick-{self.port}"
        folder = house.folder
        self.app = Server(
            [sys.executable, str(HARNESS / "announced_app.py"), str(self.port)],
            log=folder / f"app-{self.port}.log",
            env={"SICK": str(self.sick), "WORK_S": "0.05"},
        )
        command = [str(FAIRLEAD), "announce", "--service", "shop", "--port", str(self.port), "--vhost", VHOST]
        command += ["--check", "http:/health", "--interval", "0.2", "--timeout", "0.5", "--fall", "2"]
        self.announcer = Server(
            [*command, "--data-dir", str(folder / "data"), *(f"--{k}={v}" for k, v in options.items())],
            log=folder / f"announce-{self.port}.log",
        )

    def start(self) -> None:
        self.app.start()
        self.announcer.start()

    def wait_in(self) -> None:
        wait_until(f"{self.port} is balanced", lambda: self.port in balanced(self.house), within_s=15)
        wait_until(f"{self.port} is named", lambda: self.port in named(self.house), within_s=5)

    def wait_out(self, *, within_s: float) -> None:
        wait_until(f"{self.port} is out", lambda: self.port not in balanced(self.house), within_s=within_s)
        wait_until(f"{self.port} has no name", lambda: self.port not in named(self.house), within_s=within_s)

    def end_in_order(self) -> None:
        """Begins it: two that drain do so side by side."""
        if self.announcer.running():
            self.announcer.resume()
            os.kill(self.announcer.pid, signal.SIGTERM)

    def end(self) -> None:
        wait_until("the announcer ends", lambda: not self.announcer.running(), within_s=30)
        self.app.kill()


def balanced(house: House) -> list[int]:
    status = house.get("lb_admin_port", "/status")
    servers = [s for service in status["services"] if service["service"] == "static:shop" for s in service["servers"]]
    return [int(server["port"]) for server in servers if server["state"] == "ready"]


def named(house: House) -> list[int]:
    return [int(line.split()[2]) for line in house.dig("_shop._tcp.static.mesos", "SRV")]


@pytest.fixture
def pair(whole: House) -> Iterator[tuple[Outside, Outside]]:
    both = (Outside(whole), Outside(whole))
    for each in both:
        each.start()
    for each in both:
        each.wait_in()
    yield both
    for each in both:
        each.end_in_order()
    for each in both:
        each.end()
    wait_until("all are out", lambda: not balanced(whole) and not named(whole), within_s=20)


def test_an_announced_server_is_named_and_balanced(whole: House, pair: tuple[Outside, Outside]):
    """By its virtual host HAProxy reaches both instances; DNS knows address and ports."""
    answers = {whole.through_lb(VHOST)[1].strip() for _ in range(12)}

    assert {str(each.port) for each in pair} == answers
    assert ["127.0.0.1"] == whole.dig("shop.static.mesos")
    assert sorted(each.port for each in pair) == sorted(named(whole))


def test_a_killed_server_is_out_within_a_second_of_its_checks_fall(whole: House, pair: tuple[Outside, Outside]):
    """Two checks, 0.2 s apart, then at most one second where nothing else runs; when it comes back, it is back."""
    dying, _ = pair
    dying.app.kill()
    dying.wait_out(within_s=10)
    assert 200 == whole.through_lb(VHOST)[0]

    dying.app.start()

    dying.wait_in()


def test_a_server_that_says_it_is_sick_is_out(whole: House, pair: tuple[Outside, Outside]):
    """It runs and answers, but its check does not pass."""
    sick, _ = pair
    sick.sick.touch()

    sick.wait_out(within_s=3)

    sick.sick.unlink()
    sick.wait_in()


def test_sigterm_drains_without_a_failed_request(whole: House, pair: tuple[Outside, Outside]):
    """While requests run the announcer is ended: it goes when nobody uses its server, and not one request fails."""
    leaving, _ = pair
    failures: list[object] = []
    stop = threading.Event()

    def ask() -> None:
        while not stop.is_set():
            try:
                status, text = whole.through_lb(VHOST)
                if status != 200:
                    failures.append((status, text))
            except OSError as error:
                failures.append(error)

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    begin_s = time.monotonic()
    code = leaving.announcer.stop(grace_s=30)
    took_s = time.monotonic() - begin_s
    leaving.app.kill()
    time.sleep(0.3)
    stop.set()
    for thread in threads:
        thread.join()

    assert (0, []) == (code, failures), leaving.announcer.tail()
    assert 1.9 < took_s < 10, "the TTL of 1 s and a second, and no more than the balancer needs"
    assert leaving.port not in named(whole)


def test_a_killed_announcer_leaves_by_its_session(whole: House, pair: tuple[Outside, Outside]):
    """Nobody else would withdraw it: the leading master does, with a leaving record, so that readers believe it."""
    dead, other = pair
    dead.announcer.kill()

    dead.wait_out(within_s=20)

    assert [other.port] == balanced(whole)


def test_a_paused_announcer_is_announced_again(whole: House, pair: tuple[Outside, Outside]):
    """Longer than its session: the master took it for dead. When it wakes it stands again."""
    paused, _ = pair
    paused.announcer.pause()
    paused.wait_out(within_s=25)

    paused.announcer.process.send_signal(signal.SIGCONT)

    paused.wait_in()


def test_announced_members_outlive_the_masters_death(whole: House, pair: tuple[Outside, Outside]):
    """The next leader neither withdraws nor forgets them."""
    old = whole.kill("master")
    whole.wait_restarted("master", old)
    end_s = time.monotonic() + 5
    while time.monotonic() < end_s:
        assert 200 == whole.through_lb(VHOST)[0]
        time.sleep(0.1)

    assert sorted(each.port for each in pair) == sorted(balanced(whole)) == sorted(named(whole))
    pair[0].announcer.kill()
    pair[0].wait_out(within_s=20)


def test_nerves_json_is_read_as_it_is(whole: House, tmp_path: Path):
    """With Nerve's own keys and checks."""
    app = Outside(whole)
    app.app.start()
    file = tmp_path / "nerve.conf.json"
    checks = [{"type": "http", "uri": "/health", "timeout": 0.5, "rise": 1, "fall": 2}]
    place = {"host": "127.0.0.1", "port": app.port, "zk_hosts": ["x:2181"], "zk_path": "/nerve/services/shop"}
    shop = {**place, "check_interval": 0.2, "weight": 2, "labels": {"HAPROXY_0_VHOST": VHOST}, "checks": checks}
    file.write_text(json.dumps({"instance_id": "i-1", "services": {"shop": shop}}))
    app.announcer.command = [str(FAIRLEAD), "announce", "--config", str(file), "--data-dir", str(whole.folder / "data")]
    app.announcer.start()
    try:
        app.wait_in()

        assert (200, f"{app.port}\n") == whole.through_lb(VHOST)
    finally:
        assert 0 == app.announcer.stop(grace_s=30), app.announcer.tail()
        app.end()
