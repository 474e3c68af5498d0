"""The HTTP watch API over a registry whose endpoints come and go."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp
import msgspec
import pytest

from discovery.records_of import WEB, leave, member, publish, route, withdraw
from fairlead_daemon.settings import DaemonSettings
from fairlead_daemon.web import Health, make_app, serve
from fairlead_discovery.adapters.listing_http import Limits, add_routes
from fairlead_discovery.backends import open_registry
from fairlead_discovery.decisions.dns_labels import task_hash
from fairlead_discovery.listing import Listing
from fairlead_discovery.reading import snapshots
from fairlead_discovery.registry import Change, Registry
from fairlead_discovery.snapshots import Snapshot, Trust

DNS = "web.marathon.mesos"


@dataclass
class Site:
    registry: Registry
    listing: Listing
    url: str
    session: aiohttp.ClientSession

    async def commit(self, *changes: Change) -> int:
        """Until the listing has it."""
        revision = await self.registry.commit(list(changes))
        async with asyncio.timeout(30):
            while self.listing.snapshot.revision < revision:  # noqa: ASYNC110  # ends with its first deadline
                await asyncio.sleep(0.002)
        return revision

    async def get(self, path: str, **headers: str) -> tuple[int, Any, Any]:
        async with self.session.get(f"{self.url}{path}", headers=headers) as response:
            text = await response.text()
            return response.status, json.loads(text) if text else None, response.headers


@asynccontextmanager
async def serving(name: str, limits: Limits) -> AsyncIterator[Site]:
    registry, listing = await open_registry(f"memory:{name}"), Listing()

    async def follow() -> None:
        async for snapshot in snapshots(registry):
            listing.take(snapshot)

    following = asyncio.create_task(follow())
    settings = DaemonSettings(token="off")
    app = make_app(settings, Health())
    add_routes(app, listing, limits)
    runner, port = await serve(app, settings)
    async with aiohttp.ClientSession() as session:
        yield Site(registry, listing, f"http://127.0.0.1:{port}", session)
    await runner.cleanup()
    following.cancel()
    await registry.close()


@pytest.fixture
async def site(request: pytest.FixtureRequest) -> AsyncIterator[Site]:
    async with serving(request.node.name, Limits(beat_s=0.2)) as found:
        yield found


@pytest.mark.parametrize(
    "name", [WEB, "marathon:%2Fshop%2Fweb", "/shop/web", DNS, "_web._tcp.marathon.mesos", "WEB.marathon.mesos."]
)
async def test_every_name_of_a_service_shows_its_endpoints(site: Site, name: str):
    """Key, app id, DNS name; with what a program needs to choose and to believe."""
    revision = await site.commit(publish(1))
    status, body, headers = await site.get(f"/v2/services/{name}")
    endpoint = body["endpoints"][0]

    assert 200 == status
    assert ("10.0.0.1", 31001, "healthy", 1.0, "t1", WEB) == tuple(
        endpoint[key] for key in ("host", "port", "health", "weight", "task", "service")
    )
    assert (revision, "live", 0.0, [DNS]) == (body["revision"], body["trust"], body["age_s"], body["names"])
    assert ("live", "0.0", body["index"]) == tuple(headers[f"X-Fairlead-{key}"] for key in ("Trust", "Age", "Index"))


async def test_one_instance_is_found_by_its_own_name(site: Site):
    """As DNS calls it: task label, hash, agent's tail."""
    await site.commit(publish(1), publish(2))
    _, body, _ = await site.get(f"/v2/services/web-{task_hash('t2')}-a1.marathon.mesos")

    assert ["t2"] == [each["task"] for each in body["endpoints"]]


async def test_the_list_has_names_and_counts(site: Site):
    """Of every service that has endpoints."""
    await site.commit(publish(1), publish(2))
    _, body, _ = await site.get("/v2/services")

    assert [{"service": WEB, "names": [DNS], "endpoints": 2}] == body["services"]


@pytest.mark.parametrize(("name", "hint"), [("web-shop.marathon.mesos", DNS), ("marathon:/shop/wep", WEB), ("zzz", "")])
async def test_what_is_not_there_is_said_with_names_alike(site: Site, name: str, hint: str):
    """404, with what may have been meant."""
    await site.commit(publish(1))
    status, body, _ = await site.get(f"/v2/services/{name}")

    assert (404, "live") == (status, body["trust"])
    assert hint in body["message"]
    assert bool(hint) == ("did you mean" in body["message"])


async def test_nothing_known_is_not_nothing_there():
    """503 until the first look at the registry; never 404."""
    app = make_app(DaemonSettings(token="off"), Health())
    add_routes(app, Listing())
    runner, port = await serve(app, DaemonSettings(token="off"))
    async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{port}/v2/services/{WEB}") as answer:
        status, message = answer.status, (await answer.json())["message"]
    await runner.cleanup()

    assert (503, True) == (status, message.startswith("nothing is known yet"))


