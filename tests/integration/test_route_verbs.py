"""`fairlead route` on a real registry with a real balancer and HAProxy."""

import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from fairlead_discovery import paths
from fairlead_discovery.records import Discovery
from fairlead_discovery.registry import Put
from harness.balancer import Balancer, Task, balancer, member
from harness.verbs import Verb, registry_of_verbs, verb

pytestmark = pytest.mark.needs("haproxy")
SERVICE = "erp:db"


@pytest.fixture
async def place(short_dir: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Balancer]:
    async with registry_of_verbs(short_dir) as (url, _), balancer(short_dir, registry_url=url) as made:
        monkeypatch.setenv("FAIRLEAD_LB", made.admin)
        yield made


@pytest.fixture
def fairlead(capsys: pytest.CaptureFixture[str]) -> Verb:
    return verb(capsys, "route")


async def published(place: Balancer) -> Task:
    task = await Task("db-1", app="").start()
    one = member("db-1", task.port, app="")
    await place.publish_as(SERVICE, one)
    return task


async def test_a_route_is_added_waited_for_explained_and_removed(place: Balancer, fairlead: Any):
    """From nothing to an answer, and back."""
    await published(place)
    added = await fairlead("add", SERVICE, "--host", "erp.example", "--path", "/api", "--check", "/health")
    waited = await fairlead("wait", "--service", SERVICE)
    answer = await place.ask("erp.example", "/api/x")
    again = json.loads((await fairlead("explain", "http://erp.example/api/", "--json"))[1])
    explained = json.loads((await fairlead("explain", "erp.example/api", "--json"))[1])
    listed = await fairlead("list")
    removed = await fairlead("remove", SERVICE)
    await fairlead("wait")

    assert (0, "") == (added[0], added[2])
    assert 0 == waited[0], waited
    assert (200, "db-1") == answer
    assert (SERVICE, ["db-1"]) == (explained["service"], [s["task"] for s in explained["servers"]])
    assert explained["entry"] == again["entry"]
    assert "erp.example/api" in listed[1]
    assert 0 == removed[0]
    assert 404 == (await place.ask("erp.example", "/api/x"))[0]


async def test_challenges_of_an_acme_server_reach_one_client_whatever_their_host(place: Balancer, fairlead: Any):
    """Before what a host has itself, and nothing else of it; hosts without a route too; without a reload."""
    await published(place)
    client = await Task("certbot", app="").start()
    await place.publish_as("static:acme", member("certbot", client.port, app=""))
    await fairlead("add", SERVICE, "--host", "erp.example")
    added = await fairlead("add", "static:acme", "--host", "*", "--path", "/.well-known/acme-challenge")
    await fairlead("wait", "--service", "static:acme")
    explained = json.loads((await fairlead("explain", "erp.example/.well-known/acme-challenge/x", "--json"))[1])
    where = ("/.well-known/acme-challenge/x", "/.well-known/acme-challenges", "/")
    asked = [await place.ask("erp.example", path) for path in where]
    bare = {host: await place.ask(host, "/.well-known/acme-challenge?x=1") for host in ("erp.example", "ERP.example")}
    unknown = (await place.ask("new.example", where[0]))[1], (await place.ask("new.example", "/"))[0]
    await fairlead("remove", "static:acme")
    await fairlead("wait")

    assert (0, "") == (added[0], added[2])
    assert ("static:acme", "!/.well-known/acme-challenge") == (explained["service"], explained["entry"])
    assert [(200, "certbot"), (200, "db-1"), (200, "db-1")] == asked
    assert {(200, "certbot")} == set(bare.values())
    assert ("certbot", 404) == unknown
    assert (200, "db-1") == await place.ask("erp.example", where[0])
    assert 0 == (await place.status())["reloads"]


async def test_a_record_that_cannot_be_read_hides_no_other(place: Balancer, fairlead: Any):
    """It is named, and can be removed."""
    await fairlead("add", SERVICE, "--host", "erp.example")
    policy = f"{paths.POLICIES}/split~x"
    await place.registry.commit([Put(paths.route("a:bad"), b"{"), Put(policy, b"{")])
    listed = await fairlead("list")
    shown = await fairlead("show", SERVICE)
    status = await fairlead("canary", "status")
    removed = [(await fairlead("remove", service))[0] for service in ("a:bad", SERVICE)]

    assert (0, True) == (listed[0], SERVICE in listed[1])
    assert all(text in listed[2] for text in ("a:bad: ", "split~x: "))
    assert (0, True) == (shown[0], "erp.example" in shown[1])
    assert (0, "no canary\n") == status[:2]
    assert [0, 0] == removed


