"""Bad input from anyone: a clear error that names the place, and everything that ran keeps running."""

import json
import os
import random
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest

from harness.house import FAIRLEAD, House, house
from harness.waiting import wait_until

pytestmark = [pytest.mark.needs("haproxy", "dig"), pytest.mark.timeout(240)]
APP = "/calm/web"


@pytest.fixture(scope="module")
def calm(whole: House) -> House:
    whole.deploy(whole.app(APP))
    return whole


@pytest.fixture(autouse=True)
def _still_runs(calm: House) -> Iterator[None]:
    """After each of these the service still has its very tasks, names and routes."""
    before = sorted(t["id"] for t in calm.tasks(APP))
    yield
    assert before == sorted(t["id"] for t in calm.tasks(APP))
    assert 2 == len(calm.srv_ports(APP)) == len(calm.lb_ports(APP))
    assert 200 == calm.through_lb("calm-web.example")[0]


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({"instances": -1}, "/instances"),
        ({"cpus": "many"}, "/cpus"),
        ({"id": "/Bad Name"}, "/id"),
        ({"healthChecks": [{"protocol": "SMOKE"}]}, "/healthChecks(0)/protocol"),
        (
            {"upgradeStrategy": {"minimumHealthCapacity": 2, "maximumOverCapacity": 0}},
            "/upgradeStrategy/minimumHealthCapacity",
        ),
        ({"labels": {"HAPROXY_0_VHOST": "a.example\n  http-request deny"}}, "/labels/HAPROXY_0_VHOST"),
        ({"labels": {"HAPROXY_0_PATH": '/"} use_backend x'}}, "/labels/HAPROXY_0_PATH"),
    ],
)
def test_a_malformed_app_is_refused_with_the_path_of_the_field(calm: House, change: dict[str, object], path: str):
    """422, in Marathon's words."""
    app = {**calm.app("/bad"), **change}

    status, answer = calm.call("services_port", "POST", "/v2/apps", app)

    assert 422 == status, answer
    assert path in [d["path"] for d in answer["details"]], answer


def test_what_is_no_json_is_a_400(calm: House):
    """The message says where reading stopped."""
    request = urllib.request.Request(
        f"http://127.0.0.1:{calm.ports['services_port']}/v2/apps",
        data=b'{"id": "/x", ',
        headers={"Content-Type": "application/json"},
    )
    with pytest.raises(urllib.error.HTTPError) as error:
        urllib.request.urlopen(request, timeout=5)

    assert 400 == error.value.code
    assert "message" in json.loads(error.value.read())


def test_an_unknown_settings_key_ends_the_daemon_with_its_name(calm: House):
    """Exit 2, the key is named."""
    file = calm.folder / "bad.toml"
    file.write_text("ttl_s = 5\nttls = 6\n")

    done = subprocess.run([FAIRLEAD, "dns", "--config", file], capture_output=True, text=True, timeout=20, check=False)

    assert 2 == done.returncode
    assert "ttls" in done.stderr


def test_junk_on_udp_is_survived(calm: House):
    """Random bytes, truncated and mutated questions: silence or an error code, and the next question is answered."""
    chance = random.Random(7)
    question = bytes.fromhex("0001010000010000000000000877656263616c6d08") + b"\x05mesos\x00\x00\x01\x00\x01"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        for _ in range(2000):
            junk = bytearray(question if chance.random() < 0.6 else chance.randbytes(chance.randrange(0, 600)))
            for _ in range(chance.randrange(0, 4)):
                if junk:
                    junk[chance.randrange(len(junk))] = chance.randrange(256)
            sender.sendto(junk[: chance.randrange(0, len(junk) + 1)], ("127.0.0.1", calm.ports["dns_port"]))

    assert ["127.0.0.1"] == calm.dig("web-calm.marathon.mesos")


