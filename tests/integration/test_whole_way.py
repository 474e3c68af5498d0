"""From a definition to an answered request: scheduled, named, balanced, found by others. On both registries."""

import os

import pytest

from harness.house import House
from harness.waiting import wait_until

pytestmark = pytest.mark.needs("haproxy", "dig")


@pytest.fixture(scope="module")
def shop(whole: House) -> House:
    whole.deploy(whole.app("/shop/web"))
    return whole


def test_dig_gives_the_a_record_of_the_service(shop: House):
    """Mesos-DNS' A name has the address of every instance, once."""
    assert ["127.0.0.1"] == shop.dig("web-shop.marathon.mesos")


def test_dig_gives_the_srv_records_of_the_service(shop: House):
    """Mesos-DNS' SRV names lead to every instance's port, with and without the port's name."""
    ports = sorted(t["ports"][0] for t in shop.tasks("/shop/web"))

    assert 2 == len(ports)
    assert ports == shop.srv_ports("/shop/web")
    assert ports == sorted(int(line.split()[2]) for line in shop.dig("_http._web-shop._tcp.marathon.mesos", "SRV"))


def test_framework_leader_and_agents_have_names(shop: House):
    """marathon.mesos, leader.mesos, master.mesos and slave.mesos resolve as with Mesos-DNS."""
    for name in ("leader.mesos", "master.mesos", "slave.mesos", "marathon.mesos"):
        assert ["127.0.0.1"] == shop.dig(name), name


def test_a_request_through_the_balancer_is_answered_by_every_instance(shop: House):
    """The virtual host reaches both instances."""
    answers = [shop.through_lb("shop-web.example") for _ in range(8)]

    assert {200} == {status for status, _ in answers}
    assert {f"/shop/web {t['id']}" for t in shop.tasks("/shop/web")} == {text for _, text in answers}


def test_an_unknown_host_is_no_service(shop: House):
    """Nobody else's backend answers for it."""
    status, _ = shop.through_lb("unknown.example")

    assert status in {404, 503}


@pytest.mark.skipif(os.getuid() != 0, reason="only a root agent gives tasks their own resolv.conf")
def test_a_task_of_another_app_finds_the_first_by_plain_getaddrinfo(shop: House):
    """libc inside the task resolves the name; its service port at the balancer answers."""
    service_port = shop.get("services_port", "/v2/apps/shop/web")["app"]["portDefinitions"][0]["port"]
    finder = shop.app("/shop/finder", instances=1, cmd=f"exec /usr/bin/python3 {shop.folder}/finding_app.py")
    finder["env"] = {"OTHER_NAME": "web-shop.marathon.mesos", "OTHER_PORT": str(service_port)}
    finder["healthChecks"] = [{**finder["healthChecks"][0], "protocol": "MESOS_TCP"}]
    del finder["healthChecks"][0]["path"]
    shop.deploy(finder)

    status, text = shop.through_lb("shop-finder.example")

    assert 200 == status, text
    assert text.startswith("127.0.0.1 /shop/web ")


def test_apps_with_the_same_dns_name_never_get_each_others_traffic(whole: House):
    """`/a.b` and `/b/a` share a Mesos task name and a DNS name, but no balancer backend."""
    whole.deploy(whole.app("/a.b", labels={"HAPROXY_0_VHOST": "first.example"}))
    whole.deploy_unnamed(whole.app("/b/a", labels={"HAPROXY_0_VHOST": "second.example"}))

    first = {whole.through_lb("first.example")[1].split()[0] for _ in range(12)}
    second = {whole.through_lb("second.example")[1].split()[0] for _ in range(12)}

    assert ({"/a.b"}, {"/b/a"}) == (first, second)
    for app in ("/a.b", "/b/a"):
        whole.remove(app)


def test_a_removed_app_leaves_names_routes_and_registry(whole: House):
    """After DELETE nothing answers for it, and no process of it is left."""
    whole.deploy(whole.app("/gone", instances=1))
    task = whole.tasks("/gone")[0]["id"]

    whole.remove("/gone")

    assert [] == whole.dig("gone.marathon.mesos")
    assert whole.through_lb("gone.example")[0] in {404, 503}
    wait_until("its processes end", lambda: not whole.task_pids(task))
