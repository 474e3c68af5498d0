"""The agent's one stream to the leading master: registers, takes commands, sends reports; again and again."""

import asyncio
import random
from collections.abc import AsyncIterator, Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

import aiohttp
import msgspec

from fairlead_core.agent import metrics
from fairlead_core.agent.adapters.leading import Leader
from fairlead_core.agent.outbox import Outbox
from fairlead_core.agent_protocol import (
    BEAT_S,
    IDENTITY_PATH,
    REPORTS_PATH,
    STREAM_PATH,
    Beat,
    Command,
    Goodbye,
    IdentityRequest,
    Register,
    Registered,
    Report,
    Reports,
)
from fairlead_core.recordio import Unframer
from fairlead_daemon.backoff import Backoff
from fairlead_daemon.client import call, headers, make_session
from fairlead_daemon.errors import Conflict, FairleadError, Refused, Unavailable
from fairlead_daemon.logs import Log
from fairlead_daemon.web import Health
from fairlead_discovery.identities import Answer

SILENCE_S = 4.0
"""No ping for so long: the stream is dead, whatever TCP says."""
ANSWER_LIMIT_S = 3.0
IDENTITY_LIMIT_S = 8.0
GOODBYE_LIMIT_S = 1.0
RESEND_PAUSE_S = 0.2
_BACKOFF = Backoff(first_s=0.1, most_s=2.0)
_commands = msgspec.json.Decoder(Command)
log = Log("agent.master")


class Household(Protocol):
    """Who registers, and acts on commands."""

    def register(self) -> Register: ...

    def registered(self, answer: Registered) -> None:
        """Raises Refused when the leader is older than one we know."""
        ...

    def obey(self, command: Command) -> None: ...

    def marked_gone(self) -> None: ...


class _Moved(Exception):  # noqa: N818  # not an error: the leader is elsewhere
    def __init__(self, address: str) -> None:
        self.address = address


