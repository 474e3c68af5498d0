"""Whether tasks get their own /etc/resolv.conf here, and the file they get.

The file is written in place: running tasks have this very inode mounted, so they follow the machine's changes too.
"""

import asyncio
import os
import random
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from fairlead_core.agent import metrics
from fairlead_core.agent.decisions.resolving import bypass, is_answer, own_text, query
from fairlead_daemon.files import replace_file
from fairlead_daemon.logs import Log

EVERY_S = 5.0
SEARCH_EVERY_S = 0.3
ANSWER_LIMIT_S = 1.0
FIRST_LIMIT_S = 3.0
"""How long the first launches wait for a name server that has never answered here."""
MACHINE_FILE = Path("/etc/resolv.conf")
NSSWITCH = Path("/etc/nsswitch.conf")
NSCD_SOCKET = Path("/var/run/nscd/socket")
DNS_PORT = 53
log = Log("agent.resolving")


class Resolver:
    """`file()` is what a launch mounts. Once the address has answered, it is used also while it is silent for a while:
    the machine's own servers stand behind it.
    """

    def __init__(self, folder: Path, address: str) -> None:
        self._address = address
        self._file = folder / "resolv.conf"
        self._answered = folder / "dns_answered"
        self._decided = asyncio.Event()
        self.why_not = "setting dns_address is empty" if not address else "the name server has not answered yet"
        """ "" when tasks get their own."""

    async def file(self) -> str:
        """Path of the file to mount, "" for none. Waits a bounded time at the agent's start."""
        if not self._decided.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout(FIRST_LIMIT_S):
                    await self._decided.wait()
        return "" if self.why_not else str(self._file)

    async def run(self) -> None:
        """For ever: asks the address, keeps the file up to date, says when something changes."""
        if not self._address or (hindrance := await self._hindrance()):
            self._say(hindrance if self._address else self.why_not)
            self._decided.set()
            return
        loop = asyncio.get_running_loop()
        end_s = loop.time() + FIRST_LIMIT_S
        while True:
            self._say(await self._judge())
            if not self.why_not or loop.time() > end_s:
                self._decided.set()
            await asyncio.sleep(SEARCH_EVERY_S if self.why_not else EVERY_S)

    async def _hindrance(self) -> str:
        """What cannot change while we run."""
        if os.geteuid() != 0:
            return "the agent is not root"
        try:
            self._write()
        except OSError as error:
            return f"{self._file}: {error.strerror}"
        return await self._mount_trial()

    async def _mount_trial(self) -> str:
        """Tries it once with the system's commands, in a namespace that ends with them."""
        mount = ("mount", "--bind", str(self._file), str(MACHINE_FILE))
        try:
            process = await asyncio.create_subprocess_exec(
                *("unshare", "--mount", "--propagation", "private", *mount),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.PIPE,
            )
            async with asyncio.timeout(10):
                _, errors = await process.communicate()
        except (OSError, TimeoutError) as error:
            return f"mount namespaces do not work: {error or 'no answer'}"
        return f"mount namespaces do not work: {errors.decode().strip()}" if process.returncode else ""

    async def _judge(self) -> str:
        hindrance = bypass(_text(NSSWITCH), name_cache_runs=_exists(NSCD_SOCKET))
        if hindrance:
            return hindrance
        with suppress(OSError):
            self._write()
        if await answers(self._address):
            if self._known() != self._address:
                replace_file(self._answered, self._address.encode())
            return ""
        return "" if self._known() == self._address else f"no DNS server has answered at {self._address} yet"

    def _known(self) -> str:
        return _text(self._answered)

    def _write(self) -> None:
        text = own_text(_text(MACHINE_FILE), address=self._address).encode()
        handle = os.open(self._file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            if os.pread(handle, len(text) + 1, 0) != text:
                os.pwrite(handle, text, 0)
                os.ftruncate(handle, len(text))
        finally:
            os.close(handle)

    def _say(self, why_not: str) -> None:
        if why_not != self.why_not or not self._decided.is_set():
            if why_not:
                log.info("tasks keep the machine's resolv.conf", why=why_not)
            else:
                log.info("tasks get their own resolv.conf", nameserver=self._address)
        self.why_not = why_not
        metrics.RESOLVING.set(0 if why_not else 1)


def _exists(file: Path) -> bool:
    return file.exists()


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


class _Asking(asyncio.DatagramProtocol):
    def __init__(self, fits: Callable[[bytes], bool]) -> None:
        self.answered: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._fits = fits

    def datagram_received(self, data: bytes, _address: object) -> None:
        if not self.answered.done() and self._fits(data):
            self.answered.set_result(True)

    def error_received(self, _error: Exception) -> None:
        if not self.answered.done():
            self.answered.set_result(False)


async def answers(address: str, *, port: int = DNS_PORT, limit_s: float = ANSWER_LIMIT_S) -> bool:
    """Whether a DNS server is there: any reply to a query will do."""
    number = random.getrandbits(16)
    try:
        async with asyncio.timeout(limit_s):
            transport, asking = await asyncio.get_running_loop().create_datagram_endpoint(
                lambda: _Asking(lambda data: is_answer(data, query_id=number)), remote_addr=(address, port)
            )
            try:
                transport.sendto(query(number))
                return await asking.answered
            finally:
                transport.close()
    except (OSError, TimeoutError):
        return False
