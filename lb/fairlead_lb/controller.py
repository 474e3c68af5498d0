"""The loop: take a snapshot, decide, tell HAProxy, read back, report. One task owns all of its state."""

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

import msgspec

from fairlead_daemon.errors import Refused, Unavailable
from fairlead_daemon.logs import Log
from fairlead_discovery.snapshots import Snapshot, Trust
from fairlead_lb import metrics
from fairlead_lb.adapters import ports
from fairlead_lb.adapters.store import Store
from fairlead_lb.decisions import change as changes
from fairlead_lb.decisions import pace, picture, render, routes, spares
from fairlead_lb.decisions import slots as slot_plans
from fairlead_lb.decisions.change import Nothing, Reload, RuntimeCommands, Serving, Surroundings
from fairlead_lb.decisions.commands import Command, MapEntry, MapWhole
from fairlead_lb.decisions.parts import Parts
from fairlead_lb.decisions.progress import progress
from fairlead_lb.decisions.values import Frame, Maps, Picture, Slot, Slots, Structure, ports_of
from fairlead_lb.memory import Memory
from fairlead_lb.sessions import sessions
from fairlead_lb.state import OLD_WORKERS_S, State, Times
from fairlead_lb.supervisor import Supervisor, free_for_hosts

log = Log("lb")
ROUNDS = 4  # apply and read back; more means HAProxy does not do as told
SAVE_S = 1.0
AUDIT_S = 10.0
RETRY_S = 0.2
REFUSED_RELOAD_S = 5.0
UNKNOWN_GENERATION = 50_000  # far from that of a HAProxy whose picture was lost: their sockets must differ


