"""The loop: take a snapshot, decide, tell HAProxy, read back, report. One task owns all of its state.

Its parts work on one `Desk`: `deciding` (snapshot to wanted), `reading` (HAProxy as it is, and told), `reloading`.
"""

import asyncio
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace

import msgspec

from fairlead_daemon.errors import Refused, Unavailable
from fairlead_daemon.logs import Log
from fairlead_discovery.decisions.localities import NOWHERE, Place
from fairlead_discovery.decisions.trust import Confirmed
from fairlead_discovery.records import Route
from fairlead_discovery.snapshots import Snapshot
from fairlead_lb import auditing, counting, deciding, metrics, reading, reloading, spilling, watching
from fairlead_lb.adapters.store import Store
from fairlead_lb.decisions import change as changes
from fairlead_lb.decisions import pace, picture, routes
from fairlead_lb.decisions.between import Between
from fairlead_lb.decisions.change import Nothing, Reload, RuntimeCommands, Serving, Surroundings
from fairlead_lb.decisions.mesh import MeshRules
from fairlead_lb.decisions.nearness import Standing
from fairlead_lb.decisions.parts import Parts, derive
from fairlead_lb.decisions.progress import progress
from fairlead_lb.decisions.rails import Rails
from fairlead_lb.decisions.values import Frame, Key, Picture, Slots, Structure, ports_of
from fairlead_lb.desk import Desk
from fairlead_lb.memory import Memory
from fairlead_lb.rolling import Gate
from fairlead_lb.sessions import sessions
from fairlead_lb.state import State
from fairlead_lb.supervisor import Supervisor, free_for_hosts

log = Log("lb")
ROUNDS = 4  # apply and read back; more means HAProxy does not do as told
SAVE_S = 1.0
RETRY_S = 0.2
SWAP_LOOK_S = 0.5
UNKNOWN_GENERATION = 50_000  # far from that of a HAProxy whose picture was lost: their sockets must differ


