"""The console in this process, on the in-memory registry and HTTP servers that answer as the daemons do."""

import asyncio
import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

from fairlead_console.web import daemon
from fairlead_console.web.board import Board
from fairlead_console.web.decisions.page import Facts
from fairlead_console.web.settings import ConsoleSettings
from fairlead_daemon.logs import Log
from fairlead_daemon.main import Context
from fairlead_discovery.backends import open_registry
from fairlead_discovery.registry import Registry
from fairlead_discovery.snapshots import Snapshot, Trust
from harness.names import member, publish
from harness.ports import free_port
from harness.waiting import eventually


class Console:
    """The daemon, and how a browser asks it."""

    def __init__(self, session: aiohttp.ClientSession, registry: Registry, port: int) -> None:
        self.session = session
        self.registry = registry
        self.url = f"http://127.0.0.1:{port}"

    async def page(self) -> str:
        async with self.session.get(f"{self.url}/") as response:
            assert 200 == response.status
            return await response.text()

    @asynccontextmanager
    async def events(self) -> AsyncIterator[aiohttp.ClientResponse]:
        async with self.session.get(f"{self.url}/events") as response:
            yield response

    async def shows(self, text: str) -> None:
        async def shown() -> bool:
            return text in await self.page()

        await eventually(f"the page shows {text!r}", shown)


async def pushed(response: aiohttp.ClientResponse) -> list[str]:
    """Names of the sections in the next event; heartbeats are left out."""
    lines: list[str] = []
    while True:
        async with asyncio.timeout(10):
            line = (await response.content.readline()).decode().rstrip("\n")
        lines.append(line)
        if not line:
            if found := re.findall(r'hx-target="#([\w-]+)"', "".join(lines)):
                return found
            lines = []


@asynccontextmanager
async def running(folder: Path, url: str = "", **settings: Any) -> AsyncIterator[Console]:
    port = free_port()
    given = ConsoleSettings(
        **{
            "registry": f"memory:{folder.name}",
            "data_dir": str(folder),
            "port": port,
            "token": "off",
            "master": url,
            "services": url,
            "lb": "",
            "messaging": "",
            "monitor": url,
            "poll_s": 0.1,
            **settings,
        }
    )
    context = Context(name="console", log=Log("console"))
    body = asyncio.ensure_future(daemon.run(given, context))
    registry = await open_registry(given.registry)
    try:
        async with aiohttp.ClientSession() as session:
            made = Console(session, registry, port)

            async def ready() -> bool:
                if body.done():
                    body.result()
                async with session.get(f"{made.url}/ready") as response:
                    return response.status == 200

            await eventually("the console is ready", ready)
            yield made
    finally:
        context.stop.set()
        async with asyncio.timeout(5):
            await body
        await registry.close()


def answer_as_all(daemons: Any) -> None:
    daemons.answers[("GET", "/v2/apps")] = {"apps": [{"id": "/shop", "instances": 2}]}
    daemons.answers[("GET", "/v2/tasks")] = {"tasks": []}
    daemons.answers[("GET", "/slaves")] = {"slaves": [{"id": "S0", "hostname": "n1", "resources": {"cpus": 4}}]}
    daemons.answers[("GET", "/api/alerts")] = {"alerts": [{"rule": "agent-lost", "state": "firing"}]}
    daemons.answers[("GET", "/api/series")] = {"series": []}


async def test_the_page_holds_what_all_parts_say(tmp_path: Path, daemons: Any):
    """At once: a fetched page waits for the first answers."""
    answer_as_all(daemons)
    async with running(tmp_path, daemons.url) as console:
        await publish(console.registry, member(name="web"))
        await console.shows("web.marathon.mesos")
        page = await console.page()

    for wanted in ("/shop", "n1", "agent-lost", "10.0.0.1:31000", "2 missing"):
        assert wanted in page


async def test_without_any_daemon_the_page_says_who_is_absent(tmp_path: Path):
    """And is there all the same, with what the registry knows."""
    async with running(tmp_path, "http://127.0.0.1:1") as console:
        await publish(console.registry, member(name="web"))
        await console.shows("1 serving")
        page = await console.page()

    for wanted in ("The master is not running", "Messaging is switched off by setting", "The monitor is not running"):
        assert wanted in page