@pytest.mark.parametrize("port", ["services_port", "master_port", "lb_admin_port"])
def test_a_cross_site_post_starts_nothing(calm: House, port: str):
    """A page a user happens to visit: foreign Origin, or a form body, or a rebound Host."""
    url = f"http://127.0.0.1:{calm.ports[port]}/v2/apps"
    for headers, low, high in (
        ({"Origin": "http://evil.example", "Content-Type": "application/json"}, 403, 403),
        ({"Host": "evil.example", "Content-Type": "application/json"}, 403, 403),
        ({"Content-Type": "text/plain"}, 400, 415),
    ):
        request = urllib.request.Request(url, data=json.dumps(calm.app("/evil")).encode(), headers=headers)
        with pytest.raises(urllib.error.HTTPError) as error:
            urllib.request.urlopen(request, timeout=5)
        assert low <= error.value.code <= high, (headers, error.value.read())

    assert 404 == calm.call("services_port", "GET", "/v2/apps/evil")[0]


def test_a_busy_port_is_named_with_its_option():
    """`fairlead up` says which port and which option before it starts anything."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        with pytest.raises(AssertionError) as error, house(services_port=port):
            pass

    assert str(port) in str(error.value)
    assert "services_port" in str(error.value)


def test_a_registry_that_comes_back_empty_is_not_believed():
    """Names and routes stay as they were (held) until the tasks are published again or a person confirms."""
    with house() as place:
        place.deploy(place.app("/held"))
        ports = place.srv_ports("/held")
        for name in ("up", "registry"):
            os.kill(place.pid(name), 9)
        place.up.kill()
        for file in (place.folder / "data").glob("registry*"):
            shutil.rmtree(file) if file.is_dir() else file.unlink()
        place.up.start()
        end = time.monotonic() + 5
        while time.monotonic() < end:
            assert ports == place.srv_ports("/held")
            assert 200 == place.through_lb("held.example")[0]
            time.sleep(0.2)
        subprocess.run(
            [FAIRLEAD, "registry", "confirm", "--data-dir", place.folder / "data"],
            check=True,
            timeout=20,
            capture_output=True,
        )
        wait_until("up is there", lambda: place.pid("up") == place.up.pid, within_s=30)
        place.wait_up()


def fairlead(place: House, *words: str) -> "subprocess.CompletedProcess[str]":
    command = [FAIRLEAD, *words, "--data-dir", place.folder / "data"]
    return subprocess.run(command, capture_output=True, text=True, timeout=90, check=False)


def test_a_virtual_host_that_is_another_apps_is_told_to_who_deploys(calm: House):
    """It runs and is healthy: without a word nobody would know that nobody reaches it."""
    file = calm.folder / "late.json"
    file.write_text(json.dumps(calm.app("/late", labels={"HAPROXY_0_VHOST": "calm-web.example"})))
    told = "calm-web.example belongs to"
    try:
        deployed = fairlead(calm, "app", "deploy", str(file))
        explained, status = fairlead(calm, "explain", "/late"), fairlead(calm, "status")

        assert 0 == deployed.returncode
        assert f"fairlead: warning: /late: {told}" in deployed.stderr
        assert told in explained.stdout
        assert told in status.stdout
    finally:
        calm.remove("/late")


@pytest.mark.parametrize("port", ["agent_port", "master_port", "services_port", "dns_port", "task"])
def test_the_port_of_a_daemon_or_a_task_is_no_service_port(calm: House, port: str):
    """Else HAProxy takes it in the moment its owner is away, and that could never come back."""
    first = int(str(calm.settings["agent_ports"]).partition("-")[0])
    wanted = first + 3 if port == "task" else calm.ports[port]
    app = calm.app("/thief", portDefinitions=[{"port": wanted, "protocol": "tcp"}])

    status, answer = calm.call("services_port", "POST", "/v2/apps", app)

    assert 422 == status, answer
    assert ["/portDefinitions(0)/port"] == [d["path"] for d in answer["details"]], answer
    assert "reserved" in json.dumps(answer)