async def test_a_file_is_planned_and_applied_in_one_commit(place: Balancer, fairlead: Any):
    """What is shown is a file again; the second time there is nothing to change."""
    await published(place)
    Path("r.toml").write_text(f'[[route]]\nservice = "{SERVICE}"\nport = {place.first_port}\n')
    planned = await fairlead("plan", "r.toml")
    applied = await fairlead("apply", "r.toml")
    await fairlead("wait", "--service", SERVICE)
    shown = await fairlead("show", SERVICE)
    Path("again.toml").write_text(shown[1])

    assert 1 == planned[0]
    assert re.fullmatch(f"\\+ {SERVICE}\nlb: \\d+ runtime commands, no reload\n", planned[1])
    assert applied[1].startswith(f"+ {SERVICE}\ndone (revision ")
    assert (200, "db-1") == await place.ask("any", port=place.first_port)
    assert (0, "nothing to change\n", "") == await fairlead("plan", "again.toml", "--prune")
    Path("empty.toml").write_text("")
    assert (await fairlead("apply", "--prune", "empty.toml"))[1].startswith(f"- {SERVICE}\ndone")


async def test_a_route_of_labels_is_listed_and_a_registered_balancer_explains(
    place: Balancer, fairlead: Any, monkeypatch: pytest.MonkeyPatch
):
    """Nobody wrote the one, and nobody named the other."""
    monkeypatch.setenv("FAIRLEAD_LB", "http://127.0.0.1:1")
    task = await Task("db-1", app="").start()
    labels = Discovery(labels={"HAPROXY_0_VHOST": "erp.example"})
    one = msgspec.structs.replace(member("db-1", task.port, app=""), discovery=labels)
    await place.applied(await place.publish_as(SERVICE, one))
    listed = json.loads((await fairlead("list", "--json"))[1])
    shown = await fairlead("show", SERVICE)
    explained = json.loads((await fairlead("explain", "erp.example", "--json"))[1])
    nobody = await fairlead("explain", "erp.example", "--balancer", "lb-9")

    assert [("labels", SERVICE)] == [(e["source"], e["service"]) for e in listed]
    assert 'hosts = ["erp.example"]' in shown[1]
    assert SERVICE == explained["service"]
    assert "no balancer lb-9 is registered, but lb" in nobody[2]


async def test_mistakes_are_told_in_words(place: Balancer, fairlead: Any):
    """Nothing is written by them."""
    Path("bad.toml").write_text('[[route]]\nservice = "erp:db"\nhosts = ["a b"]\n')
    bad = await fairlead("apply", "bad.toml")
    unknown = await fairlead("remove", "erp:dd")
    late = await fairlead("wait", "--revision", "999999", "--timeout", "0.3")
    nowhere = await fairlead("explain", "no.example")

    assert "bad.toml: erp:db: port 0: virtual host 'a b': not a host name" in bad[2]
    assert "erp:dd: has no route" in unknown[2]
    assert (3, True) == (late[0], "revision 999999: not within 0.3 s: lb is at" in late[2])
    assert "no.example: no route" in nowhere[2]
    assert (0, "no service has a route\n") == (await fairlead("list"))[:2]


async def test_a_plan_says_what_it_costs_and_a_diff_where_it_differs(place: Balancer, fairlead: Any):
    """A rule the running HAProxy has no backend for means a reload, and why; what is refused is named before."""
    await published(place)
    await fairlead("add", SERVICE, "--host", "erp.example", "--rule", "rate=100/s", "--rule", "hsts=true")
    await fairlead("wait")
    shown = await fairlead("show", SERVICE)
    Path("r.toml").write_text(shown[1].replace("100/s", "200/s"))
    rate = json.loads((await fairlead("plan", "r.toml", "--json"))[1])
    differs = await fairlead("diff", "r.toml")
    Path("r.toml").write_text(shown[1].replace("[[route]]", '[[route]]\nbalance = "leastconn"'))
    other = json.loads((await fairlead("plan", "r.toml", "--json"))[1])
    Path("r.toml").write_text(shown[1] + '[[route]]\nservice = "erp:x"\nhosts = ["erp.example"]\n')
    clash = json.loads((await fairlead("plan", "r.toml", "--json"))[1])

    assert '"rate" = "100/s"' in shown[1]
    (told,) = rate["balancers"]
    assert ("lb", [], "") == (told["balancer"], told["reload"], told["error"])
    assert [command.split()[:2] for command in told["commands"]] == [["set", "map"]]
    assert 1 == differs[0]
    assert any(line.startswith("+traffic") and "200/s" in line for line in differs[1].splitlines())
    assert "has another shape" in " ".join(other["balancers"][0]["reload"])
    assert {"erp:x": f"erp.example belongs to {SERVICE}"} == clash["balancers"][0]["refused"]
    assert 100 == (await place.status())["services"][0]["servers"][0]["weight"], "nothing was changed"
    bad = await fairlead("add", SERVICE, "--host", "a.example", "--rule", "rate=fast")
    assert "traffic: rate: 'fast' is no rate, as 100/s or 600/m" in bad[2]
    Path("empty.toml").touch()
    assert (0, "no difference\n") == (await fairlead("diff", "empty.toml"))[:2]