async def test_only_what_changed_is_sent(tmp_path: Path, daemons: Any):
    """First everything, for the page may be older than the connection; then a section at a time."""
    answer_as_all(daemons)
    async with running(tmp_path, daemons.url) as console, console.events() as stream:
        first = await pushed(stream)
        daemons.answers[("GET", "/api/alerts")] = {"alerts": []}
        alerts = await pushed(stream)
        daemons.answers[("GET", "/slaves")] = {"slaves": [{"id": "S0", "hostname": "n1", "suspect": True}]}
        nodes = await pushed(stream)
        await console.registry.commit([])
        revision = await pushed(stream)

    assert {"summary", "services", "nodes", "links", "alerts", "graph"} == set(first)
    assert ["summary", "alerts"] == alerts
    assert ["nodes"] == nodes
    assert ["summary"] == revision


async def test_of_many_services_only_those_that_changed_are_sent(tmp_path: Path, daemons: Any):
    """A new one brings the whole list once, and nothing of it a second time."""
    answer_as_all(daemons)

    def apps(**instances: int) -> None:
        listed = [{"id": f"/{name}", "instances": count} for name, count in instances.items()]
        daemons.answers[("GET", "/v2/apps")] = {"apps": listed}

    apps(a=1, b=1, c=1)
    async with running(tmp_path, daemons.url) as console, console.events() as stream:
        first = await pushed(stream)
        apps(a=1, b=2, c=1)
        changed = await pushed(stream)
        apps(a=1, b=2, c=1, d=1)
        added = await pushed(stream)
        apps(a=1, b=2, c=1, d=5)
        changed_again = await pushed(stream)

    assert not [name for name in first if name.startswith("service-")]
    assert 1 == len(changed)
    assert ["summary", "services"] == added
    assert 1 == len(changed_again)
    assert changed[0].startswith("service-")
    assert changed_again[0].startswith("service-")
    assert changed != changed_again


async def test_a_change_is_sent_within_a_second(tmp_path: Path, daemons: Any):
    """Registry and daemon alike, at the default rate of asking."""
    answer_as_all(daemons)
    took: list[float] = []
    async with running(tmp_path, daemons.url, poll_s=0.4) as console, console.events() as stream:
        await pushed(stream)
        for number in range(4):
            begin = time.monotonic()
            await publish(console.registry, member(number))
            await pushed(stream)
            took.append(time.monotonic() - begin)
            begin = time.monotonic()
            daemons.answers[("GET", "/slaves")] = {"slaves": [{"id": "S0", "hostname": f"n-{number}"}]}
            await pushed(stream)
            took.append(time.monotonic() - begin)

    assert max(took) < 1.0, took


async def test_nobody_is_asked_while_nobody_looks(tmp_path: Path, daemons: Any):
    """A console that is left running costs the daemons nothing."""
    answer_as_all(daemons)
    async with running(tmp_path, daemons.url):
        await asyncio.sleep(0.5)  # several times poll_s

    assert [] == daemons.seen


