"""The HTTP API under /v2, on names in this process."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession

from fairlead_daemon.errors import BadSettings
from fairlead_discovery.records import Leaving, Reason
from fairlead_discovery.snapshots import Snapshot, Trust
from fairlead_dns.adapters.zonefiles import Unloaded
from fairlead_dns.decisions.journal import Journal
from fairlead_dns.decisions.static import StaticSource, difference
from harness.dns_api import Served, api
from harness.masters import zone as static_zone
from harness.names import member, node_name, snapshot

WEB = "web.marathon.mesos"
HEAD = "$TTL 300\n@ IN SOA ns1 root {} 3600 600 86400 60\n@ NS ns1\nns1 A 10.0.0.1\n"
LOCALITIES = (
    {"network": "10.1.0.0/16", "zone": "a", "region": "eu"},
    {"network": "10.2.0.0/16", "zone": "b", "region": "eu"},
)


@pytest.fixture
async def two(tmp_path: Path) -> AsyncIterator[Served]:
    """Two endpoints of one service."""
    made = await api(tmp_path, member(0), member(1))
    yield made
    await made.client.close()


# --- explain ----------------------------------------------------------------------------------------------------------


async def test_a_name_is_explained_by_who_gives_it(two: Served) -> None:
    """Node, task and rule of each giver, and every record with what becomes of it."""
    found = await two.page("explain", name=WEB)

    assert ("answered", ["A 10.0.0.1", "A 10.0.0.2"]) == (found["verdict"], [row["data"] for row in found["records"]])
    assert [(f"/fairlead/endpoints/marathon:web/{node_name(member(n))}", f"web.{n}", "mesos") for n in (0, 1)] == [
        (given["node"], given["task"], given["rule"]) for given in found["given_by"]
    ]


async def test_names_with_underscores_are_asked_for_srv(two: Served) -> None:
    """Unless a type is said."""
    found = await two.page("explain", name="_web._tcp.marathon.mesos")

    assert ("SRV", 2) == (found["type"], len(found["records"]))


@pytest.mark.parametrize("name", ["wbe.marathon.mesos", "_wbe._tcp.marathon.mesos"])
async def test_a_miss_tells_the_nearest_names(two: Served, name: str) -> None:
    """For a typing error."""
    found = await two.page("explain", name=name)

    assert ("no such name", [WEB]) == (found["verdict"], found["near"][:1])
    assert any(WEB in sentence for sentence in found["says"])


@pytest.mark.parametrize(
    ("name", "kind", "verdict", "says"),
    [
        (WEB, "AAAA", "no such record", "only A"),
        ("marathon.mesos", "A", "no such record", "only because names below it"),
        ("example.com", "A", "refused", "in no zone"),
        ("mesos", "SOA", "answered", "of the zone itself"),
        (WEB, "TYPE65", "no such record", "only A"),
    ],
)
async def test_each_verdict_says_why(two: Served, name: str, kind: str, verdict: str, says: str) -> None:
    """One sentence that a person understands."""
    found = await two.page("explain", name=name, type=kind)

    assert verdict == found["verdict"]
    assert says in found["says"][0]


async def test_names_that_another_part_answers_say_which(two: Served) -> None:
    """A zone file, the forwarder: nothing of it comes from endpoints."""
    two.names.front.serve(b"\7example\3org\0", Unloaded())

    found = await two.page("explain", name="www.example.org")
    assert ("elsewhere", True) == (found["verdict"], "a zone file that cannot be read" in found["says"][0])


async def test_a_name_that_a_zone_file_hides_says_so(two: Served) -> None:
    """Endpoints give it, the file is asked: whoever looks for the task must read why."""
    two.names.front.serve(b"\x08marathon\5mesos\0", Unloaded())

    found = await two.page("explain", name=WEB)
    assert "elsewhere" == found["verdict"]
    assert "(marathon.mesos.zone), which hides what endpoints give" in found["says"][0]


async def test_a_leaving_task_is_named(two: Served) -> None:
    """Also when it was the last one of its service, so that the name is gone."""
    leaving = {
        f"web.{n}": Leaving(
            task=f"web.{n}", service="marathon:web", member=node_name(member(n)), reason=Reason.SCALE, deadline_s=1.0
        )
        for n in (0, 1)
    }
    two.take(Snapshot(revision=2, trust=Trust.LIVE, leaving=leaving))

    found = await two.page("explain", name=WEB)
    assert ("no such name", {("leaving", "web.0"), ("leaving", "web.1")}) == (
        found["verdict"],
        {(gone["filter"], gone["task"]) for gone in found["absent"]},
    )
    assert any("leaving: web.0" in sentence and "scale" in sentence for sentence in found["says"])
    assert "absent" not in await two.page("explain", name="ns1.mesos")


async def test_an_unreadable_node_is_named(two: Served) -> None:
    """With its path and the reason."""
    bad = {"/fairlead/endpoints/marathon:web/member_x": "task: missing"}
    two.take(Snapshot(revision=2, trust=Trust.LIVE, members=snapshot(member(0)).members, bad=bad))

    (gone,) = (await two.page("explain", name=WEB))["absent"]
    assert ("unreadable", "/fairlead/endpoints/marathon:web/member_x", "task: missing") == (
        gone["filter"],
        gone["node"],
        gone["why"],
    )


async def test_a_status_that_serves_nobody_is_named(two: Served) -> None:
    """The endpoint is there, and has no names."""
    two.take(snapshot(member(0), member(1, status="STOPPING"), revision=2))

    found = await two.page("explain", name=WEB)
    assert [("web.1", "health")] == [(g["task"], g["filter"]) for g in found["given_by"] if g.get("filter")]
    assert 1 == len(found["records"])


@pytest.mark.parametrize("trust", [Trust.STALE, Trust.HELD])
async def test_what_is_not_believed_is_said(two: Served, trust: Trust) -> None:
    """With the reason and the age."""
    two.take(Snapshot(revision=2, trust=trust, why="the registry is out of sight", age_s=70.0, members={}))

    found = await two.page("explain", name=WEB)
    assert trust.value == found["trust"]
    assert any("out of sight" in sentence and "70 s" in sentence for sentence in found["says"])


async def test_nothing_known_is_not_a_miss(tmp_path: Path) -> None:
    """Before the first snapshot."""
    made = await api(tmp_path)
    made.names.answers.trust = None

    assert "not ready" == (await made.page("explain", name=WEB))["verdict"]
    await made.client.close()


async def test_locality_and_limit_are_explained_for_the_client(tmp_path: Path) -> None:
    """What it gets, where each stands, and what it does not get."""
    some = [member(n, zone="ab"[n % 2], region="eu") for n in range(4)]
    made = await api(tmp_path, *some, localities=[*LOCALITIES], a_record_limit=3)

    found = await made.page("explain", name=WEB, client="10.1.2.3")
    rows = [(row["zone"], row["tier"], row.get("left_out", "")) for row in found["records"]]
    assert ("a", "eu") == (found["client_zone"], found["client_region"])
    assert [("a", "same zone", "")] * 2 == rows[:2]
    assert [("b", "same region", ""), ("b", "same region", "limit")] == rows[2:]
    assert any(sentence.startswith("limit:") for sentence in found["says"])
    await made.client.close()


async def test_what_a_datagram_cannot_hold_is_explained(tmp_path: Path) -> None:
    """Left out for size, there over TCP."""
    made = await api(tmp_path, *(member(n) for n in range(100)))

    left_out = [row.get("left_out", "") for row in (await made.page("explain", name=WEB))["records"]]
    assert 100 == len(left_out)
    assert {"", "size"} == set(left_out)
    await made.client.close()


async def test_collisions_are_explained(tmp_path: Path) -> None:
    """Two services of one name, and the names that are theirs alone."""
    made = await api(tmp_path, member(0))
    both = {"marathon:/web": {"member_a_1": member(0)}, "marathon:/Web": {"member_b_2": member(1)}}
    made.take(Snapshot(revision=2, trust=Trust.LIVE, members=both))

    found = await made.page("explain", name=WEB)
    assert ["marathon:/Web", "marathon:/web"] == found["shared_by"]
    assert any(sentence.startswith("collision:") for sentence in found["says"])
    assert {"web.marathon": ["marathon:/Web", "marathon:/web"]} == (await made.page("status"))["collisions"]
    await made.client.close()


# --- history ----------------------------------------------------------------------------------------------------------


async def test_what_a_name_answered_then(two: Served) -> None:
    """At each time that is remembered, since when and until when; before that, the oldest that is known."""
    begin_s = time.time() - 1000
    two.take(snapshot(member(0), revision=2), at_s=begin_s)
    two.take(snapshot(member(0), member(2), revision=3), at_s=begin_s + 100)
    two.take(snapshot(member(2), revision=4), at_s=begin_s + 200)

    seen = []
    for ago_s in (950, 850, 700):
        past = await two.page("history", name=WEB, at=time.time() - ago_s)
        bounds = [past[key] and past[key]["serial"] for key in ("since", "until")]
        seen.append((past["remembered"], past["records"], *bounds))
    assert [
        (True, ["A 10.0.0.1"], 2, 3),
        (True, ["A 10.0.0.1", "A 10.0.0.3"], 3, 4),
        (True, ["A 10.0.0.3"], 4, None),
    ] == seen
    before = await two.page("history", name=WEB, at="2h")
    assert (False, ["A 10.0.0.1", "A 10.0.0.2"]) == (before["remembered"], before["records"])


async def test_without_any_change_it_is_known_since_the_start(two: Served) -> None:
    """And not before."""
    now, before = [await two.page("history", name=WEB, at=at) for at in ("0s", "1h")]

    assert [(True, ["A 10.0.0.1", "A 10.0.0.2"]), (False, ["A 10.0.0.1", "A 10.0.0.2"])] == [
        (page["remembered"], page["records"]) for page in (now, before)
    ]
    assert before["at"] < now["begins"] <= now["at"]


async def test_what_was_forgotten_is_not_claimed(two: Served) -> None:
    """The journal holds two changes: what was before them is not known."""
    (journal,) = (j for j in two.names.ledger.journals.values())
    journal.most_changes = 2
    for number in range(5):
        two.take(snapshot(member(number), revision=2 + number), at_s=time.time() - 100 + number)

    pages = [await two.page("history", name=WEB, at=time.time() - ago_s) for ago_s in (98.5, 50)]
    assert [(False, ["A 10.0.0.3"]), (True, ["A 10.0.0.5"])] == [(p["remembered"], p["records"]) for p in pages]


async def test_all_changes_of_a_name(two: Served) -> None:
    """What came, what went, with which serial."""
    two.take(snapshot(member(1), revision=2))
    two.take(snapshot(member(1), member(2), revision=3))

    found = await two.page("history", name=WEB)
    assert [(2, ["A 10.0.0.1"], []), (3, [], ["A 10.0.0.3"])] == [
        (row["serial"], row["removed"], row["added"]) for row in found["changes"]
    ]
    assert ["A 10.0.0.2", "A 10.0.0.3"] == found["records"]


async def test_zone_changes_by_serial(two: Served) -> None:
    """All that happened after a serial, cut to a page; a serial that is forgotten is said to be."""
    for revision in (2, 3, 4):
        two.take(snapshot(member(revision), revision=revision))

    page = await two.page("changes", since=2)
    assert ([3, 4], False) == ([row["serial"] for row in page["changes"]], page["more"])
    assert {"name": WEB, "removed": ["A 10.0.0.3"], "added": ["A 10.0.0.4"]} in page["changes"][0]["names"]
    cut = await two.page("changes", since=1, limit=1)
    assert ([2], True) == ([row["serial"] for row in cut["changes"]], cut["more"])
    assert [] == (await two.page("changes"))["changes"]
    assert (410, "serial 77 is not remembered: history begins at serial 1") == await two.refusal("changes", since=77)


async def test_zones_of_files_have_a_history_too(two: Served) -> None:
    """Of each name, and of the zone by its serials; what is in no zone, or is none, is said."""
    old, new = (static_zone(f"a A 10.0.0.{n}\nb TXT x\n", head=HEAD.format(n)) for n in (1, 2))
    source = two.names.files[old.apex] = StaticSource(old, Journal(), time.time() - 60)
    source.replace(new, difference(old, new, at_s=time.time() - 30))

    found = await two.page("history", name="a.example.org")
    assert (2, ["A 10.0.0.2"], [2]) == (found["serial"], found["records"], [row["serial"] for row in found["changes"]])
    assert ["A 10.0.0.1"] == (await two.page("history", name="a.example.org", at="45s"))["records"]
    page = await two.page("changes", zone="example.org", since=1)
    assert [{"name": "a.example.org", "removed": ["A 10.0.0.1"], "added": ["A 10.0.0.2"]}] == page["changes"][0][
        "names"
    ]
    assert 1 == (await two.page("changes", zone="mesos"))["serial"]
    assert (404, "no such name: c.example.org is not in its zone's file") == await two.refusal(
        "history", name="c.example.org"
    )
    assert (404, "zone: a.example.org is in a zone, but is none") == await two.refusal("changes", zone="a.example.org")
    assert 404 == (await two.refusal("changes", zone="example.net"))[0]


@pytest.mark.parametrize("text", ["soon", "25:00", "2026-13-01T00:00Z", "-5m", "1e9", "9" * 30, ""])
async def test_a_time_that_is_none_is_refused(two: Served, text: str) -> None:
    """In words, with what is expected."""
    status, message = await two.refusal("history", name=WEB, at=text)

    assert (400, True) == (status, "is no time" in message)


async def test_the_future_is_not_known(two: Served) -> None:
    """A time that has not come."""
    assert 400 == (await two.refusal("history", name=WEB, at=time.time() + 1000))[0]


# --- records, status --------------------------------------------------------------------------------------------------


async def test_records_are_filtered(two: Served) -> None:
    """By name, by type, by a part, by what they are under."""
    everything = (await two.page("records"))["records"]

    assert [{"name": WEB, "type": "A", "ttl_s": 5, "data": ["10.0.0.1", "10.0.0.2"]}] == (
        await two.page("records", name=WEB)
    )["records"]
    assert {"SRV"} == {row["type"] for row in (await two.page("records", type="srv"))["records"]}
    assert [r for r in everything if r["name"].endswith("slave.mesos")] == (
        await two.page("records", under="slave.mesos")
    )["records"]
    assert [r for r in everything if "_web" in r["name"]] == (await two.page("records", contains="_WEB"))["records"]


async def test_records_come_page_by_page(two: Served) -> None:
    """Following `next` gives everything once."""
    rows, after = [], ""
    for _ in range(100):
        page = await two.page("records", limit=2, after=after)
        rows += page["records"]
        after = page["next"]
        if not after:
            break
    assert (await two.page("records"))["records"] == rows


async def test_what_is_not_there_is_404_in_words(two: Served) -> None:
    """With what may have been meant."""
    assert (404, f"no such name: wbe.marathon.mesos; did you mean {WEB}?") == await two.refusal(
        "records", name="wbe.marathon.mesos"
    )
    assert (404, f"{WEB} exists, but has no such record") == await two.refusal("records", name=WEB, type="AAAA")


@pytest.mark.parametrize(
    ("path", "query"),
    [
        ("records", {"name": "a..b"}),
        ("records", {"limit": "-1"}),
        ("records", {"type": "NOPE"}),
        ("explain", {}),
        ("explain", {"name": WEB, "type": "TYPE99999"}),
        ("explain", {"name": WEB, "client": "nobody"}),
        ("changes", {"since": "x"}),
        ("history", {}),
    ],
)
async def test_bad_questions_are_400_in_words(two: Served, path: str, query: dict[str, str]) -> None:
    """Naming what is wrong."""
    status, message = await two.refusal(path, **query)

    assert (400, True) == (
        status,
        any(message.startswith(f"{key}: ") for key in ("name", "limit", "type", "since", "client")),
    )


async def test_the_status_says_how_far_to_believe_it(two: Served) -> None:
    """Serial, revision, trust, age."""
    two.take(Snapshot(revision=2**32 + 9, trust=Trust.HELD, why="another cluster", age_s=3.0))

    found = await two.page("status")
    assert (9, 2**32 + 9, "held", "another cluster", 3.0) == tuple(
        found[key] for key in ("serial", "revision", "trust", "why", "age_s")
    )


async def test_services_are_listed_and_watched(two: Served) -> None:
    """Typed ports, 404 in words; a long poll ends with the change."""
    found = await two.page(f"services/{WEB}")
    assert [31000, 31001] == [endpoint["port"] for endpoint in found["endpoints"]]
    assert 404 == (await two.refusal("services/nope.marathon.mesos"))[0]

    waiting = asyncio.ensure_future(two.page(f"services/{WEB}", index=found["index"], wait="20s"))
    await asyncio.sleep(0.05)
    two.take(snapshot(member(1), revision=2))
    assert [31001] == [endpoint["port"] for endpoint in (await waiting)["endpoints"]]


# --- who may ----------------------------------------------------------------------------------------------------------


async def test_networks_that_may_not_read_are_told_so(tmp_path: Path) -> None:
    """/v2 and /v1 alike; health pages stay open."""
    made = await api(tmp_path, member(), api_networks=["10.0.0.0/8"])

    status, message = await made.refusal("status")
    assert (403, True) == (status, "api_networks" in message)
    assert 403 == (await made.refusal("services"))[0]
    async with made.client.get("/health") as response:
        assert 200 == response.status
    await made.client.close()


async def test_reading_may_want_the_token(tmp_path: Path) -> None:
    """Every page of /v2, and of /v1 all but the version."""
    made = await api(tmp_path, member(), api_token=True, token="on")  # a mode
    token = (tmp_path / "token").read_text().strip()
    url = str(made.client.make_url("/v2/status"))

    assert 401 == (await made.refusal("status"))[0]
    pages = {route.resource.canonical for route in made.client.app.router.routes() if route.resource}
    wanted = {page: 200 if page == "/v1/version" else 401 for page in pages if page.startswith(("/v1/", "/v2/"))}
    assert 7 < len(wanted)
    assert wanted == {page: (await made.client.get(page.replace(":.+", ""))).status for page in wanted}
    async with ClientSession() as session, session.get(url, headers={"Authorization": f"Bearer {token}"}) as response:
        assert 200 == response.status
        assert token not in await response.text()
    await made.client.close()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("localities", ({"network": "10.0.0.1/8", "zone": "a"},)),
        ("localities", ({"network": "10.0.0.0/8"},)),
        ("a_record_limit", -1),
        ("locality_least", 0),
        ("warm_up_s", -1.0),
        ("api_networks", ("10.0.0.0/33",)),
        ("api_token", True),
        ("negative_ttl_s", 0),
        ("negative_ttl_s", 6),
    ],
)
async def test_bad_settings_name_their_key(tmp_path: Path, key: str, value: Any) -> None:
    """Before anything is served."""
    with pytest.raises(BadSettings, match=f"^{key}: "):
        await api(tmp_path, **{key: value})


async def test_enumeration_can_be_off(tmp_path: Path) -> None:
    """Then only who knows a name gets it: no list, no name like it, no name that others share."""
    made = await api(tmp_path, member(), member(1, name="Web"), enumeration=False)

    for page in ("records", "changes", "services", "services?name=web"):
        assert 403 == (await made.refusal(page))[0], page
    assert 1 <= len((await made.page("records", name=WEB))["records"])
    assert 2 == len((await made.page(f"services/{WEB}"))["endpoints"])
    for page in (
        "services/wep",
        "services/a%20b",
        "records?name=wep.marathon.mesos",
        "explain?name=wep.marathon.mesos",
    ):
        assert "web.marathon" not in str(await made.get(page)), page
    status = await made.page("status")
    assert (None, None, None) == (status["collisions"], status["shortened"], status["unreadable"])
    await made.client.close()


@pytest.mark.parametrize(("query", "status"), [("", 403), ("?name=", 403), (f"?name={WEB}", 200)])
async def test_without_enumeration_only_services_that_one_can_name_are_streamed(
    tmp_path: Path, query: str, status: int
) -> None:
    """A stream without names would tell them all."""
    made = await api(tmp_path, member(), enumeration=False)

    async with made.client.get(f"/v2/services{query}", headers={"Accept": "text/event-stream"}) as response:
        assert status == response.status
    await made.client.close()
