"""`fairlead route split|failover|canary` on a real registry with a real balancer and HAProxy."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from harness.balancer import Balancer, balancer, service
from harness.sharing import ask_often
from harness.verbs import Verb, registry_of_verbs, verb
from harness.waiting import eventually

pytestmark = pytest.mark.needs("haproxy")
HOST = "shop.example"
SHOP, NEXT = "marathon:/shop", "marathon:/next"


@pytest.fixture
async def place(short_dir: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Balancer]:
    async with registry_of_verbs(short_dir) as (url, _), balancer(short_dir, url, spare_backends=4) as made:
        monkeypatch.setenv("FAIRLEAD_LB", made.admin)
        await service(made, "/shop", vhosts=(HOST,))
        await service(made, "/next")
        yield made


@pytest.fixture
def fairlead(capsys: pytest.CaptureFixture[str]) -> Verb:
    return verb(capsys, "route")


async def test_a_split_is_written_shown_explained_and_removed(place: Balancer, fairlead: Any):
    """By options, and by a file that is what `show` prints."""
    written = await fairlead("split", SHOP, "--to", f"{NEXT}=100%", "--sticky")
    await fairlead("wait")
    answers = await ask_often(place.settings.http_port, HOST, 16)
    explained = await fairlead("explain", HOST)
    as_json = json.loads((await fairlead("explain", HOST, "--json"))[1])
    listed = await fairlead("list")
    shown = await fairlead("show", SHOP)
    Path("shown.toml").write_text(shown[1].partition("[[split]]")[1] + shown[1].partition("[[split]]")[2])
    again = await fairlead("plan", "shown.toml")
    removed = await fairlead("split", SHOP, "--remove")
    planned = await fairlead("plan", "shown.toml")
    applied = await fairlead("apply", "shown.toml")

    assert (0, "") == (written[0], written[2])
    assert {"next": 16} == answers
    assert f"100 % go to {NEXT} (1 ready)\n0 % stay with {SHOP} (by its split, sticky by cookie)" in explained[1]
    assert NEXT == as_json["split"]["shares"][0]["service"]
    assert f"100 % to {NEXT}, sticky by cookie" in listed[1]
    assert (0, "nothing to change\n") == again[:2]
    assert 0 == removed[0]
    assert planned[1].startswith(f"+ split~{SHOP}: 100 % to {NEXT}, sticky by cookie\n")
    assert 1 == planned[0]
    assert "done (revision" in applied[1]


async def test_a_canary_is_started_told_of_promoted_and_aborted(place: Balancer, fairlead: Any):
    """And a failover beside it."""
    refused = await fairlead("canary", "start", SHOP, "--to", SHOP)
    started = await fairlead(
        "canary", "start", SHOP, "--to", NEXT, "--steps", "1,50", "--every", "1h", "--max-5xx", "2%", "--sticky", "none"
    )
    twice = await fairlead("canary", "start", SHOP, "--to", NEXT)
    split = await fairlead("split", SHOP, "--to", f"{NEXT}=5")
    await eventually("it runs", lambda: says(fairlead, "running"), within_s=30)
    text = await fairlead("canary", "status")
    promoted = await fairlead("canary", "promote", SHOP)
    await fairlead("wait")
    all_over = await ask_often(place.settings.http_port, HOST, 16)
    kept = await fairlead("canary", "remove", SHOP)
    await eventually("it is promoted", lambda: says(fairlead, "promoted"), within_s=30)
    over_it = await fairlead("canary", "start", SHOP, "--to", NEXT)
    aborted = await fairlead("canary", "abort", SHOP)
    await fairlead("wait")
    all_back = await ask_often(place.settings.http_port, HOST, 16)
    await eventually("it is said", lambda: says(fairlead, "aborted"), within_s=30)
    told = await fairlead("canary", "status", SHOP)
    removed = await fairlead("canary", "remove", SHOP)
    nothing = await fairlead("canary", "status")
    over = await fairlead("failover", SHOP, "--to", NEXT, "--back-after", "1s")
    shown = await fairlead("failover", SHOP)

    assert "a service keeps what is left over" in refused[2]
    assert (0, "") == (started[0], started[2])
    assert "its canary marathon:/next is" in twice[2]
    assert "its canary decides" in split[2]
    assert "running" in text[1]
    assert (0, {"next": 16}) == (promoted[0], all_over)
    assert "--yes brings them back" in kept[2]
    assert (1, True) == (over_it[0], "--yes begins at 1 %, and brings the others back" in over_it[2])
    assert (0, {"shop": 16}) == (aborted[0], all_back)
    assert 1 == told[0]
    assert "by an operator" in told[1]
    assert 0 == removed[0]
    assert (0, "no canary\n") == nothing[:2]
    assert 0 == over[0]
    assert (0, f"{SHOP}: falls over to {NEXT}\n") == shown[:2]


async def says(fairlead: Any, state: str) -> bool:
    [found] = json.loads((await fairlead("canary", "status", "--json"))[1])
    return bool(found["state"] == state)


async def test_mistakes_are_told_in_words(place: Balancer, fairlead: Any):
    """Nothing is written by them."""
    assert (0, f"{SHOP}: no split\n") == (await fairlead("split", SHOP))[:2]
    assert "has no split" in (await fairlead("split", SHOP, "--remove"))[2]
    assert "is no percentage" in (await fairlead("split", SHOP, "--to", f"{NEXT}=lots"))[2]
    assert "expected OTHER=PERCENT" in (await fairlead("split", SHOP, "--to", NEXT))[2]
    assert "has no canary" in (await fairlead("canary", "abort", SHOP))[2]
    assert "each must be more" in (await fairlead("canary", "start", SHOP, "--to", NEXT, "--steps", "5,1"))[2]
    assert [] == (await place.status())["splits"]


async def test_intentions_stand_in_route_files(place: Balancer, fairlead: Any):
    """Planned, applied, judged by HAProxy; what `show` prints is the same file again."""
    text = f'[[intention]]\nto = "{SHOP}"\nfrom = "{NEXT}"\naction = "allow"\nmethods = ["GET"]\n'
    Path("i.toml").write_text(f'{text}\n[[intention]]\nto = "{SHOP}"\ndefault = "deny"\n')
    planned = await fairlead("plan", "i.toml")
    applied = await fairlead("apply", "i.toml")
    await fairlead("wait")
    refused, _ = await place.ask(HOST)
    shown = await fairlead("show", SHOP)
    head, mark, entries = shown[1].partition("[[intention]]")
    Path("shown.toml").write_text(mark + entries)
    again = await fairlead("plan", "shown.toml", "--prune")
    differs = await fairlead("diff", "shown.toml")

    assert (1, f"+ intentions~{SHOP}: {NEXT} may GET, others may not") == (planned[0], planned[1].splitlines()[0])
    assert "done (revision" in applied[1]
    assert 403 == refused
    assert "[[route]]" in head
    assert (0, "nothing to change\n") == again[:2]
    assert (0, "no difference\n") == differs[:2]


ROUTER = f"""
[[router]]
service = "{SHOP}"