async def test_a_daemon_that_hangs_does_not_hold_the_page(tmp_path: Path):
    """The page comes without it, in less than two seconds, and says so."""

    async def hang(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(30)
        writer.close()

    server = await asyncio.start_server(hang, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with running(tmp_path, f"http://127.0.0.1:{port}") as console:
        begin = time.monotonic()
        page = await console.page()
        took = time.monotonic() - begin
        await console.shows("The master is not running")
    server.close()

    assert took < 2.0
    assert "The master has not answered yet" in page


async def test_an_answer_that_is_not_understood_is_said(tmp_path: Path, daemons: Any):
    """With the place in it; the rest of the page stands, and the last good answer."""
    answer_as_all(daemons)
    async with running(tmp_path, daemons.url) as console:
        await console.shows("n1")
        daemons.answers[("GET", "/slaves")] = {"slaves": [{"hostname": 3}]}
        await console.shows("The master is no help: its answer is not understood")
        page = await console.page()

    assert "n1" in page


async def test_nonsense_from_any_daemon_ends_nothing(tmp_path: Path, daemons: Any):
    """Each answer is JSON of the wrong shape; the registry's part of the page goes on."""
    for path in ("/v2/apps", "/v2/tasks", "/slaves", "/status", "/haproxy", "/api/alerts", "/api/series"):
        daemons.answers[("GET", path)] = {
            "series": [{"points": [["x", None], 3]}],
            "alerts": 3,
            "slaves": {},
            "apps": 1,
        }
    async with running(tmp_path, daemons.url, lb=daemons.url, messaging=daemons.url) as console:
        await console.page()
        await publish(console.registry, member(name="web"))
        await console.shows("web.marathon.mesos")
        page = await console.page()

    assert page.count("is no help: its answer is not understood") >= 4


async def test_a_long_answer_is_read_whole(tmp_path: Path, daemons: Any):
    """Megabytes, as of a house of many tasks."""
    answer_as_all(daemons)
    daemons.answers[("GET", "/slaves")] = {
        "slaves": [{"id": f"S{n}", "hostname": f"n{n}" + "x" * 900} for n in range(3000)]
    }
    async with running(tmp_path, daemons.url) as console:
        await console.shows("n2999x")


async def test_what_others_say_cannot_become_markup(tmp_path: Path, daemons: Any):
    """An app, a node and an alert that try."""
    answer_as_all(daemons)
    bad = "</div><script>alert(1)</script><hx-partial hx-target='#nodes'>"
    daemons.answers[("GET", "/v2/apps")] = {"apps": [{"id": f"/{bad}"}]}
    daemons.answers[("GET", "/slaves")] = {"slaves": [{"id": bad, "hostname": bad}]}
    daemons.answers[("GET", "/api/alerts")] = {"alerts": [{"rule": bad, "state": bad, "summary": bad}]}
    async with running(tmp_path, daemons.url) as console:
        page = await console.page()
        async with console.events() as stream:
            names = await pushed(stream)

    assert "&lt;script&gt;alert(1)" in page
    assert "<script>alert" not in page
    assert "<hx-partial" not in page
    assert 6 == len(names)


async def test_more_viewers_than_set_are_told_so(tmp_path: Path):
    """Those that are live stay live, and a place that is free again is given."""
    async with running(tmp_path, viewers=1) as console:
        async with console.events() as first:
            await pushed(first)
            async with console.session.get(f"{console.url}/events") as second:
                answer = await second.json()
                status = second.status

        async def free() -> bool:
            async with console.events() as again:
                return again.status == 200

        await eventually("the place is free again", free)

    assert (503, "1 pages are live already (setting viewers)") == (status, answer["message"])


async def test_an_open_page_does_not_hold_the_stop(tmp_path: Path):
    """The daemon ends within seconds although a browser listens."""
    async with running(tmp_path) as console:
        stream = await console.session.get(f"{console.url}/events")
        await pushed(stream)
        begin = time.monotonic()
    stream.close()

    assert time.monotonic() - begin < 3


async def test_scripts_and_styles_are_kept_by_browsers_until_they_change(tmp_path: Path):
    """By an address that names their content; only files that were meant are served."""
    async with running(tmp_path) as console:
        page = await console.page()
        found = re.findall(r'(?:src|href)="(/static/[^"]+)"', page)
        told = {}
        for path in found:
            async with console.session.get(f"{console.url}{path}") as response:
                told[path] = (response.status, response.headers["Cache-Control"])
        async with console.session.get(f"{console.url}/static/console.css?v=old") as response:
            old = response.headers["Cache-Control"]
        async with console.session.get(f"{console.url}/static/..%2fdaemon.py") as response:
            outside = response.status

    assert len(set(found)) == 7
    assert {(200, "public, max-age=31536000, immutable")} == set(told.values())
    assert "no-cache" == old
    assert 404 == outside


async def test_a_page_for_another_host_is_refused(tmp_path: Path):
    """A name that someone points at us reads nothing."""
    async with (
        running(tmp_path) as console,
        console.session.get(f"{console.url}/", headers={"Host": "evil.example"}) as response,
    ):
        status = response.status

    assert status == 403


def test_sections_are_rendered_only_when_what_they_show_changed():
    """The very same text else."""
    facts = [Facts(snapshot=Snapshot(revision=1, trust=Trust.LIVE))]
    board = Board(lambda: facts[0])
    first = board.render()
    facts[0] = Facts(snapshot=Snapshot(revision=2, trust=Trust.LIVE))
    second = board.render()

    assert first["summary"].digest != second["summary"].digest
    assert all(first[name] is second[name] for name in first if name != "summary")
