"""The web console in a real Chromium, on a whole house: every change shows within a second, without a reload."""

import asyncio
import os
import re
import signal
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Iterator
from statistics import median
from typing import Any

import pytest

from fairlead_discovery.backends import open_registry
from harness.browser import Page, chromium
from harness.house import House, house
from harness.waiting import eventually, wait_until

pytestmark = [pytest.mark.needs("chromium", "haproxy", "dig"), pytest.mark.timeout(240)]
SHOWN_WITHIN_S = 1.0  # as a rule: one change of several may meet a machine that is busy elsewhere
APP = "/page/web"


@pytest.fixture(scope="module")
def place() -> Iterator[House]:
    with house() as made:
        made.deploy(made.app(APP))
        yield made


@pytest.fixture
async def page(place: House) -> AsyncIterator[Page]:
    """The console, open and live; a reload would lose the mark."""
    async with chromium() as tab:
        await tab.open(address(place))
        await eventually("the app is shown", lambda: shows(tab, "#services", "2 of 2 serving"))
        await tab.value("window.opened = true")
        yield tab
        await tab.close()


def address(place: House) -> str:
    return f"http://127.0.0.1:{place.ports['console_port']}/"


def fetched(place: House) -> str:
    with urllib.request.urlopen(address(place), timeout=10) as response:
        return str(response.read().decode())


async def shows(tab: Page, selector: str, text: str) -> bool:
    return text in await tab.text(selector)


async def shown_after(tab: Page, selector: str, text: str) -> float:
    """Seconds from now until it is shown."""
    begin = time.monotonic()
    await eventually(f"{selector} shows {text!r}", lambda: shows(tab, selector, text), within_s=10, every_s=0.01)
    return time.monotonic() - begin


async def call(place: House, method: str, path: str, body: object) -> Any:
    status, answer = await asyncio.to_thread(place.call, "services_port", method, path, body)
    assert status in {200, 201}, answer
    return answer


async def settled(place: House) -> None:
    await asyncio.to_thread(place.settle, APP)


async def back_to_two(place: House) -> None:
    await settled(place)
    await call(place, "PUT", f"/v2/apps{APP}", {"instances": 2})
    await settled(place)


async def test_what_is_wanted_shows_within_a_second_without_a_reload(place: House, page: Page):
    """Scaled up and down: the count and the new instances come by themselves, and nothing breaks the policy."""
    took: list[float] = []
    for count in (4, 1, 3, 2):
        await call(place, "PUT", f"/v2/apps{APP}", {"instances": count})
        took.append(await shown_after(page, "#services", f"of {count} serving"))
        await settled(place)
        took.append(await shown_after(page, "#services", f"{count} of {count} serving"))

    print("shown after", [f"{seconds:.2f} s" for seconds in took])
    assert median(took) < SHOWN_WITHIN_S, took
    assert await page.value("window.opened") is True
    assert [] == page.console


async def test_a_registry_change_shows_within_a_second(place: House, page: Page):
    """The revision at the top is that of the registry, commit by commit."""
    registry = await open_registry(f"local:{place.registry_socket()}")
    try:
        took = []
        for _ in range(5):
            revision = await registry.commit([])
            took.append(await shown_after(page, "#revision", str(revision)))
    finally:
        await registry.close()

    assert median(took) < SHOWN_WITHIN_S, took


async def test_a_draining_node_shows_within_a_second(place: House, page: Page):
    """And comes back as soon as it is active again."""
    agent = place.agents()[0]
    took = []
    for _ in range(3):
        await asyncio.to_thread(place.drain, agent["id"])
        took.append(await shown_after(page, "#nodes", "drain"))
        await asyncio.to_thread(place.undrain, agent["id"])
        await eventually("no node drains", lambda: _no_drain(page), within_s=10, every_s=0.01)
    await settled(place)

    assert median(took) < SHOWN_WITHIN_S, took


async def _no_drain(page: Page) -> bool:
    return "drain" not in await page.text("#nodes")


async def test_what_a_reader_closed_stays_closed(place: House, page: Page):
    """A change moves into the page; it does not replace it under the reader's hands."""
    await page.value("document.querySelector('#services details').open = false")
    await call(place, "PUT", f"/v2/apps{APP}", {"instances": 3})
    await shown_after(page, "#services", "of 3 serving")
    closed = await page.value("!document.querySelector('#services details').open")
    await back_to_two(place)

    assert closed


async def test_requests_are_drawn(place: House, page: Page):
    """The line rises above zero once requests come through the balancer."""
    for _ in range(60):
        await asyncio.to_thread(place.through_lb, "page-web.example")

    await eventually("requests are drawn", lambda: _drawn(page), within_s=15)
    assert [] == page.console


