"""Brings every daemon up, replaces a predecessor's one at a time, starts again what dies."""

import asyncio
import os
import random
import signal
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import aiohttp
import msgspec

from fairlead_console.addresses import Addresses
from fairlead_console.decisions import toml
from fairlead_console.decisions.supervision import Deaths, takeover
from fairlead_console.decisions.wanted import Plan, Wanted
from fairlead_console.up import children, record
from fairlead_console.up.children import Child
from fairlead_console.up.ending import end_tasks
from fairlead_console.up.ready import wait_ready
from fairlead_console.up.retiring import retire
from fairlead_console.up.screen import Screen
from fairlead_daemon.client import make_session
from fairlead_daemon.errors import Unavailable
from fairlead_daemon.files import replace_file
from fairlead_daemon.processes import Identity, identify

READY_S = 30.0
"""After that the next step begins and says so: a daemon that waits for a peer is no reason to stop the others."""


class Supervisor:
    """`bring_up` runs until it is cancelled; `processes` then says what is to be ended."""

    def __init__(self, plan: Plan, data_dir: Path, screen: Screen) -> None:
        self._plan = plan
        self._addresses = msgspec.convert(plan.addresses, Addresses)
        self._data_dir = data_dir
        self._screen = screen
        self.processes: dict[str, Identity] = {}

    def begin(self) -> Sequence[tuple[str, Identity]]:
        """Records us; returns what a predecessor left running."""
        mine = identify(os.getpid())
        assert mine is not None, "we run"
        left = record.running(self._data_dir)
        self.processes = {**dict(left), "up": mine}
        self._record()
        return left

    def finished(self) -> None:
        """Nothing of us runs any more."""
        self.processes = {}
        self._record()

    async def bring_up(self, left: Sequence[tuple[str, Identity]], then: Callable[[], Awaitable[None]]) -> None:
        """Starts what is wanted, in order; awaits `then`; from there on keeps everything running."""
        order = takeover([w.name for w in self._plan.daemons], [name for name, _ in left])
        async with make_session() as session, asyncio.TaskGroup() as group:
            await self._retire([(name, identity) for name, identity in left if name in order.end])
            waits = []
            for wanted in self._plan.daemons:
                old = [(name, identity) for name, identity in left if name == wanted.name]
                await self._end(old)
                group.create_task(self._keep(wanted, self._start(wanted)))
                ready = self._report_ready(session, wanted, "replaced" if old else "ready")
                if order.replace or wanted.kind == "registry":  # one at a time, so that the others carry on
                    await ready
                else:
                    waits.append(ready)
            await asyncio.gather(*waits)
            await then()

    async def _report_ready(self, session: aiohttp.ClientSession, wanted: Wanted, word: str) -> None:
        try:
            await wait_ready(session, wanted.ready_url, within_s=READY_S)
            self._screen.step(wanted.name, f"{word}  {wanted.ready_url.removesuffix('/ready')}")
        except Unavailable as error:
            self._screen.step(wanted.name, f"not ready: {error}{self._last_words(wanted.name)}", style="bad")

    async def _end(self, processes: Sequence[tuple[str, Identity]]) -> None:
        for name, identity in processes:
            if not await children.end(identity):
                self._screen.step(name, "did not end when asked, killed", style="note")
            self._forget(name)

    async def _retire(self, unwanted: Sequence[tuple[str, Identity]]) -> None:
        """What is wanted no more ends before the rest is replaced: its ports may be theirs then.

        Tasks of agents there are no more end with them, or nobody would ever report or end them.
        """
        for name, identity in unwanted:
            if name.startswith("agent-"):
                await retire(name, identity, self._addresses, self._screen)
        await self._end(unwanted)
        wanted = {w.name for w in self._plan.daemons}
        for folder in sorted(self._data_dir.glob("agent-*")):
            if folder.name not in wanted:
                await end_tasks(folder, self._screen)

    def _start(self, wanted: Wanted) -> Child:
        self._configure(wanted)
        child = children.start(wanted.name, wanted.kind, data_dir=self._data_dir)
        self.processes[wanted.name] = child.identity
        self._record()
        return child

    async def _keep(self, wanted: Wanted, child: Child) -> None:
        """Starts it again whenever it dies: at once the first time, then with back-off."""
        deaths = Deaths()
        while True:
            begin_s = time.monotonic()
            code = await child.ended()
            self._forget(wanted.name)
            deaths = deaths.after(ran_s=time.monotonic() - begin_s)
            wait_s = deaths.wait_s(code=code, chance=random.random())  # noqa: S311  # jitter, no secret
            when = f"in {wait_s:.1f} s" if wait_s else "at once"
            self._screen.step(
                wanted.name, f"{_how(code)}, starting it again {when}{self._last_words(wanted.name)}", style="bad"
            )
            await asyncio.sleep(wait_s)
            child = self._start(wanted)

    def _configure(self, wanted: Wanted) -> None:
        text = toml.dump(wanted.settings, comment="Written by `fairlead up` at every start; change its own settings.")
        replace_file(self._data_dir / "etc" / f"{wanted.name}.toml", text.encode())

    def _last_words(self, name: str) -> str:
        line = children.last_line(self._data_dir, name)
        return f"; {self._data_dir}/log/{name}.log ends: {line}" if line else ""

    def _forget(self, name: str) -> None:
        self.processes.pop(name, None)
        self._record()

    def _record(self) -> None:
        """For people and tests; a full disk must not end what it only describes."""
        try:
            record.write(self._data_dir, self.processes)
        except OSError as error:
            self._screen.step("record", f"{self._data_dir}/{record.FILE}: {error.strerror}", style="bad")


def _how(code: int) -> str:
    return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
