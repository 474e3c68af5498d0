"""Mesos' v1 scheduler HTTP API, the only file that knows it: one subscription, its events, its calls."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Any

import aiohttp
import msgspec

from fairlead_core.recordio import Unframer
from fairlead_daemon.errors import Refused, Unavailable

PATH = "/api/v1/scheduler"
HOPS = 3
ANSWER_S = 10.0
BEATS_MISSED = 3
FIRST_EVENT_S = 30.0
Event = Mapping[str, Any]


class Subscription:
    """An open event stream, and the calls that belong to it. Close it to be disconnected, not torn down."""

    def __init__(self, session: aiohttp.ClientSession, url: str, response: aiohttp.ClientResponse) -> None:
        self.url = url
        self.stream_id = response.headers.get("Mesos-Stream-Id", "")
        self.framework_id = ""
        self._session = session
        self._response = response
        self._silence_s = FIRST_EVENT_S

    async def events(self) -> AsyncIterator[Event]:
        """Until the stream ends, is silent for three heartbeats, or makes no sense: Unavailable, Refused."""
        unframer = Unframer()
        try:
            while True:
                async with asyncio.timeout(self._silence_s):
                    data = await self._response.content.readany()
                if not data:
                    raise Unavailable(f"{self.url}: the event stream ended")
                for record in unframer.feed(data):
                    yield self._decoded(record)
        except TimeoutError as error:
            raise Unavailable(f"{self.url}: no heartbeat for {self._silence_s:g} s") from error
        except (aiohttp.ClientError, OSError) as error:
            raise Unavailable(f"{self.url}: {error or type(error).__name__}") from error

    def _decoded(self, record: bytes) -> Event:
        try:
            event: Any = msgspec.json.decode(record)
        except msgspec.DecodeError as error:
            raise Refused(f"{self.url}: event: {error}") from error
        if not isinstance(event, dict):
            raise Refused(f"{self.url}: event: expected an object")
        if event.get("type") == "SUBSCRIBED":
            told = event.get("subscribed") or {}
            self.framework_id = str((told.get("framework_id") or {}).get("value", ""))
            self._silence_s = max(1.0, BEATS_MISSED * float(told.get("heartbeat_interval_seconds") or 15.0))
        return event

    async def call(self, kind: str, **payload: Any) -> None:
        """One call, accepted by the master. Raises Refused (4xx), Unavailable (no answer: perhaps done)."""
        body = {"framework_id": {"value": self.framework_id}, "type": kind, **payload}
        headers = {"Content-Type": "application/json", "Mesos-Stream-Id": self.stream_id}
        try:
            async with (
                asyncio.timeout(ANSWER_S),
                self._session.post(
                    self.url, data=msgspec.json.encode(body), headers=headers, allow_redirects=False
                ) as answer,
            ):
                text = (await answer.text())[:300]
                status = answer.status
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise Unavailable(f"{kind} {self.url}: {error or type(error).__name__}") from error
        if status in {200, 202}:
            return
        if 400 <= status < 500:
            raise Refused(f"{kind} {self.url}: {status} {text}")
        raise Unavailable(f"{kind} {self.url}: {status} {text}")

    def close(self) -> None:
        self._response.close()


async def subscribe(session: aiohttp.ClientSession, address: str, info: Mapping[str, Any]) -> Subscription:
    """Subscribes at `host:port`, following the way to the leader. Raises Unavailable, Refused (the master's words)."""
    body: dict[str, Any] = {"type": "SUBSCRIBE", "subscribe": {"framework_info": info}}
    if info.get("id"):
        body["framework_id"] = info["id"]
    url = f"http://{address}{PATH}"
    for _ in range(HOPS):
        response = await _post(session, url, msgspec.json.encode(body))
        if response.status == 200:
            return Subscription(session, url, response)
        text, status = await _refusal(response), response.status
        location = response.headers.get("Location", "")
        if status != 307 or not location:
            error = Refused if 400 <= status < 500 else Unavailable
            raise error(f"SUBSCRIBE {url}: {status} {text}")
        url = redirected(location)
    raise Unavailable(f"SUBSCRIBE {url}: sent on {HOPS} times")


async def _post(session: aiohttp.ClientSession, url: str, data: bytes) -> aiohttp.ClientResponse:
    headers = {"Content-Type": "application/json", "Accept": "application/json"}
    try:
        async with asyncio.timeout(ANSWER_S):
            return await session.post(url, data=data, headers=headers, allow_redirects=False)
    except (aiohttp.ClientError, OSError, TimeoutError) as error:
        raise Unavailable(f"SUBSCRIBE {url}: {error or type(error).__name__}") from error


async def _refusal(response: aiohttp.ClientResponse) -> str:
    try:
        async with asyncio.timeout(ANSWER_S):
            return (await response.text())[:300]
    except (aiohttp.ClientError, OSError, TimeoutError, UnicodeDecodeError):
        return ""
    finally:
        response.close()


def redirected(location: str) -> str:
    """`//h:5050/api/v1/scheduler`, a whole URL, or bare `h:5050`, as masters send it."""
    if location.startswith("//"):
        location = f"http:{location}"
    elif "://" not in location:
        location = f"http://{location}"
    return location if location.endswith(PATH) else location.rstrip("/") + PATH