async def _drawn(page: Page) -> bool:
    values = await page.value("JSON.parse(document.querySelector('#graph figure')?.dataset.values ?? '[]')")
    canvas = await page.value("document.querySelector('#plot canvas')?.width ?? 0")
    return max(values, default=0) > 0 and canvas > 0


async def test_a_killed_console_is_missed_and_comes_back_without_a_reload(place: House, page: Page):
    """The page says that it has lost its connection, and is live again by itself."""
    await page.value(
        "const lost = document.getElementById('lost');"
        "new MutationObserver(() => { if (!lost.hidden) window.missed = true; }).observe(lost, { attributes: true }); 1"
    )
    old = place.kill("console")
    await eventually("the loss is said", lambda: page.value("window.missed === true"))
    await asyncio.to_thread(place.wait_restarted, "console", old)
    await eventually("it is live again", lambda: page.value("document.getElementById('lost').hidden"), within_s=20)
    await call(place, "PUT", f"/v2/apps{APP}", {"instances": 3})
    await shown_after(page, "#services", "of 3 serving")
    await back_to_two(place)

    assert await page.value("window.opened") is True


async def test_a_page_whose_first_connection_fails_says_so_and_comes_back(place: House):
    """A console that ends between the page and its stream leaves no page behind that never changes again."""
    async with chromium() as tab:
        await tab.call("Network.enable")
        await tab.call("Network.setBlockedURLs", urls=["*/events*"])
        await tab.open(address(place))
        await eventually("the loss is said", lambda: tab.value("!document.getElementById('lost').hidden"))
        await tab.call("Network.setBlockedURLs", urls=[])
        await eventually("it is live", lambda: tab.value("document.getElementById('lost').hidden"))
        await tab.close()


async def test_a_paused_registry_is_said_at_the_top(place: House, page: Page):
    """Names and instances stay, with their age; when it is back the page is live."""
    pid = place.pid("registry")
    os.kill(pid, signal.SIGSTOP)
    try:
        await eventually("it is said", lambda: shows(page, "#summary", "out of sight"), within_s=20)
        kept = await page.text("#services")
    finally:
        os.kill(pid, signal.SIGCONT)
    await eventually("it is live", lambda: shows(page, "#summary", "in sight"), within_s=20)
    # The leader may have stepped down meanwhile: the agents come back to the next.
    await eventually("agent-1 is back", lambda: shows(page, "#nodes", "agent-1"), within_s=20)
    await eventually("agent-2 is back", lambda: shows(page, "#nodes", "agent-2"), within_s=20)

    assert "2 of 2 serving" in kept


async def test_without_scripts_the_page_holds_everything(place: House):
    """Services with names, routes and instances, nodes, and why the rest is absent; by a browser and a plain GET."""
    tasks = [task["id"] for task in place.tasks(APP)]
    wanted = (*tasks, "web-page.marathon.mesos", "page-web.example", "2 of 2 serving", "agent-1", "agent-2")
    async with chromium() as tab:

        async def shown() -> bool:
            await tab.open(address(place), scripts=False)
            return _holds_all(await tab.html(), wanted)

        await eventually("a plain GET holds everything", lambda: _plain_holds(place, wanted), within_s=20)
        await eventually("a browser shows everything", shown, within_s=20)
        await tab.close()


async def _plain_holds(place: House, wanted: tuple[str, ...]) -> bool:
    return _holds_all(await asyncio.to_thread(fetched, place), wanted)


def _holds_all(page: str, wanted: tuple[str, ...]) -> bool:
    missing = [word for word in wanted if word not in page]
    assert not missing
    return True


@pytest.mark.parametrize("path", ["/", "/events", "/static/console.css", "/metrics", "/none"])
def test_every_answer_carries_the_policy(place: House, path: str):
    """Nothing inline, nothing from elsewhere, in no frame; types are what they are said to be."""
    request = urllib.request.Request(address(place).rstrip("/") + path)
    try:
        with urllib.request.urlopen(request, timeout=10) as response:
            headers = response.headers
    except urllib.error.HTTPError as error:
        headers = error.headers
    policy = headers["Content-Security-Policy"]

    assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self';")
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert "nosniff" == headers["X-Content-Type-Options"]


def test_the_page_brings_nothing_from_elsewhere(place: House):
    """No address of another host, no script or style of its own text."""
    plain = fetched(place)

    assert [] == re.findall(r'(?:src|href)="(?!/static/|#)[^"]*"', plain)
    assert [] == re.findall(r"<script(?! src=)|<style| style=| on\w+=", plain)


def test_up_shows_where_the_page_is(place: House):
    """In its table of addresses."""
    wait_until("the table is shown", lambda: address(place) in place.up.log.read_text(), within_s=10)
