"""Workers that outlived their name server: kept in a file, sent away by the next one, and how they see that it stands.

Three ways, for a worker that answers on with what it knew must never be forgotten: the file names all that may live until
they have ended; the next name server ends them; and who has lost its parent looks into the file for a later one's mark.
"""

import asyncio
import signal
from collections.abc import AsyncIterator, Collection, Iterable
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from secrets import token_hex

import msgspec

from fairlead_daemon.files import replace_file
from fairlead_daemon.logs import Log
from fairlead_daemon.processes import Identity, alive, command_line, identify, send_signal
from fairlead_dns.adapters.regular import READ_S, Aside, read_regular

log = Log("dns")
MODULE = "fairlead_dns.worker"
WRITE_S = 5.0
PATIENCE_S = 10.0
"""Who has not ended by then is killed: one that hangs still takes datagrams."""
CLOSE_S = 3.0
LOOK_S = 1.0


class Left(msgspec.Struct, frozen=True):
    """The file. `stands`: the mark of the name server that took over last; `workers`: all that may still run."""

    stands: str = ""
    workers: tuple[Identity, ...] = ()


def read(file: Path) -> Left | None:
    """None when there is nothing that can be read."""
    try:
        return msgspec.json.decode(read_regular(file), type=Left)
    except (OSError, msgspec.DecodeError):
        return None


async def replaced(file: Path, known: Collection[str]) -> None:
    """Until a name server stands that is none of `known`: for a worker that has lost its own."""
    aside = Aside()
    while True:
        try:
            left = await aside.run(partial(read, file), READ_S)
        except TimeoutError:
            left = None
        if left is not None and left.stands not in known:
            return
        await asyncio.sleep(LOOK_S)


class Outlived:
    """Owned by the daemon's loop. `gone`: no worker of a name server before this one answers."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.mark = token_hex(8)
        self.gone = asyncio.Event()
        self._found = read(file)
        self.stood = self._stands = "" if self._found is None else self._found.stands
        self._before = () if self._found is None else tuple(filter(_is_worker, self._found.workers))
        self._own: tuple[Identity, ...] = ()
        self._writing: asyncio.Future[None] | None = None
        if not self._before:
            self.gone.set()

    async def keep(self, own: Iterable[int]) -> None:
        """These pids are our workers: to be awaited before one of them answers."""
        self._own = tuple(found for pid in own if (found := identify(pid)))
        await self._write()

    async def run(self, loaded: asyncio.Event) -> None:
        """Of a name server without workers: for ever."""
        await loaded.wait()
        if self._found is not None:
            await self.stand()

    async def stand(self) -> None:
        """We answer from here on. Returns when no worker of before does."""
        self._stands = self.mark
        await self._write()  # with those that are still to end: should we die now, the next one ends them
        await self._end(PATIENCE_S)
        await self._write()
        self.gone.set()

    async def close(self) -> None:
        """To be called when our own have ended."""
        if not self._before and not self._own:
            return
        self._stands, self._own = self.mark, ()
        await self._write()
        await self._end(CLOSE_S)
        await self._write()

    async def _end(self, within_s: float) -> None:
        for each in self._before:
            if send_signal(each, signal.SIGTERM):
                log.info("a worker of the name server before is sent away", pid=each.pid)
        with suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                while any(map(alive, self._before)):  # noqa: ASYNC110  # others' children: nobody tells us of their end
                    await asyncio.sleep(0.05)
        for each in self._before:
            if send_signal(each, signal.SIGKILL):
                log.warning("a worker of the name server before did not end, and is killed", pid=each.pid)
        self._before = ()

    async def _write(self) -> None:
        """One after the other, each what is true when its turn comes. Not to be written is no reason to answer nothing."""
        try:
            async with asyncio.timeout(WRITE_S):
                while self._writing is not None and not self._writing.done():
                    await asyncio.wait({self._writing})
                data = msgspec.json.encode(Left(self._stands, (*self._before, *self._own)))
                self._writing = writing = asyncio.ensure_future(asyncio.to_thread(replace_file, self.file, data))
                await asyncio.wait({writing})
            writing.result()
        except (OSError, TimeoutError) as error:
            log.warning("worker processes not noted", file=self.file, why=str(error) or "takes too long")


def _is_worker(each: Identity) -> bool:
    return alive(each) and MODULE.encode() in command_line(each.pid)


@asynccontextmanager
async def outliving(file: Path) -> AsyncIterator[Outlived]:
    """On the way out those of before end, but for a bug's sake."""
    made = Outlived(file)
    try:
        yield made
    except Exception:  # a bug: whoever answers goes on
        raise
    except BaseException:
        await made.close()
        raise
    else:
        await made.close()
