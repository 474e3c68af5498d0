"""A real headless Chromium, driven over its debugging protocol."""

import asyncio
import base64
import itertools
import json
import os
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import aiohttp

from harness.servers import Server, require
from harness.waiting import eventually

FLAGS = (
    "--headless",
    "--no-sandbox",  # root may not have one
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--remote-debugging-port=0",
)
ANSWER_S = 15.0


class Page:
    """One tab. `console` is what the page logged, errors and refusals by the content security policy among it."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.console: list[str] = []
        self._socket = socket
        self._ids = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._reading = asyncio.create_task(self._read())

    async def _read(self) -> None:
        async for message in self._socket:
            told = json.loads(message.data)
            if "id" in told:
                self._waiting.pop(told["id"]).set_result(told)
            elif told["method"] == "Log.entryAdded":
                self.console.append(told["params"]["entry"]["text"])
            elif told["method"] == "Runtime.exceptionThrown":
                self.console.append(json.dumps(told["params"]["exceptionDetails"]))
            elif told["method"] == "Runtime.consoleAPICalled":
                self.console.append(json.dumps(told["params"]["args"]))

    async def call(self, method: str, **params: Any) -> dict[str, Any]:
        number = next(self._ids)
        self._waiting[number] = answer = asyncio.get_running_loop().create_future()
        await self._socket.send_json({"id": number, "method": method, "params": params})
        async with asyncio.timeout(ANSWER_S):
            told = await answer
        assert "error" not in told, f"{method}: {told['error']}"
        return dict(told["result"])

    async def open(self, url: str, *, scripts: bool = True, width: int = 1280, height: int = 900) -> None:
        """Returns when it is loaded."""
        await asyncio.gather(*(self.call(f"{domain}.enable") for domain in ("Page", "Runtime", "Log")))
        await self.call("Emulation.setScriptExecutionDisabled", value=not scripts)
        await self.size(width, height)
        await self.call("Page.navigate", url=url)
        await eventually("the page is loaded", lambda: self._loaded(url), within_s=ANSWER_S)

    async def size(self, width: int, height: int) -> None:
        await self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )

    async def _loaded(self, url: str) -> bool:
        at = await self.value("document.readyState + ' ' + location.href")
        return bool(at.startswith("complete") and url.rstrip("/") in at)

    async def value(self, expression: str) -> Any:
        """Of a JavaScript expression; promises are awaited."""
        told = await self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in told, told["exceptionDetails"]
        return told["result"].get("value")

    async def text(self, selector: str) -> str:
        """What is shown of the first element, "" when there is none."""
        return str(await self.value(f"document.querySelector({json.dumps(selector)})?.innerText ?? ''"))

    async def html(self) -> str:
        """Without running a script of the page's: also when those are off."""
        root = (await self.call("DOM.getDocument", depth=0))["root"]["nodeId"]
        return str((await self.call("DOM.getOuterHTML", nodeId=root))["outerHTML"])

    async def screenshot(self, file: Path, *, whole: bool = True) -> None:
        told = await self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        file.write_bytes(base64.b64decode(told["data"]))

    async def close(self) -> None:
        self._reading.cancel()
        await self._socket.close()


@asynccontextmanager
async def chromium() -> AsyncIterator[Page]:
    """A browser with a profile of its own, ended with everything it started."""
    folder = Path(tempfile.mkdtemp(prefix="fl-", dir="/tmp"))
    profile = folder / "profile"
    command = [require("chromium"), *FLAGS, f"--user-data-dir={profile}", "about:blank"]
    server = Server(command, log=folder / "log", env={"HOME": str(folder), "NO_PROXY": "*"}).start()
    try:
        async with aiohttp.ClientSession() as session:
            told = await eventually("the browser listens", lambda: _port(profile), within_s=30)
            yield await _page(session, told)
    finally:
        server.stop(grace_s=5)
        _end_group(server.pid)
        shutil.rmtree(folder, ignore_errors=True)


async def _port(profile: Path) -> int:
    return int((profile / "DevToolsActivePort").read_text().split()[0])


async def _page(session: aiohttp.ClientSession, port: int) -> Page:
    async with session.get(f"http://127.0.0.1:{port}/json/list") as response:
        tabs = await response.json()
    url = next(tab["webSocketDebuggerUrl"] for tab in tabs if tab["type"] == "page")
    return Page(await session.ws_connect(url, max_msg_size=0))


def _end_group(pid: int) -> None:
    """What the browser started is in its session."""
    with suppress(ProcessLookupError):
        os.killpg(pid, 9)
