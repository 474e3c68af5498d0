"""Tells secondaries of new serials: the newest serial of each zone, sent again until it is heard."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace

from fairlead_daemon.logs import Log
from fairlead_dns.decisions import notify, tsig, wire
from fairlead_dns.decisions.compose import RRset
from fairlead_dns.transfer_settings import Secondary

log = Log("dns")
CALM_S = 0.25  # at most four a second of each zone to each secondary, whatever changes


@dataclass(slots=True)
class NotifyCounts:
    sent: int = 0
    heard: int = 0
    given_up: int = 0


@dataclass(frozen=True, slots=True)
class _Telling:
    """One secondary is being told of one zone. `begun_s` by the loop's clock."""

    task: "asyncio.Task[None]"
    begun_s: float


async def _at_once() -> None:
    pass


@dataclass(slots=True)
class Notifier:
    """`soa` gives a zone's SOA of this moment, None when there is none; `source_ip` is where secondaries see us come from."""

    secondaries: tuple[Secondary, ...]
    soa: Callable[[bytes], RRset | None]
    source_ip: str = ""
    keys: Mapping[bytes, tsig.Key] = field(default_factory=dict)
    """The keys of now by name, when they are others than the secondaries' own."""
    true: Callable[[], Awaitable[object]] = _at_once
    """Awaited before each NOTIFY: from then on nobody answers with a SOA of before, for which no secondary fetches."""
    counts: NotifyCounts = field(default_factory=NotifyCounts)
    _pending: dict[Secondary, dict[bytes, None]] = field(default_factory=dict)
    _wake: dict[Secondary, asyncio.Event] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for secondary in self.secondaries:
            self._pending[secondary] = {}
            self._wake[secondary] = asyncio.Event()

    def changed(self, apex: bytes) -> None:
        """A zone has a new serial."""
        for secondary in self.secondaries:
            self._pending[secondary][apex] = None
            self._wake[secondary].set()

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            for secondary in self.secondaries:
                group.create_task(self._tell(secondary))

    async def _tell(self, secondary: Secondary) -> None:
        """Each zone by itself: one that the secondary does not know, or is deaf for, keeps no other one waiting."""
        pending, wake = self._pending[secondary], self._wake[secondary]
        telling: dict[bytes, _Telling] = {}
        async with asyncio.TaskGroup() as group:
            while True:
                await wake.wait()
                wake.clear()
                now_s = asyncio.get_running_loop().time()
                for apex in tuple(pending):
                    before = telling.get(apex)
                    if before is not None and not before.task.done():
                        if now_s - before.begun_s < notify.RETRIES_S[0]:
                            continue  # its reply may be on the way
                        before.task.cancel()
                    del pending[apex]
                    telling[apex] = _Telling(group.create_task(self._tell_of(secondary, apex)), now_s)
                await asyncio.sleep(CALM_S)
                if pending:
                    wake.set()

    async def _tell_of(self, secondary: Secondary, apex: bytes) -> None:
        """Until it is heard; the newest serial each time."""
        for wait_s in notify.RETRIES_S:
            soa = self.soa(apex)
            if soa is None:
                return
            await self.true()
            self.counts.sent += 1
            code = await self._ask(secondary, soa, wait_s)
            if code is not None:
                self.counts.heard += 1
                if code:
                    name = wire.RCODE_NAMES.get(code, code)
                    log.warning(
                        "a secondary refuses NOTIFY", secondary=str(secondary.place), zone=wire.text(apex), code=name
                    )
                return
        self.counts.given_up += 1
        log.warning("a secondary does not hear NOTIFY", secondary=str(secondary.place), zone=wire.text(apex))

    async def _ask(self, secondary: Secondary, soa: RRset, wait_s: float) -> int | None:
        if secondary.key is not None:
            secondary = replace(secondary, key=self.keys.get(secondary.key.name, secondary.key))
        request = notify.message(random.randrange(65536), soa)  # noqa: S311  # what protects is the connected socket, and TSIG
        if secondary.key is not None:
            request = tsig.sign_request(request, secondary.key, now_s=int(time.time()))
        try:
            async with asyncio.timeout(wait_s):
                return await _exchange(secondary, request, self.source_ip)
        except TimeoutError:
            return None
        except OSError:  # nobody listens, or no way there: wait as for silence
            await asyncio.sleep(wait_s)
            return None


class _Replies(asyncio.DatagramProtocol):
    def __init__(self, secondary: Secondary, request: bytes) -> None:
        self.code: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._secondary = secondary
        self._request = request

    def datagram_received(self, data: bytes, addr: object) -> None:  # noqa: ARG002  # the socket is connected
        code = notify.reply_code(self._request, data)
        if code is None or self.code.done() or not self._proved(data):
            return
        self.code.set_result(code)

    def error_received(self, exc: Exception) -> None:
        if not self.code.done():
            self.code.set_exception(exc)

    def _proved(self, data: bytes) -> bool:
        """A refusal may be unsigned: its sender may not know our key."""
        key = self._secondary.key
        if key is None or data[3] & 15:
            return True
        asked = tsig.find(self._request)
        assert asked is not None
        return tsig.proves_reply(data, key, asked.mac, now_s=int(time.time()))


async def _exchange(secondary: Secondary, request: bytes, source_ip: str) -> int:
    place = secondary.place
    ours = (source_ip, 0) if source_ip and (":" in source_ip) == (":" in place.ip) else None
    transport, protocol = await asyncio.get_running_loop().create_datagram_endpoint(
        lambda: _Replies(secondary, request), remote_addr=(place.ip, place.port), local_addr=ours
    )
    try:
        transport.sendto(request)
        return await protocol.code
    finally:
        transport.close()