async def test_a_service_without_endpoints_is_no_missing_one(site: Site):
    """It has a route: balancers know it."""
    await site.commit(route())
    status, body, _ = await site.get(f"/v2/services/{WEB}")

    assert (200, []) == (status, body["endpoints"])


async def test_a_long_poll_answers_as_soon_as_there_is_news(site: Site):
    """And not for another service's."""
    await site.commit(publish(1))
    _, before, _ = await site.get(f"/v2/services/{WEB}")
    waiting = asyncio.create_task(site.get(f"/v2/services/{WEB}?index={before['index']}&wait=30s"))
    await site.commit(publish(9, service="etl:worker"))
    await asyncio.sleep(0.1)
    done = waiting.done()
    await site.commit(publish(2))
    async with asyncio.timeout(30):
        _, after, _ = await waiting

    assert not done
    assert ["t1", "t2"] == [each["task"] for each in after["endpoints"]]
    assert after["index"] != before["index"]


async def test_a_long_poll_without_news_ends_after_its_wait(site: Site):
    """With the same answer; by ETag with 304. A plain revision will do as an index."""
    revision = await site.commit(publish(1))
    _, before, headers = await site.get(f"/v2/services/{DNS}")
    same = await site.get(f"/v2/services/{DNS}?index={before['index']}&wait=50ms")
    plain = await site.get(f"/v2/services/{DNS}?index={revision}&wait=50ms")
    unchanged = await site.get(f"/v2/services/{DNS}?wait=50ms", **{"If-None-Match": headers["ETag"]})

    assert (200, before["index"]) == (same[0], same[1]["index"])
    assert (200, before["index"]) == (plain[0], plain[1]["index"])
    assert (304, None) == unchanged[:2]
    assert "live" == unchanged[2]["X-Fairlead-Trust"]


async def test_what_is_not_there_yet_can_be_waited_for(site: Site):
    """The 404 has an index too."""
    await site.commit(route("x:y"))
    _, _, headers = await site.get(f"/v2/services/{DNS}")
    index = headers["X-Fairlead-Index"]
    waiting = asyncio.create_task(site.get(f"/v2/services/{DNS}?index={index}&wait=30s"))
    await asyncio.sleep(0.05)
    await site.commit(publish(1))
    async with asyncio.timeout(30):
        status, body, _ = await waiting

    assert (200, 1) == (status, len(body["endpoints"]))


@pytest.mark.parametrize("query", ["index=x&wait=1s", "index=1&wait=soon", "index=1&wait=-1s"])
async def test_what_is_no_index_or_wait_is_named(site: Site, query: str):
    """400."""
    await site.commit(publish(1))
    status, body, _ = await site.get(f"/v2/services/{DNS}?{query}")

    assert 400 == status
    assert body["message"].startswith(("index:", "wait:"))


# --- streams


@asynccontextmanager
async def streaming(site: Site, path: str, last: str = "") -> AsyncIterator[AsyncIterator[tuple[str, str, Any]]]:
    """Events as (id, kind, data); beats without news are left out."""
    headers = {"Accept": "text/event-stream", **({"Last-Event-ID": last} if last else {})}
    async with asyncio.timeout(30), site.session.get(f"{site.url}{path}", headers=headers) as response:
        assert 200 == response.status

        async def events() -> AsyncIterator[tuple[str, str, Any]]:
            fields: dict[str, str] = {}
            async for line in response.content:
                key, _, value = line.decode().rstrip("\n").partition(": ")
                if key:
                    fields[key] = value
                elif "data" in fields:
                    yield fields.get("id", ""), fields["event"], json.loads(fields["data"])
                    fields = {}

        yield events()


async def test_a_stream_of_one_service_tells_each_change(site: Site):
    """The whole answer each time; what a client knows already is not repeated."""
    await site.commit(publish(1))
    async with streaming(site, f"/v2/services/{DNS}") as events:
        _, kind, first = await anext(events)
        await site.commit(publish(2))
        place, _, second = await anext(events)
    async with streaming(site, f"/v2/services/{DNS}", last=place) as events:
        await site.commit(withdraw(1), leave(1))
        _, _, third = await anext(events)

    tasks = [[each["task"] for each in body["endpoints"]] for body in (first, second, third)]

    assert "endpoints" == kind
    assert [["t1"], ["t1", "t2"], ["t2"]] == tasks
    assert ["t1"] == [record["task"] for record in third["leaving"]]


