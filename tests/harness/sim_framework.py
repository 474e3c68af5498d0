"""A framework in a few lines: it speaks the v1 scheduler API over real HTTP and remembers every event."""

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Self

import aiohttp
import msgspec

from fairlead_core.recordio import Unframer
from harness.waiting import eventually

Event = Mapping[str, Any]


async def until(probe: Callable[[], Any], within_s: float = 5.0, what: str = "") -> Any:
    """The first true value of a probe that does not wait."""

    async def ask() -> Any:
        return probe()

    return await eventually(what or "it", ask, within_s=within_s, every_s=0.01)


def command_task(task_id: str, offer: Event, *, cpus: float = 0.1, ports: int = 0, **more: Any) -> dict[str, Any]:
    """A TaskInfo for an offer; `ports` takes that many of its first."""
    resources: list[dict[str, Any]] = [{"name": "cpus", "type": "SCALAR", "scalar": {"value": cpus}}]
    if ports:
        first = next(r for r in offer["resources"] if r["name"] == "ports")["ranges"]["range"][0]["begin"]
        taken = {"range": [{"begin": first, "end": first + ports - 1}]}
        resources.append({"name": "ports", "type": "RANGES", "ranges": taken})
    return {
        "name": "t",
        "task_id": {"value": task_id},
        "agent_id": offer["agent_id"],
        "command": {"value": "true"},
        "resources": resources,
        **more,
    }


class SimFramework:
    """`on_event` sees each event as it comes; updates are acknowledged unless `acknowledges` is off."""

    def __init__(self, session: aiohttp.ClientSession, url: str, **info: Any) -> None:
        self.session = session
        self.url = url
        self.info: dict[str, Any] = {"user": "nobody", "name": "sim", **info}
        self.id = ""
        self.stream_id = ""
        self.events: list[Event] = []
        self.offers: dict[str, Event] = {}
        self.acknowledges = True
        self.status = 0
        self.on_event: Callable[[Event], None] | None = None
        self._reader: asyncio.Task[None] | None = None
        self._acks: set[asyncio.Task[Any]] = set()

    async def __aenter__(self) -> Self:
        await self.subscribe()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def subscribe(self, wait_s: float = 5.0) -> None:
        self._reader = asyncio.create_task(self._read())
        await until(lambda: self.stream_id or (self._reader and self._reader.done()), wait_s)

    async def close(self) -> None:
        if self._reader is not None:
            self._reader.cancel()
            with suppress(asyncio.CancelledError):
                await self._reader
        for ack in list(self._acks):
            with suppress(aiohttp.ClientError):
                await ack
        self.stream_id = ""

    async def _read(self) -> None:
        body: dict[str, Any] = {"type": "SUBSCRIBE", "subscribe": {"framework_info": self.info}}
        if self.id:
            body["framework_id"] = {"value": self.id}
            self.info["id"] = {"value": self.id}
        with suppress(aiohttp.ClientError, OSError):
            async with self.session.post(
                self.url + "/api/v1/scheduler", json=body, timeout=aiohttp.ClientTimeout(total=None)
            ) as response:
                self.status = response.status
                if response.status != 200:
                    return
                stream_id = response.headers["Mesos-Stream-Id"]
                unframer = Unframer()
                async for chunk in response.content.iter_any():
                    for record in unframer.feed(chunk):
                        self._take(msgspec.json.decode(record), stream_id)
        self.stream_id = ""

    def _take(self, event: Event, stream_id: str) -> None:
        self.events.append(event)
        match event["type"]:
            case "SUBSCRIBED":
                self.id = event["subscribed"]["framework_id"]["value"]
                self.stream_id = stream_id
            case "OFFERS":
                self.offers.update((o["id"]["value"], o) for o in event["offers"]["offers"])
            case "RESCIND":
                self.offers.pop(event["rescind"]["offer_id"]["value"], None)
            case "UPDATE" if self.acknowledges and event["update"]["status"].get("uuid"):
                ack = asyncio.create_task(self.acknowledge(event["update"]["status"]))
                self._acks.add(ack)
                ack.add_done_callback(self._acks.discard)
        if self.on_event is not None:
            self.on_event(event)

    async def call(self, kind: str, **payload: Any) -> int:
        body = {"type": kind, "framework_id": {"value": self.id}, **payload}
        async with self.session.post(
            self.url + "/api/v1/scheduler",
            data=msgspec.json.encode(body),
            headers={"Content-Type": "application/json", "Mesos-Stream-Id": self.stream_id},
        ) as response:
            await response.read()
            return response.status

    async def acknowledge(self, status: Event) -> int:
        given = {k: status[k] for k in ("agent_id", "task_id", "uuid")}
        return await self.call("ACKNOWLEDGE", acknowledge=given)

    async def accept(self, offer: Event, *tasks: Event, refuse_s: float | None = None) -> int:
        self.offers.pop(offer["id"]["value"], None)
        accept: dict[str, Any] = {
            "offer_ids": [offer["id"]],
            "operations": [{"type": "LAUNCH", "launch": {"task_infos": tasks}}],
        }
        if refuse_s is not None:
            accept["filters"] = {"refuse_seconds": refuse_s}
        return await self.call("ACCEPT", accept=accept)

    async def decline(self, offer: Event, refuse_s: float) -> int:
        self.offers.pop(offer["id"]["value"], None)
        filters = {"refuse_seconds": refuse_s}
        return await self.call("DECLINE", decline={"offer_ids": [offer["id"]], "filters": filters})

    async def kill(self, task_id: str, **extra: Any) -> int:
        return await self.call("KILL", kill={"task_id": {"value": task_id}}, **extra)

    async def an_offer(self, agent_id: str = "", wait_s: float = 5.0) -> Event:
        """The first offer at hand (of that agent), taken from the list."""

        def found() -> Event | None:
            return next((o for o in self.offers.values() if agent_id in {"", o["agent_id"]["value"]}), None)

        offer: Event = await until(found, wait_s)
        return self.offers.pop(offer["id"]["value"])

    def states(self, task_id: str) -> list[str]:
        """Every state the task's updates told, in order."""
        return [
            e["update"]["status"]["state"]
            for e in self.events
            if e["type"] == "UPDATE" and e["update"]["status"]["task_id"]["value"] == task_id
        ]

    def of_type(self, kind: str) -> list[Event]:
        return [e for e in self.events if e["type"] == kind]

    async def reaches(self, task_id: str, state: str, wait_s: float = 5.0) -> None:
        await until(lambda: state in self.states(task_id), wait_s)