class Controller:
    """`serve_first()`, then `run()`; `offer(snapshot)` from whoever follows the registry."""

    def __init__(
        self, supervisor: Supervisor, store: Store, around: Surroundings, derived: routes.Derive, rails: Rails
    ) -> None:
        self.desk = Desk(supervisor, store, around, derived, rails)
        self.auditing = auditing.Auditing(self.desk)
        supervisor.died = self._died
        self.reported = asyncio.Event()
        self.reached: Callable[[str], None] = lambda _why: None  # told "" when HAProxy is, else why not for seconds
        self._newest: Snapshot | None = None
        self._moved = False
        self._ended = asyncio.Event()
        self._fragments = picture.Fragments()

    @property
    def state(self) -> State:
        return self.desk.state

    @property
    def supervisor(self) -> Supervisor:
        return self.desk.supervisor

    @property
    def around(self) -> Surroundings:
        return self.desk.around

    def wake(self) -> None:
        self.desk.wake.set()

    def _died(self) -> None:
        self._ended.set()
        self.wake()

    def offer(self, snapshot: Snapshot) -> None:
        """The newest snapshot counts; one that came before it was looked at is skipped."""
        if self._newest is None:
            self.desk.times.arrived = time.monotonic()
        self._newest = snapshot
        self.wake()

    def use_frame(self, frame: Frame) -> None:
        self.desk.around = replace(self.desk.around, frame=frame)
        self.wake()

    def use_pins(self, down: Collection[Key]) -> None:
        """Ports whose requests stay with their fallbacks from now on."""
        if self.desk.pinned is None or set(self.desk.pinned) != set(down):
            self.desk.pinned = frozenset(down)
            self.wake()

    def use_gate(self, gate: Gate) -> None:
        gate.granted = self.desk.reload_may_come
        self.desk.gate = gate

    def unwell(self) -> str:
        """What is wrong with HAProxy, "" when nothing is."""
        if not self.supervisor.alive:
            return "HAProxy ended"
        return f"HAProxy does not answer: {self.state.last_error}" if self.desk.times.deaf_since else ""

    def confirm(self, word: Confirmed) -> None:
        """A person's word that the registry is right: what the rails hold since before it is let go."""
        self.desk.rails.confirm(said_s=time.monotonic() - max(0.0, time.time() - word.time_s))
        self.wake()

    def stand(self, standing: Standing | None) -> None:
        """Where this balancer stands is another now, or known now."""
        if standing != self.around.standing:
            self.desk.around = replace(self.desk.around, standing=standing)
            self._moved = True
            self.wake()

    @property
    def place(self) -> Place:
        """As known so far: an agent that is away for a moment takes nobody's place away."""
        return self.around.standing.place if self.around.standing is not None else NOWHERE

    def use_callers(self, frame: Frame, callers: MeshRules) -> None:
        self.desk.around = replace(self.desk.around, frame=frame, callers=callers)
        self._moved = True
        self.wake()

    def renew(self) -> None:
        """The serving worker no longer shows our identity: another shall take its place."""
        if self.state.serving is not None:
            self.desk.worn = self.state.serving.structure.generation
        self.wake()

    def use_between(self, between: Between) -> None:
        """Machines may have come."""
        if between != self.around.between:
            self.desk.around = replace(self.desk.around, between=between)
            self._moved = True
            self.wake()

    async def slots_now(self, names: Sequence[str]) -> Mapping[str, Slots]:
        return await reading.slots_now(self.desk, names)

    # --- start ---------------------------------------------------------------------------------------------------

    async def serve_first(self) -> None:
        """HAProxy serves when this returns: adopted, or started as it was, or empty. Raises BadSettings."""
        last = self.desk.store.picture()
        self.desk.memory = Memory(self.desk.store.noted())
        counting.begin(self.desk)
        self.desk.good = dict(_derived(self.desk.store.good()))
        self.desk.good_policies = self.desk.store.good_policies()
        if await self._adopted(last):
            return
        bindable = last is not None and not self.around.forbidden.among(ports_of(last.structure))
        if last is not None and bindable and await self.supervisor.start_from_disk():
            await reading.read(self.desk, last.structure)
            return
        empty = picture.first_picture(self.around)
        free_for_hosts(empty.structure)
        await self._start(self._bindable(last or empty))

    async def _adopted(self, last: Picture | None) -> bool:
        """False also when it ends while we look at it."""
        if not await self.supervisor.adopt():
            return False
        try:
            if last is not None:
                serves = (await self._serving_as(last)).structure
                self.desk.verdicts.learn(serves)
                await reading.read(self.desk, serves)
        except Unavailable as error:
            log.warning("haproxy ended while it was adopted", reason=str(error))
            return False
        return True

    async def _serving_as(self, last: Picture) -> Picture:
        """The picture HAProxy serves by: a predecessor that died between file and reload left it one behind."""
        if await self.supervisor.serves(last):
            return last
        ahead = msgspec.structs.replace(
            last, structure=msgspec.structs.replace(last.structure, generation=last.structure.generation + 1)
        )
        await self.supervisor.swap(ahead)
        return ahead

    async def _start(self, wanted: Picture) -> None:
        started = await self.supervisor.start(wanted)
        self.desk.verdicts.learn(started.structure)
        await reading.read(self.desk, started.structure)

    def _bindable(self, wanted: Picture) -> Picture:
        """On the ports that nobody else holds now."""
        self.desk.probe(None, wanted.maps)
        return picture.rebound(wanted, self.around)

    # --- loop ----------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        try:
            await self._loop()
        finally:
            await reloading.end(self.desk)
            await counting.end(self.desk)

    async def _loop(self) -> None:
        while True:
            wait_s = self._until_next()
            try:
                async with asyncio.timeout(wait_s):
                    await self.desk.wake.wait()
            except TimeoutError:
                pass
            self.desk.wake.clear()
            begun = time.monotonic()
            try:
                await self._cycle()
                if self.desk.attempt is None:  # else it is not known yet whether the master hears
                    self.desk.times.deaf_since = 0.0
                    self.reached("")
                await self._rest_when_pressed(begun)
            except (Unavailable, Refused) as error:
                self._failed(error)
                await self._replace_when_deaf()
                await self._rest(RETRY_S)
                self.wake()

    async def _rest_when_pressed(self, begun: float) -> None:
        """So that changes that come without end are taken together; one that comes alone finds nobody at rest."""
        times = self.desk.times
        if times.decided < begun:
            return
        before, times.decided_before = times.decided_before, times.decided
        if times.decided - before < pace.PRESSED_S:
            await self._rest(pace.rest_s(times.applied - begun))

    async def _rest(self, most_s: float) -> None:
        """A HAProxy that has ended is started at once."""
        if self.supervisor.alive:
            self._ended.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(most_s):
                await self._ended.wait()

    def _failed(self, error: Exception) -> None:
        """HAProxy died, is reloading, or does not answer: read all of it again next time."""
        self.state.last_error = str(error)
        self.desk.look_at_all()
        if not self.desk.times.deaf_since:
            log.warning("haproxy is not reached", reason=str(error))
            self.desk.times.deaf_since = time.monotonic()

    async def _replace_when_deaf(self) -> None:
        """A master that lives and does not answer would freeze us: another takes over from its worker."""
        serving, now = self.state.serving, time.monotonic()
        if serving is None or not self.supervisor.alive or now - self.desk.times.deaf_since < pace.DEAF_S:
            return
        if reloading.swapping(self.desk):
            return
        self.reached(self.state.last_error)
        if not await self.supervisor.deaf(serving.structure):
            return
        try:
            started = await self.supervisor.replace(picture.successor(serving), serving.structure)
            await reading.read(self.desk, started.structure)
        except (Unavailable, Refused) as error:
            self.state.last_error = str(error)
        self.desk.times.deaf_since = now  # the next try comes as much later

    async def _cycle(self) -> None:
        await reloading.go_on(self.desk)
        swapping = reloading.swapping(self.desk)
        if not self.supervisor.alive and not swapping:
            await self._revive()
        if self._newest is not None:
            snapshot, self._newest = self._newest, None
            self.desk.times.decided = time.monotonic()
            deciding.decide(self.desk, snapshot)
        deciding.pin(self.desk)
        deciding.look_again(self.desk)
        if swapping:
            await self._meanwhile()
        else:
            await self._turn()

    async def _meanwhile(self) -> None:
        """HAProxy is being reloaded: the worker that still serves is told what comes, and that does not count as applied
        before the next one is told too, and read back. It may end while it is told. Slots go through quarantine as ever:
        a service that is rescaled again and again would have none left.
        """
        with suppress(Unavailable):
            await reading.look_at_drains(self.desk, swapping=True)
            await self._apply()
        self._report(applied=False)

    async def _turn(self) -> None:
        if self.state.serving is None:
            await self._adopt_unknown()
        await reading.look_at_old_workers(self.desk)
        await reading.look_at_drains(self.desk)
        if self.desk.times.deaf_since and self.state.serving is not None:
            await reading.read(self.desk, await self.supervisor.served(self.state.serving.structure))
        judged, spilled = await watching.look(self.desk), await spilling.look(self.desk)
        if (judged or spilled or self._moved) and self.state.snapshot is not None and self.state.wanted.revision >= 0:
            deciding.want(self.desk, self.state.snapshot)
            deciding.pin(self.desk)
        self._moved = False
        found = await self._apply()
        self.desk.times.applied = time.monotonic()
        self._report(applied=not isinstance(found, Reload) and self.state.serving is not None and self.desk.live_seen)
        if isinstance(found, Reload):
            reloading.reload_when_due(self.desk, found)
        else:
            reloading.clear_up(self.desk)
        self._save_when_due()
        if await self.auditing.turn():  # after what has changed
            deciding.lend(self.desk)
            await reading.look_for_panic(self.desk)

    async def _revive(self) -> None:
        """With today's servers. What lies on disk is seldom older: then nothing is rendered before HAProxy starts."""
        self._ended.clear()
        serving = self.state.serving
        if serving is not None:
            if self.desk.unsaved:
                self.desk.store.write_live(*self._fragments.current(serving))
                self.desk.unsaved = False
            if await self.supervisor.start_from_disk():
                await reading.read(self.desk, await self.supervisor.served(serving.structure))
                return
        last = picture.current_picture(serving) if serving is not None else self.desk.store.picture()
        last = last or Picture(structure=Structure(frame=self.around.frame))
        try:
            await self._start(last)
        except Refused as error:  # a port of it was taken meanwhile
            log.warning("haproxy does not start as it was", reason=str(error))
            await self._start(self._bindable(last))

    async def _adopt_unknown(self) -> None:
        """A running HAProxy whose configuration we do not know: reload ours over it, once we have one."""
        if self.desk.live_seen:
            self.desk.times.audited = time.monotonic()
            structure = Structure(frame=self.around.frame, generation=UNKNOWN_GENERATION)
            self.state.serving = Serving(structure=structure)

    async def _apply(self) -> Nothing | RuntimeCommands | Reload:
        """Tells and reads back until HAProxy routes as wanted; what is left is quarantine, or a reload."""
        desk = self.desk
        if desk.state.serving is None or desk.state.wanted.revision < 0:
            return Nothing()
        objections: list[str] = []
        for _ in range(ROUNDS):
            plans = changes.plans(desk.state.serving, desk.state.wanted, desk.unplanned)
            found = changes.change(desk.state.serving, desk.state.wanted, desk.around, plans, desk.steady)
            desk.unplanned = changes.unsettled(plans)
            commands = () if isinstance(found, Nothing) else found.routing_commands
            if not commands:
                return found
            objections = await reading.perform(desk, commands)
        raise Unavailable(f"haproxy does not do as told: {'; '.join(objections)[:300] or 'no objection'}")

    # --- reporting -----------------------------------------------------------------------------------------------

    def _report(self, *, applied: bool) -> None:
        """The revision counts as applied once HAProxy was read back to route by it; until then the last one stands."""
        desk = self.desk
        last = self.state.progress
        revision = self.state.wanted.revision if applied else last.applied_revision if last is not None else -1
        if revision < 0 or self.state.snapshot is None:
            return
        if applied:
            self.state.pending = ()
            desk.good, desk.good_policies = self.state.wanted.parts, self.state.wanted.kept
            if desk.times.arrived:
                metrics.APPLY.observe(time.monotonic() - desk.times.arrived)
                desk.times.arrived = 0.0
        open_sessions = sessions(self.state, desk.draining(), self.supervisor.old_used, desk.memory)
        now = progress(revision, self.state.snapshot.leaving, open_sessions, uncounted=self.supervisor.orphaned)
        if now != last:
            self.state.progress = now
            self.reported.set()
        metrics.measure(self.state, now, len(self.supervisor.processes.old))

    def _save_when_due(self) -> None:
        """So that a fresh start, also one without us, comes up with today's servers."""
        serving, desk = self.state.serving, self.desk
        begun = time.monotonic()
        if desk.unsaved and serving is not None and begun > desk.times.save_not_before:
            desk.store.write_live(*self._fragments.current(serving))
            ended = time.monotonic()
            desk.times.save_not_before = ended + pace.save_pause_s(ended - begun)
            desk.unsaved = False
        if time.monotonic() - desk.times.good_kept > SAVE_S:
            desk.times.good_kept = time.monotonic()
            desk.store.keep_good({service: parts.route for service, parts in desk.good.items()})
            desk.store.keep_good_policies(dict(desk.good_policies))

    def _until_next(self) -> float:
        times, now = self.desk.times, time.monotonic()
        swapping = reloading.swapping(self.desk)
        drain_s = times.drains_looked + pace.poll_s(now - times.drains_since) - now
        drains_s = [drain_s] if reading.drains(self.desk, swapping=swapping) else []
        if swapping:
            return max(0.001, min([SWAP_LOOK_S, *drains_s]))
        waits = [
            *drains_s,
            auditing.AUDIT_S if not self.desk.to_audit else 0.0,
            *times.waits(
                now,
                old_workers=bool(self.supervisor.processes.old),
                pending=self.state.pending if self.desk.attempt is None else (),
            ),
        ]
        if (rails_s := self.desk.rails.due_s(now_s=now)) is not None and not self.state.frozen:
            waits.append(rails_s)
        if (spill_s := spilling.due_in_s(self.desk)) is not None:
            waits.append(spill_s)
        if (watch_s := watching.due_in_s(self.desk)) is not None:
            waits.append(watch_s)
        if self.desk.unsaved:
            waits.append(times.save_not_before - now)
        return max(0.001, min(waits))


def _derived(good: Mapping[str, Route]) -> Iterator[tuple[str, Parts]]:
    """Routes that HAProxy took in an earlier life, without servers: those come from the snapshots."""
    for service, route in good.items():
        try:
            yield service, derive(service, route, {})
        except Refused:
            continue  # by another version's grammar