class Controller:
    """`serve_first()`, then `run()`; `offer(snapshot)` from whoever follows the registry."""

    def __init__(self, supervisor: Supervisor, store: Store, around: Surroundings, derived: routes.Derive) -> None:
        self.state = State()
        self.supervisor = supervisor
        supervisor.died = self.wake
        self.around = around
        self.reported = asyncio.Event()
        self.reached: Callable[[str], None] = lambda _why: None  # told "" when HAProxy is, else why not for seconds
        self._store = store
        self._derived = derived
        self._wake = asyncio.Event()
        self._times = Times()
        self._settled: changes.Settled = {}
        self._good: Mapping[str, Parts] = {}
        self._memory = Memory({})
        self._newest: Snapshot | None = None
        self._live_seen = False
        self._fragments = picture.Fragments()
        self._unsaved = False

    def wake(self) -> None:
        self._wake.set()

    def offer(self, snapshot: Snapshot) -> None:
        """The newest snapshot counts; one that came before it was looked at is skipped."""
        if self._newest is None:
            self._times.arrived = time.monotonic()
        self._newest = snapshot
        self._wake.set()

    def use_frame(self, frame: Frame) -> None:
        self.around = replace(self.around, frame=frame)
        self.wake()

    # --- start ---------------------------------------------------------------------------------------------------

    async def serve_first(self) -> None:
        """HAProxy serves when this returns: adopted, or started as it was, or empty. Raises BadSettings."""
        last = self._store.picture()
        self._memory = Memory(self._store.noted())
        if await self.supervisor.adopt():
            if last is not None:
                await self._read((await self._serving_as(last)).structure)
            return
        bindable = last is not None and not self.around.forbidden.among(ports_of(last.structure))
        if last is not None and bindable and await self.supervisor.start_from_disk():
            await self._read(last.structure)
            return
        empty = picture.first_picture(self.around)
        free_for_hosts(empty.structure)
        await self._start(self._bindable(last or empty))

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
        await self._read(started.structure)

    def _bindable(self, wanted: Picture) -> Picture:
        """On the ports that nobody else holds now."""
        self._note_taken(ports.taken(self.around.frame.host, sorted(self._asked(wanted.maps))))
        return picture.rebound(wanted, self.around)

    def _asked(self, maps: Maps) -> set[int]:
        return picture.ports_to_bind(maps, replace(self.around, taken_ports=frozenset()))

    def _note_taken(self, taken: Mapping[int, str]) -> None:
        if set(taken) - set(self.state.taken):
            log.warning("service ports held by other processes", ports=" ".join(map(str, sorted(taken)))[:200])
        self.state.taken = taken
        self.around = replace(self.around, taken_ports=frozenset(taken))
        metrics.TAKEN_PORTS.set(len(taken))

    # --- loop ----------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        while True:
            wait_s = self._until_next()
            try:
                async with asyncio.timeout(wait_s):
                    await self._wake.wait()
            except TimeoutError:
                pass
            self._wake.clear()
            try:
                await self._cycle()
                self._times.deaf_since = 0.0
                self.reached("")
            except (Unavailable, Refused) as error:
                self._failed(error)
                await self._replace_when_deaf()
                await asyncio.sleep(RETRY_S)
                self._wake.set()

    def _failed(self, error: Exception) -> None:
        """HAProxy died, is reloading, or does not answer: read all of it again next time."""
        self.state.last_error = str(error)
        self._settled = {}
        if not self._times.deaf_since:
            log.warning("haproxy is not reached", reason=str(error))
            self._times.deaf_since = time.monotonic()

    async def _replace_when_deaf(self) -> None:
        """A master that lives and does not answer would freeze us: another takes over from its worker."""
        serving, now = self.state.serving, time.monotonic()
        if serving is None or not self.supervisor.alive or now - self._times.deaf_since < pace.DEAF_S:
            return
        self.reached(self.state.last_error)
        if not await self.supervisor.deaf(serving.structure):
            return
        try:
            started = await self.supervisor.replace(picture.successor(serving), serving.structure)
            await self._read(started.structure)
        except (Unavailable, Refused) as error:
            self.state.last_error = str(error)
        self._times.deaf_since = now  # the next try comes as much later

    async def _cycle(self) -> None:
        if not self.supervisor.alive:
            await self._revive()
        self._decide()
        if self.state.serving is None:
            await self._adopt_unknown()
        await self._look_at_old_workers()
        await self._look_at_drains()
        if time.monotonic() - self._times.audited > AUDIT_S or self._times.deaf_since:
            await self._audit()
        found = await self._apply()
        if isinstance(found, Reload):
            found = await self._reload_when_due(found)
        else:
            await self._clear_up()
        self._report(found)
        self._save_when_due()

    async def _revive(self) -> None:
        serving = self.state.serving
        last = picture.current_picture(serving) if serving is not None else self._store.picture()
        last = last or Picture(structure=Structure(frame=self.around.frame))
        try:
            await self._start(last)
        except Refused as error:  # a port of it was taken meanwhile
            log.warning("haproxy does not start as it was", reason=str(error))
            await self._start(self._bindable(last))

    async def _adopt_unknown(self) -> None:
        """A running HAProxy whose configuration we do not know: reload ours over it, once we have one."""
        if self._live_seen:
            self._times.audited = time.monotonic()
            structure = Structure(frame=self.around.frame, generation=UNKNOWN_GENERATION)
            self.state.serving = Serving(structure=structure)

    # --- deciding ------------------------------------------------------------------------------------------------

    def _decide(self) -> None:
        """Takes the newest snapshot, if it may be believed: what is stale or held changes nothing that serves."""
        snapshot, self._newest = self._newest, None
        if snapshot is None:
            return
        self.state.snapshot, self.state.snapshot_at = snapshot, time.monotonic()
        serving = self.state.serving
        nothing_serves = serving is not None and not serving.structure.owners
        live = snapshot.trust is Trust.LIVE
        self.state.frozen = "" if live else f"{snapshot.trust}: {snapshot.why or 'the registry is out of sight'}"
        if not live and (self._live_seen or not nothing_serves):
            return
        self._live_seen = self._live_seen or live
        self._want(snapshot)

    def _want(self, snapshot: Snapshot) -> None:
        serving = self.state.serving
        rules = routes.Rules(
            forbidden=self.around.forbidden,
            names_in_use=self._names_in_use(),
            refused_shapes=self.state.refused_shapes,
            good=self._good,
            spares=spares.free(serving.structure) if serving else {},
        )
        last = self.state.wanted
        if not last.names and serving is not None:
            last = replace(last, names=dict(serving.structure.owners), maps=serving.maps)
        self.state.wanted = routes.wanted(snapshot, last, rules, self._derived)
        metrics.REFUSED.set(len(self.state.wanted.refused))
        asked = self._asked(self.state.wanted.maps)
        self._note_taken({port: why for port, why in self.state.taken.items() if port in asked})
        self._lend()
        self._recognise()

    def _names_in_use(self) -> set[str]:
        """Backends that a running worker, old or new, serves somebody by."""
        owners = self.state.serving.structure.owners if self.state.serving else ()
        return {*owners, *self.supervisor.names_of_old}

    def _lend(self) -> None:
        """Spares have their owners from here on, and are free again once they are empty."""
        serving = self.state.serving
        if serving is not None and self.state.wanted.revision >= 0:
            self.state.serving = replace(serving, structure=changes.lent(serving, self.state.wanted))

    def _recognise(self) -> None:
        """Slots of an adopted HAProxy whose task nobody noted are known by their address from now on."""
        serving = self.state.serving
        for name, backend in self.state.wanted.backends.items() if serving else ():
            slots = serving.slots.get(name, {}) if serving else {}
            if any(not s.task and not s.empty for s in slots.values()):
                for place, server in slot_plans.recognised(backend, slots).items():
                    self._memory.put(name, place, (server.host, server.port, server.task))
                self._replace_slots(name, {p: self._memory.named(name, p, s) for p, s in slots.items()})

    # --- reading -------------------------------------------------------------------------------------------------

    async def _read(self, structure: Structure) -> None:
        self._settled = {}
        self.state.serving = await self.supervisor.read(structure, self._memory.task_of)
        self._times.audited = time.monotonic()
        self._recognise()

    async def _audit(self) -> None:
        """Someone else may have changed HAProxy by its socket, or a command was lost: what differs is applied again."""
        before = self.state.serving
        if before is None:
            return
        await self._read(before.structure)
        now = self.state.serving
        assert now is not None
        places = slot_plans.places
        changed = sum(places(before.slots[n]) != places(slots) for n, slots in now.slots.items() if n in before.slots)
        if changed or now.maps != before.maps:
            metrics.REPAIRS.inc(changed + (now.maps != before.maps))
            log.warning("haproxy was changed by someone else", backends=changed, maps=now.maps != before.maps)
        metrics.HAPROXY.read(await self.supervisor.show_stat(now.structure))
        metrics.count_slots(slot for slots in now.slots.values() for slot in slots.values())
        self._store.trim_log()

    async def _look_at_old_workers(self) -> None:
        now = time.monotonic()
        serving = self.state.serving
        if serving is not None and self.supervisor.processes.old and now - self._times.old_looked > OLD_WORKERS_S:
            self._times.old_looked = now
            await self.supervisor.read_old(serving.structure)

    async def slots_now(self) -> Mapping[str, Slots]:
        """As HAProxy says at this moment, health included; as last read while it does not answer."""
        serving = self.state.serving
        if serving is None:
            return {}
        try:
            return await self.supervisor.read_slots(serving.structure, self._memory.task_of)
        except Unavailable:
            return serving.slots

    def _draining(self) -> list[str]:
        slots = self.state.serving.slots if self.state.serving is not None else {}
        return [name for name, there in slots.items() if any(slot_plans.leaves(slot) for slot in there.values())]

    async def _look_at_drains(self) -> None:
        names, now = self._draining(), time.monotonic()
        if not names:
            self._times.drains_since = now
            return
        if now - self._times.drains_looked < pace.poll_s(now - self._times.drains_since):
            return
        self._times.drains_looked = now
        assert self.state.serving is not None
        await self.supervisor.read_old(self.state.serving.structure)
        await self._read_backends(names)
        await self._tidy(names)

    async def _tidy(self, names: Iterable[str]) -> None:
        """One step of quarantine a look: the next wants connections counted after it."""
        serving, wanted = self.state.serving, self.state.wanted
        assert serving is not None
        only = replace(serving, slots={n: serving.slots[n] for n in names})
        commands = [c for p in changes.plans(only, wanted, {}).values() for c in p.tidies]
        if commands:
            await self._perform(commands)

    async def _read_backends(self, names: Iterable[str]) -> None:
        serving = self.state.serving
        assert serving is not None
        for name, slots in (
            await self.supervisor.read_backends(serving.structure, sorted(names), self._memory.task_of)
        ).items():
            self._replace_slots(name, slots)

    def _replace_slots(self, name: str, slots: Mapping[str, Slot]) -> None:
        serving = self.state.serving
        assert serving is not None
        self.state.serving = replace(serving, slots={**serving.slots, name: slots})

    # --- acting --------------------------------------------------------------------------------------------------

    async def _apply(self) -> Nothing | RuntimeCommands | Reload:
        """Tells and reads back until HAProxy routes as wanted; what is left is quarantine, or a reload."""
        if self.state.serving is None or self.state.wanted.revision < 0:
            return Nothing()
        objections: list[str] = []
        for _ in range(ROUNDS):
            plans = changes.plans(self.state.serving, self.state.wanted, self._settled)
            found = changes.change(self.state.serving, self.state.wanted, self.around, plans)
            self._settled = changes.settle(self.state.serving, self.state.wanted, plans, self._settled)
            commands = () if isinstance(found, Nothing) else found.routing_commands
            if not commands:
                return found
            objections = await self._perform(commands)
        raise Unavailable(f"haproxy does not do as told: {'; '.join(objections)[:300] or 'no objection'}")

    async def _perform(self, commands: Iterable[Command]) -> list[str]:
        serving = self.state.serving
        assert serving is not None
        ordered = list(commands)
        self._memory.placed(ordered)
        objections = await self.supervisor.perform(serving.structure, ordered)
        self._unsaved = True
        await self._read_backends({c.backend for c in ordered if not isinstance(c, MapEntry | MapWhole)})
        if maps := sorted({c.map for c in ordered if isinstance(c, MapEntry | MapWhole)}):
            await self._read_maps(maps)
        return objections

    async def _read_maps(self, names: list[str]) -> None:
        serving = self.state.serving
        assert serving is not None
        found = await self.supervisor.read_maps(serving.structure, names)
        self.state.serving = replace(serving, maps=msgspec.structs.replace(serving.maps, **found))

    async def _reload_when_due(self, found: Reload) -> Nothing | RuntimeCommands | Reload:
        self.state.pending = found.reasons
        if time.monotonic() < self._times.reload_not_before:
            return found
        serving = self.state.serving
        assert serving is not None
        self._probe(serving.structure)
        wanted = routes.brought_home(self.state.wanted, self._names_in_use())
        candidate = picture.wanted_picture(serving, wanted, self.around)
        try:
            candidate = await self.supervisor.try_out(candidate)
        except Refused as error:
            await self._blame(candidate, error)
            return found
        try:
            await self.supervisor.swap(candidate)
        except Refused as error:
            self._not_reloaded(error)
            return found
        self.state.former = {**(self.state.former if self.supervisor.processes.old else {}), **serving.structure.owners}
        self.state.wanted = wanted
        await self._reloaded(candidate, found)
        return await self._apply()

    async def _clear_up(self) -> None:
        """Gives up what removed services held, some seconds later; what is wanted is served meanwhile."""
        serving, now = self.state.serving, time.monotonic()
        wants = serving is not None and self.state.wanted.revision >= 0
        left = changes.leftovers(serving.structure, self.state.wanted, self.around) if serving and wants else ()
        if not left:
            self._times.leftovers_since = 0.0
        elif not self._times.leftovers_since:
            self._times.leftovers_since = now
        elif now >= self._times.leftovers_due():
            await self._reload_when_due(Reload(reasons=left))

    async def _reloaded(self, candidate: Picture, found: Reload) -> None:
        self.state.reloads += 1
        self.state.pending = ()
        self.state.last_error = ""
        metrics.RELOADS.labels("done").inc()
        log.info("structure changed", reasons="; ".join(found.reasons)[:300])
        self._memory.rendered(candidate)
        self._times.reload_not_before = time.monotonic() + pace.reload_pause_s(len(self.supervisor.processes.old))
        self._unsaved = False
        await self._read(candidate.structure)

    def _probe(self, running: Structure) -> None:
        """Ports HAProxy does not hold yet."""
        held = set(ports_of(running)) if running.frame.host == self.around.frame.host else set()
        self._note_taken(ports.taken(self.around.frame.host, sorted(self._asked(self.state.wanted.maps) - held)))

    async def _blame(self, candidate: Picture, error: Refused) -> None:
        """Finds the tenants whose fragments HAProxy refuses by themselves; their last good ones stay."""
        metrics.RELOADS.labels("refused").inc()
        self._not_reloaded(error)
        if await self._refused(render.config_of(candidate.structure, [])):
            return  # it is nobody's route
        running = self.state.serving.structure if self.state.serving else candidate.structure
        new = [n for n in candidate.structure.owners if running.shapes.get(n) != candidate.structure.shapes[n]]
        faulty = {
            name: why
            for name in new
            if (why := await self._refused(render.config_of(candidate.structure, [render.backend(candidate, name)])))
        }
        for name, why in (faulty or dict.fromkeys(new, str(error))).items():
            owner, shape = candidate.structure.owners[name], candidate.structure.shapes[name]
            self.state.refused_shapes[owner, shape] = why
            log.warning("route refused by haproxy", service=owner.service, reason=why)
        if new and self.state.snapshot is not None:
            self._want(self.state.snapshot)
            self._times.reload_not_before = 0.0
            self._wake.set()

    async def _refused(self, text: str) -> str:
        """HAProxy's words against it, "" when it takes it."""
        try:
            await self.supervisor.check(text)
        except Refused as error:
            return str(error)
        return ""

    def _not_reloaded(self, error: Refused) -> None:
        self.state.last_error = str(error)
        self._times.reload_not_before = time.monotonic() + REFUSED_RELOAD_S
        log.error("reload refused; haproxy serves as before", reason=str(error))

    # --- reporting -----------------------------------------------------------------------------------------------

    def _report(self, found: Nothing | RuntimeCommands | Reload) -> None:
        """The revision counts as applied once HAProxy was read back to route by it; until then the last one stands."""
        applied = not isinstance(found, Reload) and self.state.serving is not None and self._live_seen
        last = self.state.progress
        revision = self.state.wanted.revision if applied else last.applied_revision if last is not None else -1
        if revision < 0 or self.state.snapshot is None:
            return
        if applied:
            self.state.pending = ()
            self._good = self.state.wanted.parts
            if self._times.arrived:
                metrics.APPLY.observe(time.monotonic() - self._times.arrived)
                self._times.arrived = 0.0
        open_sessions = sessions(self.state, self.supervisor.old_used, self._memory)
        now = progress(revision, self.state.snapshot.leaving, open_sessions, uncounted=self.supervisor.orphaned)
        if now != last:
            self.state.progress = now
            self.reported.set()
        metrics.measure(self.state, now, len(self.supervisor.processes.old))

    def _save_when_due(self) -> None:
        """So that a fresh start, also one without us, comes up with today's servers."""
        serving = self.state.serving
        if self._unsaved and serving is not None and time.monotonic() - self._times.saved > SAVE_S:
            self._store.write_live(picture.current_picture(serving), self._fragments.config(serving))
            self._times.saved = time.monotonic()
            self._unsaved = False

    def _until_next(self) -> float:
        times, now = self._times, time.monotonic()
        waits = [
            AUDIT_S,
            *times.waits(now, old_workers=bool(self.supervisor.processes.old), pending=self.state.pending),
        ]
        if self._draining():
            waits.append(times.drains_looked + pace.poll_s(now - times.drains_since) - now)
        if self._unsaved:
            waits.append(times.saved + SAVE_S - now)
        return max(0.001, min(waits))
