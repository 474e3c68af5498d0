"""Carries out what decisions/sessions.py decides, for one ZooKeeper client: one session after another."""

import asyncio
import random
from collections.abc import Coroutine
from typing import Protocol

from fairlead_daemon.backoff import Backoff
from fairlead_daemon.errors import FairleadError, Refused
from fairlead_daemon.logs import Log
from fairlead_discovery import metrics
from fairlead_discovery.adapters.zookeeper import Client, Link, Watch
from fairlead_discovery.decisions.sessions import Action, Event, State, arrival, turn
from fairlead_discovery.store import Cell, Connection, Importing

log = Log("discovery")
BACKOFF = Backoff(first_s=0.1, most_s=2.0)
AGAIN_S = 2.0
"""Credentials that are refused are tried again so often: somebody may mend them."""
UNDER_WAY_S = 30.0
"""An import that takes longer is called unfinished: it may have been killed, and is then to be run again."""
_GIVEN_UP = {Event.REFUSED: "credentials refused", Event.ENDED: "client broke down, another takes its place"}


class Base(Protocol):
    """What a session needs of its store."""

    client: Client

    async def refresh_cluster(self, watch: Watch | None = None) -> None:
        """Raises Refused when the registry is not for us."""
        ...

    async def look_again(self, watch: Watch) -> None:
        """Raises Refused when it is not for us any more."""
        ...

    def hide(self, why: str = "") -> None:
        """What was read is stale from now on. `why`: it answers, and is closed to us."""
        ...

    def forget_folders(self) -> None: ...


class Session:
    """`connection` is what everything else goes by: leaders, announcements, readers, requests."""

    def __init__(self, base: Base, place: str) -> None:
        self.connection = Cell(Connection(in_sight=False))
        self._base = base
        self._place = place
        self._state = State.FAR
        self._known = ""
        """The session that may live."""
        self._seen = False
        self._checking: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    def link_changed(self, link: Link) -> None:
        """Called by the client, on the event loop, in the order in which things happened."""
        if link.event is not None:
            self.take(link.event)
            return
        event = arrival(self._known, link.session)
        before, self._known = self._known, link.session
        self.take(event, before=before)

    def take(self, event: Event, *, before: str = "") -> None:
        step = turn(self._state, event)
        if step.state is not self._state:
            log.debug("session", what=event.name.lower(), state=step.state.name.lower(), place=self._place)
        self._state = step.state
        if event in _GIVEN_UP:
            log.error(_GIVEN_UP[event], place=self._place)
        for action in step.actions:
            self._do(action, session=before or self._known)
        if self._state is State.FAR:
            self._known = ""

    async def close(self) -> None:
        self.take(Event.CLOSED)
        tasks = tuple(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _do(self, action: Action, *, session: str) -> None:
        match action:
            case Action.HALT:
                assert self._checking is not None
                self._checking.cancel()
            case Action.HIDE:
                metrics.in_sight.set(0)
                self.connection.set(Connection(in_sight=False, session=self.connection.value.session))
                self._base.hide()
            case Action.FORGET:
                metrics.sessions_lost.inc()
                log.warning("session lost", place=self._place, session=session)
                self.connection.set(Connection(in_sight=False))
            case Action.AGAIN:
                self._spawn(self._begin_again())
            case Action.CHECK:
                self._base.forget_folders()
                self._checking = self._spawn(self._check())
            case Action.SHOW:
                self._show()

    def _show(self) -> None:
        if self._seen:
            metrics.reconnects.inc()
        self._seen = True
        metrics.in_sight.set(1)
        self.connection.set(Connection(in_sight=True, session=self._known))

    async def _check(self) -> None:
        """Several may wait here at once after an election: they come back one by one."""
        attempt = 0
        start_s = asyncio.get_running_loop().time()
        while True:
            try:
                await self._base.refresh_cluster(self._record_changed)
                break
            except Importing as error:
                waited_s = asyncio.get_running_loop().time() - start_s
                self._tell_importing(error, attempt=attempt, overdue=waited_s > UNDER_WAY_S)
            except Exception as error:  # noqa: BLE001  # else we would wait for ever, unnoticed
                why = str(error) if isinstance(error, FairleadError) else repr(error)
                log.warning("registry not usable", place=self._place, why=why)
                self._base.hide(why)
            await asyncio.sleep(BACKOFF.delay_s(attempt, chance=random.random()))  # noqa: S311  # jitter
            attempt += 1
        self.take(Event.CHECKED)

    def _tell_importing(self, error: Importing, *, attempt: int, overdue: bool) -> None:
        """Who goes along with a copy often comes before its end."""
        self._base.hide(str(error))
        if overdue:
            log.warning("registry not usable", place=self._place, why=str(error))
        elif not attempt:
            log.info("a copy or an import into the registry is under way, its end is waited for", place=self._place)

    def _record_changed(self) -> None:
        """A watch of the cluster's record: moved, closed for an import, another schema, or only rebased."""
        if self._state is State.LIVE:
            self._spawn(self._look_again())

    async def _look_again(self) -> None:
        try:
            await self._base.look_again(self._record_changed)
        except Importing:  # told where its end is waited for
            self.take(Event.BARRED)
        except Refused as error:
            log.warning("registry not usable any more", place=self._place, why=str(error))
            self.take(Event.BARRED)
        except Exception as error:  # noqa: BLE001  # else the record would be watched no more
            log.debug("cluster's record not read", place=self._place, why=repr(error))
            self._spawn(self._look_later())
        else:
            self.connection.touch()

    async def _look_later(self) -> None:
        await asyncio.sleep(BACKOFF.delay_s(0, chance=random.random()))  # noqa: S311  # jitter
        self._record_changed()

    async def _begin_again(self) -> None:
        while True:
            await asyncio.sleep(AGAIN_S)
            try:
                await self._base.client.begin_again()
            except Exception as error:  # noqa: BLE001  # as when a key is just being replaced; else we would wait for ever
                log.warning("no other client", place=self._place, why=repr(error))
            else:
                return

    def _spawn(self, body: Coroutine[None, None, None]) -> "asyncio.Task[None]":
        task = asyncio.get_running_loop().create_task(body)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task