[[router.route]]
match = {{ path_prefix = "/next", methods = ["GET"], header = [{{ name = "X-V", exact = "2" }}] }}
destination = {{ service = "{NEXT}", prefix_rewrite = "/", request_timeout = "5s", request_headers = {{ set = {{ X-A = "b" }} }} }}
"""


async def test_a_router_is_set_shown_planned_explained_and_removed(place: Balancer, fairlead: Any):
    """By a file that is what `show` prints; `explain` takes what a client would send."""
    Path("router.toml").write_text(ROUTER)
    planned = await fairlead("plan", "router.toml")
    written = await fairlead("router", "set", "router.toml")
    await fairlead("wait")
    shown = await fairlead("router", "show", SHOP)
    Path("shown.toml").write_text(shown[1])
    again = await fairlead("plan", "shown.toml")
    listed = await fairlead("router", "show")
    led = await fairlead("explain", f"{HOST}/next/x?a=1", "--header", "x-v=2")
    as_json = json.loads((await fairlead("explain", f"{HOST}/next/x", "--header", "x-v=2", "--json"))[1])
    stays = await fairlead("explain", f"{HOST}/next/x", "--header", "x-v=2", "--method", "POST")
    removed = await fairlead("router", "remove", SHOP)
    gone = await fairlead("router", "remove", SHOP)
    bare = await fairlead("router", "show", SHOP)

    assert 1 == planned[0]
    assert f"+ router~{SHOP}: GET /next… X-V=2 to {NEXT}, others stay" in planned[1]
    assert f"router of {SHOP} changed" in planned[1]
    assert (0, "") == (written[0], written[2])
    assert "[[router.route]]" in shown[1]
    assert (0, "nothing to change") == (again[0], again[1].strip())
    assert f"GET /next… X-V=2 to {NEXT}, others stay" in listed[1]
    assert f"its router's route 1 (GET /next… X-V=2) leads to {NEXT} port 0" in led[1]
    assert (NEXT, 1) == (as_json["service"], as_json["router"]["route"])
    assert "none of its router's 1 routes takes it: it stays" in stays[1]
    assert 0 == removed[0]
    assert f"{SHOP}: has no router" in gone[2]
    assert 0 != bare[0]


async def test_consuls_entries_are_imported_served_and_exported_again(place: Balancer, fairlead: Any):
    """What is refused is named, and keeps the rest from being written unless told otherwise."""
    entry = {
        "Kind": "service-router",
        "Name": "shop",
        "Routes": [{"Match": {"HTTP": {"PathPrefix": "/next"}}, "Destination": {"Service": "next"}}],
    }
    resolver = {"Kind": "service-resolver", "Name": "next", "LoadBalancer": {"Policy": "least_request"}}
    Path("good.json").write_text(json.dumps([entry, resolver]))
    who = {"Kind": "service-intentions", "Name": "ledger", "Sources": [{"Name": "*", "Action": "deny"}]}
    vain = {"Kind": "service-splitter", "Name": "b", "Splits": [{"Weight": 100, "Service": "a", "ServiceSubset": "v1"}]}
    Path("bad.json").write_text(json.dumps([{"Kind": "service-defaults", "Name": "shop"}, who, vain]))
    refused = await fairlead("import", "consul", "good.json", "bad.json")
    shown = await fairlead("import", "consul", "good.json", "--dry-run")
    Path("shown.toml").write_text(shown[1])
    nothing_yet = await fairlead("router", "show")
    written = await fairlead("import", "consul", "good.json", "bad.json", "--partial")
    await fairlead("wait")
    explained = await fairlead("explain", f"{HOST}/next")
    again = await fairlead("plan", "shown.toml")
    exported = await fairlead("export", "consul")
    resolvers = await fairlead("resolver", "show")

    assert (1, 1) == (refused[0], written[0])
    assert "refused: bad.json: kind 'service-defaults'" in refused[2]
    assert "nothing is written" in refused[1]
    assert "no" in nothing_yet[1]
    assert f"+ router~{SHOP}: /next… to {NEXT}, others stay" in written[1]
    assert f"leads to {NEXT} port 0" in explained[1]
    assert (0, "nothing to change") == (again[0], again[1].strip())
    assert "closed: marathon:/ledger: nobody may call without an identity" in written[2]
    assert "refused: bad.json: service-splitter b: marathon:/a@v1: marathon:/a has no subset 'v1'" in written[2]
    assert [who, resolver, entry] == json.loads(exported[1])
    assert "server by least_request" in resolvers[1]