async def test_the_stream_of_everything_goes_on_where_it_stopped(site: Site):
    """Whole at first; after an interruption only what changed, and what is gone."""
    await site.commit(publish(1), *(publish(n, service=f"x:{n}") for n in range(10, 70)))
    told: dict[str, Any] = {}
    async with streaming(site, "/v2/services") as events:
        while True:
            place, _, body = await anext(events)
            assert body["whole"]
            told.update(body["services"])
            if not body["more"]:
                break
    await site.commit(publish(2), withdraw(10, service="x:10"), leave(10, service="x:10"))
    async with streaming(site, "/v2/services", last=place) as events:
        _, _, later = await anext(events)

    assert 61 == len(told)
    assert (False, [WEB], ["x:10"]) == (later["whole"], list(later["services"]), later["gone"])
    assert 2 == len(later["services"][WEB])


async def test_a_stream_of_some_names_tells_no_others(site: Site):
    """A name that means nothing yet is told when it does."""
    await site.commit(publish(1), publish(5, service="x:other"))
    async with streaming(site, f"/v2/services?name={WEB}&name=etl:late") as events:
        _, _, first = await anext(events)
        await site.commit(publish(6, service="x:other"))
        await site.commit(publish(7, service="etl:late"))
        async for _, _, body in events:
            if body["services"]:
                break

    assert [WEB] == list(first["services"])
    assert ["etl:late"] == list(body["services"])


async def test_a_quiet_stream_says_that_it_is_there(site: Site):
    """With how far to believe what was told."""
    await site.commit(publish(1))
    async with streaming(site, "/v2/services") as events:
        await anext(events)
        _, _, beat = await anext(events)

    assert ({}, [], "live") == (beat["services"], beat["gone"], beat["trust"])


LONG = "1" * 5000


async def test_numbers_of_any_length_are_no_fault_of_ours(site: Site):
    """An index is refused in words; what headers say is left out when it is nothing of ours."""
    await site.commit(publish(1))
    long, body, _ = await site.get(f"/v2/services/{DNS}?index={LONG}")
    digests, _, _ = await site.get(f"/v2/services/{DNS}?index={LONG}-0a1b2c3d-live")
    tagged, _, _ = await site.get(f"/v2/services/{DNS}", **{"If-None-Match": f'W/"{LONG}"'})
    events = []
    for path, last in ((f"/v2/services/{DNS}", LONG), ("/v2/services", f"{site.listing.instance}-{LONG}")):
        headers = {"Accept": "text/event-stream", "Last-Event-ID": last}
        async with asyncio.timeout(30), site.session.get(f"{site.url}{path}", headers=headers) as response:
            events.append(b"data: " in await response.content.readuntil(b"\n\n"))

    assert (400, 400, 200) == (long, digests, tagged)
    assert "index" in body["message"]
    assert [True, True] == events


# --- limits


async def test_too_many_watchers_are_refused():
    """Who asks once is still answered."""
    async with serving("bounded", Limits(watchers=2)) as site:
        await site.commit(publish(1))
        _, body, _ = await site.get(f"/v2/services/{DNS}")
        path = f"/v2/services/{DNS}?index={body['index']}&wait=20s"
        waiting = [asyncio.create_task(site.get(path)) for _ in range(3)]
        done, pending = await asyncio.wait(waiting, timeout=5, return_when=asyncio.FIRST_COMPLETED)
        plain, _, _ = await site.get(f"/v2/services/{DNS}")
        await site.commit(publish(2))
        async with asyncio.timeout(30):
            released = [(await task)[0] for task in pending]

    assert [503] == [task.result()[0] for task in done]
    assert (200, [200, 200]) == (plain, released)


async def test_a_stream_whose_client_reads_nothing_is_closed():
    """And gives its place back."""
    async with serving("slow", Limits(watchers=1, write_s=0.2, beat_s=0.05)) as site:
        await site.commit(publish(1))  # the registry has said its word
        large = msgspec.structs.replace(member(1), zone="z" * 20_000)
        members = {f"x:{n}": {"member_t1": large} for n in range(800)}
        site.listing.take(Snapshot(revision=1, trust=Trust.LIVE, members=members))
        with socket.socket() as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.setblocking(False)
            loop = asyncio.get_running_loop()
            await loop.sock_connect(client, ("127.0.0.1", int(site.url.rpartition(":")[2])))
            await loop.sock_sendall(
                client, b"GET /v2/services HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n"
            )
            await loop.sock_recv(client, 1)
            async with asyncio.timeout(60):
                while site.listing._waiting:  # noqa: ASYNC110  # ends with its first deadline
                    await asyncio.sleep(0.02)
        _, body, _ = await site.get("/v2/services/x:1")
        status, _, _ = await site.get(f"/v2/services/x:1?index={body['index']}&wait=1ms")

    assert 200 == status
