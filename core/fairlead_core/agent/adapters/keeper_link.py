"""The agent's side of the keeper: finds the one that lives, starts one if none does, asks it, hears of exits."""

import asyncio
import contextlib
import itertools
import os
import signal
import socket
import struct
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from fairlead_core.agent.keeper.protocol import (
    LINE_LIMIT_BYTES,
    Answer,
    AnyReply,
    AnyRequest,
    End,
    Ended,
    Forget,
    Held,
    Launch,
    List,
    Spawn,
)
from fairlead_core.agent.keeper.records import Folder
from fairlead_core.agent.keeper.remains import end_remains
from fairlead_daemon.errors import Refused, Unavailable
from fairlead_daemon.logs import Log
from fairlead_daemon.processes import Identity, alive, command_line, identify, neighbours, send_signal

KEEPER_MODULE = "fairlead_core.agent.keeper"
START_LIMIT_S = 10.0
ANSWER_LIMIT_S = 15.0  # a start may take the keeper 10 s (its START_LIMIT_S)
STOP_LIMIT_S = 10.0
_POLL_S = 0.005
_PEER = struct.Struct("3i")
_KEPT_VARIABLES = ("PATH", "PYTHONPATH", "LANG", "LC_ALL", "TZ", "PYTHONDONTWRITEBYTECODE")
_replies = msgspec.json.Decoder(AnyReply)
log = Log("agent.keeper")


class KeeperLink:
    """One connection to one living keeper. After `gone` is set every request raises Unavailable."""

    def __init__(self, identity: Identity, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.identity = identity
        self.gone = asyncio.Event()
        self._reader = reader
        self._writer = writer
        self._numbers = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[Answer]] = {}

    async def spawn(self, launch: Launch) -> Held:
        """The record of the task, also when it was spawned before. Raises Refused when it cannot start, in words."""
        answer = await self._ask(Spawn(id=next(self._numbers), launch=launch))
        return answer.held[0]

    async def end(self, key: str, *, grace_s: float) -> None:
        await self._ask(End(id=next(self._numbers), key=key, grace_s=grace_s))

    async def forget(self, key: str) -> None:
        await self._ask(Forget(id=next(self._numbers), key=key))

    async def held(self) -> dict[str, Held]:
        answer = await self._ask(List(id=next(self._numbers)))
        return {held.key: held for held in answer.held}

    async def _ask(self, request: AnyRequest) -> Answer:
        if self.gone.is_set():
            raise Unavailable("the keeper is gone")
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting[request.id] = future
        try:
            self._writer.write(msgspec.json.encode(request) + b"\n")
            async with asyncio.timeout(ANSWER_LIMIT_S):
                await self._writer.drain()
                answer = await future
        except (OSError, TimeoutError) as error:
            raise Unavailable(f"the keeper did not answer: {error or type(error).__name__}") from error
        finally:
            self._waiting.pop(request.id, None)
        if answer.again:
            raise Unavailable(answer.error)
        if answer.error:
            raise Refused(answer.error)
        return answer

    async def listen(self, ended: Callable[[Held], None]) -> None:
        """Reads until the keeper is gone; calls `ended` for each exit."""
        try:
            while line := await self._reader.readline():
                reply = _replies.decode(line)
                if isinstance(reply, Ended):
                    ended(reply.held)
                elif (future := self._waiting.get(reply.id)) is not None and not future.done():
                    future.set_result(reply)
        except (OSError, msgspec.DecodeError, ValueError) as error:
            log.warning("connection lost", why=str(error))
        finally:
            self.close()

    def close(self) -> None:
        self.gone.set()
        self._writer.close()
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(Unavailable("the keeper died"))


async def connect(folder: Folder, instance: str) -> KeeperLink:
    """To the living keeper of this folder, started if there is none. Raises Unavailable with the reason."""
    if (link := await _to_living(folder)) is not None:
        return link
    await _start(folder, instance)
    end = time.monotonic() + START_LIMIT_S
    while time.monotonic() < end:
        if (link := await _to_living(folder)) is not None:
            return link
        await asyncio.sleep(_POLL_S)
    raise Unavailable(f"the keeper did not start: {_last_line(folder.log)}")


async def _to_living(folder: Folder) -> KeeperLink | None:
    identity = folder.identity()
    if identity is None or not alive(identity):
        return None
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _connect_short(connection, folder)
        pid, uid, _ = _PEER.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size))
        if pid != identity.pid or uid not in {os.getuid(), 0}:
            raise ConnectionRefusedError(f"process {pid} of user {uid} answers for the keeper")
        connection.setblocking(False)
        reader, writer = await asyncio.open_unix_connection(sock=connection, limit=LINE_LIMIT_BYTES * 16)
    except OSError:
        connection.close()
        return None
    return KeeperLink(identity, reader, writer)


def _connect_short(connection: socket.socket, folder: Folder) -> None:
    """Through the folder's descriptor: a socket's path may have 107 bytes, a data directory more."""
    handle = os.open(folder.path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        connection.connect(f"/proc/self/fd/{handle}/{folder.socket.name}")
    finally:
        os.close(handle)


async def _start(folder: Folder, instance: str) -> None:
    """It leaves us at once; its log is a file, so that it holds nothing of ours."""
    folder.prepare()
    environment = {name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ}
    with folder.log.open("ab") as output:
        try:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-P",
                "-m",
                KEEPER_MODULE,
                str(folder.path),
                instance,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=environment,
                start_new_session=True,
            )
            async with asyncio.timeout(START_LIMIT_S):
                await process.wait()
        except (OSError, TimeoutError) as error:
            raise Unavailable(f"the keeper cannot be started: {error or type(error).__name__}") from error


def _last_line(file: Path) -> str:
    with contextlib.suppress(OSError):
        lines = file.read_text(errors="replace").splitlines()
        return lines[-1] if lines else "its log is empty"
    return "it has no log"


async def end_what_is_left(folder: Folder, instance: str) -> bool:
    """After a keeper's death, when no keeper can be started: the agent ends its tasks itself."""
    return await asyncio.to_thread(lambda: end_remains(folder.load().values(), instance))


def stop_keeper(folder: Path, *, limit_s: float = STOP_LIMIT_S) -> bool:
    """Ends the keeper in `folder` with all its tasks (TERM, KILL after 3 s); True when it is gone. Blocks.

    For `fairlead up` and tests: end the agent first, or it starts another. Found by its command line, as one that is
    just starting has written nothing down yet.
    """
    end = time.monotonic() + limit_s
    asked: set[Identity] = set()
    while found := set(_keepers_of(folder)):
        if time.monotonic() > end:
            return False
        for identity in found - asked:
            send_signal(identity, signal.SIGTERM)
        asked |= found
        time.sleep(0.02)
    return True


def _keepers_of(folder: Path) -> Iterator[Identity]:
    wanted = [KEEPER_MODULE.encode(), os.fsencode(folder.absolute())]
    for pid in neighbours(folder):
        words = command_line(pid)
        if wanted in ([a, b] for a, b in itertools.pairwise(words)) and (identity := identify(pid)) is not None:
            yield identity
