"""`fairlead registry copy` under a whole house at work: one command, and every daemon goes along to ZooKeeper."""

import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest

from harness.house import FAIRLEAD, House, house
from harness.load import Load
from harness.servers import require
from harness.waiting import wait_until
from harness.zookeeper import ZooKeeper

pytestmark = [pytest.mark.needs("haproxy", "dig"), pytest.mark.timeout(300)]
APP = "/move/web"
DAEMONS = ("master", "agent-1", "agent-2", "services", "dns-1", "lb")


def empty_answer(place: House) -> list[str]:
    """The answer about the app's name when it holds no address; none when there was no answer."""
    server = ["@127.0.0.1", "-p", str(place.ports["dns_port"]), "+tries=1", "+time=2"]
    words = [require("dig"), *server, place.dns_name(APP), "A", "+noall", "+comments"]
    said = subprocess.run(words, capture_output=True, text=True, timeout=10, check=False).stdout
    return [said] if "status:" in said and "ANSWER: 0" in said else []


@contextmanager
def watched(place: House) -> Iterator[list[str]]:
    """What names and balancer lacked, at any look."""
    lacked: list[str] = []
    over = threading.Event()
    expected = place.lb_ports(APP)

    def look() -> None:
        while not over.wait(0.1):
            lacked.extend(empty_answer(place))
            with suppress(OSError):  # no answer is none to judge by
                if (ports := place.lb_ports(APP)) != expected:
                    lacked.append(f"balancer: {ports}")

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        yield lacked
    finally:
        over.set()
        watcher.join(20)


def gone_along(place: House, name: str) -> bool:
    return "gone along with the registry" in place.log(name, 400)


def test_a_house_moves_to_zookeeper_under_load(own_zookeeper: ZooKeeper):
    """No request is lost, no endpoint leaves, no task restarts; then it works on, and nobody needs the old registry."""
    with house() as place:
        place.deploy(place.app(APP))
        tasks = {t["id"] for t in place.tasks(APP)}
        old = place.pid("registry")
        with (
            Load(place.ports["lb_http_port"], "move-web.example", place.folder, rate=40) as load,
            watched(place) as lacked,
        ):
            wait_until("the load is served", lambda: place.count_file(APP).read_text())
            source = f"local:{place.registry_socket()}"
            target = f"{own_zookeeper.url}/house"
            done = subprocess.run(
                [str(FAIRLEAD), "registry", "copy", target, "--from", source],
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )
            assert 0 == done.returncode, done.stderr
            for name in DAEMONS:
                wait_until(f"{name} has gone along", lambda n=name: gone_along(place, n), within_s=30)
            place.settle(APP)
        assert [] == load.failures()
        assert [] == lacked
        assert tasks == {t["id"] for t in place.tasks(APP)}

        assert old == place.pid("registry")  # it answers that it has moved: nobody takes that for silence
        os.kill(old, signal.SIGSTOP)
        try:
            place.deploy(place.app(APP, instances=3))
        finally:
            os.kill(old, signal.SIGCONT)
        late = place.kill("dns-1")
        place.wait_restarted("dns-1", late)
        wait_until("the restarted one names all three", lambda: len(place.srv_ports(APP)) == 3, within_s=20)
        place.settle(APP)