class MasterLink:
    def __init__(self, leader: Leader, household: Household, outbox: Outbox, health: Health, token_file: Path) -> None:
        self._leader = leader
        self._household = household
        self._outbox = outbox
        self._health = health
        self._token_file = token_file
        self._stream: tuple[str, Registered] | None = None
        self.connected_to = ""
        """`host:port` of the master whose stream is open."""

    async def run(self) -> None:
        """For ever: a stream to whoever leads. Cancelled, it says goodbye."""
        timeout = aiohttp.ClientTimeout(total=None, connect=ANSWER_LIMIT_S)
        attempt = 0
        async with aiohttp.ClientSession(timeout=timeout) as session:
            while True:
                self._leader.changed.clear()
                try:
                    await self._converse(session, self._leader.address)
                except _Moved as moved:
                    self._leader.set(moved.address)
                except (FairleadError, aiohttp.ClientError, OSError, TimeoutError) as error:
                    self._health.wait("master", str(error) or type(error).__name__)
                    log.warning("no master", address=self._leader.address, why=str(error) or type(error).__name__)
                    self._leader.lost()
                if self.connected_to:
                    attempt, self.connected_to = 0, ""
                metrics.CONNECTED.set(0)
                await self._rest(_BACKOFF.delay_s(attempt, chance=random.random()))  # noqa: S311  # jitter
                attempt += 1

    async def _rest(self, seconds: float) -> None:
        """A new leader ends the pause."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._leader.changed.wait()

    # --- one stream --------------------------------------------------------------------------------------------------

    async def _converse(self, session: aiohttp.ClientSession, address: str) -> None:
        if not address:
            raise Unavailable("no master leads")
        head = {**headers(self._token_file), "Content-Type": "application/json"}
        body = msgspec.json.encode(self._household.register())
        url = f"http://{address}{STREAM_PATH}"
        async with asyncio.timeout(ANSWER_LIMIT_S * 2) as patience:
            async with session.post(url, data=body, headers=head, allow_redirects=False) as response:
                await self._check(response)
                commands = _read(response)
                first = await anext(commands)
                patience.reschedule(None)
                stream = self._begin(first, address)
                self._stream = (address, stream)
                try:
                    await _first_of(
                        self._take(commands), self._send(session, address, stream), self._until_moved(address)
                    )
                except asyncio.CancelledError:
                    await self._say_goodbye(session, address, stream)
                    raise
                finally:
                    self._stream = None

    async def _check(self, response: aiohttp.ClientResponse) -> None:
        if response.status == 200:
            return
        if response.status == 307:
            raise _Moved(urlsplit(response.headers.get("Location", "")).netloc)
        text = (await response.content.read(500)).decode(errors="replace")
        if response.status == 410:
            self._household.marked_gone()
        kind = Unavailable if response.status >= 500 else Refused
        raise kind(f"{response.status} {text}")

    def _begin(self, first: Command | None, address: str) -> Registered:
        if not isinstance(first, Registered):
            raise Refused(f"the stream began with {type(first).__name__}, not with REGISTERED")
        self._household.registered(first)
        self._outbox.again()
        self.connected_to = address
        self._health.ready("master")
        metrics.CONNECTED.set(1)
        metrics.RECONNECTS.inc()
        log.info("registered", master=address, agent=first.agent_id, epoch=first.epoch)
        return first

    async def _take(self, commands: AsyncIterator[Command | None]) -> None:
        async for command in commands:
            if command is not None:
                self._household.obey(command)

    async def _until_moved(self, address: str) -> None:
        while self._leader.address == address:
            self._leader.changed.clear()
            await self._leader.changed.wait()
        raise _Moved(self._leader.address)

    # --- identities ---------------------------------------------------------------------------------------------------

    async def identity(self, framework_id: str, task_id: str, csr: str) -> Answer:
        """The certificate of a task of ours. Raises Unavailable, Conflict (we are to register again), Refused."""
        if self._stream is None:
            raise Unavailable("no master leads")
        address, stream = self._stream
        asked = IdentityRequest(
            agent_id=stream.agent_id, stream_id=stream.stream_id, framework_id=framework_id, task_id=task_id, csr=csr
        )
        async with make_session(self._token_file) as session:
            found = await call(session, "POST", f"http://{address}{IDENTITY_PATH}", body=asked, wait_s=IDENTITY_LIMIT_S)
        try:
            return msgspec.convert(found, Answer)
        except msgspec.ValidationError as error:
            raise Unavailable(f"master {address}: {error}") from error

    # --- reports -----------------------------------------------------------------------------------------------------

    async def _send(self, session: aiohttp.ClientSession, address: str, stream: Registered) -> None:
        """Each POST is a beat, with whatever is due; one at a time, so that updates stay in order."""
        loop = asyncio.get_running_loop()
        while True:
            reports = self._outbox.take(now_s=loop.time())
            try:
                await _post(session, address, stream, (Beat(), *reports), headers(self._token_file))
            except Unavailable as error:
                self._outbox.failed()
                log.warning("reports not taken, sending again", why=str(error))
                await asyncio.sleep(RESEND_PAUSE_S)
                continue
            with suppress(TimeoutError):
                async with asyncio.timeout(BEAT_S * 0.9):
                    await self._outbox.wake.wait()

    async def _say_goodbye(self, session: aiohttp.ClientSession, address: str, stream: Registered) -> None:
        with suppress(FairleadError, TimeoutError):
            async with asyncio.timeout(GOODBYE_LIMIT_S):
                await _post(session, address, stream, (Goodbye(),), headers(self._token_file))


async def _post(
    session: aiohttp.ClientSession, address: str, stream: Registered, reports: tuple[Report, ...], head: dict[str, str]
) -> None:
    """Raises Conflict when the stream is not the current one, Unavailable when the master did not take them."""
    body = msgspec.json.encode(Reports(agent_id=stream.agent_id, stream_id=stream.stream_id, reports=reports))
    try:
        async with (
            asyncio.timeout(ANSWER_LIMIT_S),
            session.post(
                f"http://{address}{REPORTS_PATH}", data=body, headers={**head, "Content-Type": "application/json"}
            ) as response,
        ):
            text = await response.text()
    except (aiohttp.ClientError, OSError, TimeoutError) as error:
        raise Unavailable(str(error) or type(error).__name__) from error
    if response.status == 409:
        raise Conflict("the master wants us to register again")
    if response.status >= 500:
        raise Unavailable(f"{response.status} {text[:200]}")
    if response.status >= 400:
        raise Refused(f"reports: {response.status} {text[:200]}")


async def _read(response: aiohttp.ClientResponse) -> AsyncIterator[Command | None]:
    """Commands as they come; None for one this version does not know. Ends with Unavailable."""
    unframer = Unframer()
    while True:
        try:
            async with asyncio.timeout(SILENCE_S):
                data = await response.content.readany()
        except TimeoutError as error:
            raise Unavailable(f"the master was silent for {SILENCE_S:g} s") from error
        except (aiohttp.ClientError, OSError) as error:
            raise Unavailable(f"the stream broke: {error or type(error).__name__}") from error
        if not data:
            raise Unavailable("the master closed the stream")
        for record in unframer.feed(data):
            yield _decoded(record)


def _decoded(record: bytes) -> Command | None:
    try:
        command: Command = _commands.decode(record)
    except msgspec.DecodeError as error:
        log.warning("command not understood", why=str(error), command=record[:200].decode(errors="replace"))
        return None
    return command


async def _first_of(*bodies: Coroutine[Any, Any, None]) -> None:
    """Runs them until the first ends; the others are cancelled and awaited, its error is raised."""
    running = [asyncio.ensure_future(body) for body in bodies]
    try:
        done, _ = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for each in running:
            each.cancel()
        await asyncio.gather(*running, return_exceptions=True)
    for each in done:
        each.result()
