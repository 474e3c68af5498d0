"""One HAProxy, kept serving: found or started, reloaded, asked and told, started afresh when it dies."""

import contextlib
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping, Sequence

import msgspec

from fairlead_daemon.errors import BadSettings, Refused, Unavailable
from fairlead_daemon.logs import Log
from fairlead_daemon.processes import Identity, identify, send_signal
from fairlead_lb import metrics
from fairlead_lb.adapters import ports, process, socket_cli
from fairlead_lb.adapters.store import Running, Store
from fairlead_lb.decisions import answers, limits, render, versions
from fairlead_lb.decisions.answers import Processes
from fairlead_lb.decisions.change import Serving
from fairlead_lb.decisions.commands import Command, MapEntry, MapWhole, ServerCommand, SetAddress
from fairlead_lb.decisions.values import MAP_NAMES, Maps, Picture, Slot, Slots, Structure
from fairlead_lb.decisions.versions import Program

log = Log("lb.haproxy")
LEFTOVER_S = 0.2
FEW_STATS = 20  # each looks for its name among all
Known = Callable[[str, str, Slot], str]
"""The task in a slot (backend, slot name, slot), "" when nobody knows."""


class Supervisor:
    """Owned by the one controller task; nothing here runs twice at a time."""

    def __init__(self, store: Store, program: str, *, old_workers: int = 0) -> None:
        self._store = store
        self._program = program
        self._most_old = old_workers
        self.version: Program | None = None
        """What HAProxy says of itself; None before `probe`."""
        self.died: Callable[[], None] = lambda: None
        """Called when HAProxy has ended."""
        self._child: subprocess.Popen[bytes] | None = None
        self._unwatch: Callable[[], None] = lambda: None
        self.processes = Processes(master=0)
        self.alive = False
        self.old_used: dict[tuple[str, str], int] = {}
        """Connections that old workers still have, by (backend, slot)."""
        self.names_of_old: frozenset[str] = frozenset()
        self._tcp_names: set[str] = set()
        self._handed_over: set[int] = set()
        self._orphans: list[Identity] = []
        self._deaf_masters: list[Identity] = []
        self._silent: set[int] = set()
        """Old workers that the master did not reach; see `_ask_old`."""

    async def probe(self, *, tls: bool) -> None:
        """Looks what HAProxy can. Raises BadSettings: none, too old, or built without what the settings ask for."""
        self.version = found = await process.probe(self._program)
        if lacks := versions.needed(found, tls=tls):
            raise BadSettings(f"haproxy: {self._program} {found.version} lacks {'; '.join(lacks)}")
        log.info("haproxy's version", version=found.version)

    # --- life ----------------------------------------------------------------------------------------------------

    async def adopt(self) -> bool:
        """Takes over a running HAProxy. False when there is none."""
        running = self._store.running()
        found = await process.find_again(self._store.master_socket, running.master if running else None)
        if found is None:
            return False
        self._take(found)
        log.info("adopted haproxy", master=found.master, worker=found.worker, old=len(found.old))
        return True

    async def start(self, picture: Picture) -> Picture:
        """Starts HAProxy on the picture; returns it as it was started. Raises Refused, Unavailable."""
        begin = time.monotonic()
        await self._end_leftovers()
        picture = within_limits(picture)
        self._store.write_live(picture, render.config(picture))
        await self._spawn(picture.structure)
        log.info("started haproxy", master=self.processes.master, took_ms=round((time.monotonic() - begin) * 1000))
        return picture

    async def start_from_disk(self) -> bool:
        """As it was last, at once: before anything else is known. False when that is not possible."""
        structure = self._store.structure()
        if not self._store.config.exists() or structure is None:
            return False
        begin = time.monotonic()
        await self._end_leftovers()
        try:
            await self._spawn(structure)
        except (Refused, Unavailable) as error:
            log.warning("haproxy does not start as it was", reason=str(error))
            return False
        log.info("started haproxy as it was", took_ms=round((time.monotonic() - begin) * 1000))
        return True

    async def check(self, text: str) -> None:
        """Raises Refused with HAProxy's words."""
        metrics.CHECKS.inc()
        self._store.write_candidate(text)
        await process.check(self._program, self._store.candidate)

    async def try_out(self, picture: Picture) -> None:
        """HAProxy's check takes it, or raises Refused: nothing has changed then."""
        self._store.write_maps(picture.maps)
        try:
            await self.check(render.config(picture))
        except Refused:
            self._back()
            raise

    async def swap(self, picture: Picture) -> None:
        """Replaces the live file and reloads. Raises Refused: HAProxy then serves as before."""
        begin = time.monotonic()
        before = self._store.picture()
        self._store.write_live(picture, render.config(picture))
        try:
            socket = self._worker_socket(picture.structure)
            now = await process.reload(self._store.master_socket, self.processes, socket, self._store.log)
        except Refused:
            if before is not None:
                self._store.write_live(before, render.config(before))
            raise
        self._take(now)
        log.info("reloaded", worker=now.worker, old=len(now.old), took_ms=round((time.monotonic() - begin) * 1000))

    def _back(self) -> None:
        """Maps lie where the running configuration looks for them at its next start: not ahead of it."""
        if (before := self._store.picture()) is not None:
            self._store.write_maps(before.maps)

    async def serves(self, picture: Picture) -> bool:
        """Whether the worker is of this picture: a predecessor may have died between file and reload."""
        said = await socket_cli.ask_old(self._store.master_socket, self.processes.worker, ["show cli sockets"])
        return self._worker_socket(picture.structure) in said

    async def replace(self, picture: Picture, running: Structure) -> Picture:
        """A new worker for a HAProxy that does not answer any more. The master is told by a signal to reload: that frees
        one of 2.6 whose ten connections are used up. One that does not do so gets a successor, which takes over the
        listeners of the old worker; that finishes its sessions. When the worker does not answer either, both are
        ended first. Raises Refused, Unavailable.
        """
        begin = time.monotonic()
        old = self.processes
        running = await self.served(running)
        picture = within_limits(picture)
        self._store.write_live(picture, render.config(picture))
        socket = self._worker_socket(running)
        if await process.about(socket):
            if await self._freed(old, picture):
                return picture
            self._orphans += [i for pid in (old.worker, *old.old) if (i := identify(pid)) is not None]
            after = process.Predecessor(socket, (old.worker, *old.old))
        else:
            await self._end_all(old)
            after = None
        self._unwatch()
        if (master := identify(old.master)) is not None:
            self._deaf_masters.append(master)
            send_signal(master, signal.SIGSTOP)  # it must not do later, beside the next one, what we told it
        await self._spawn(picture.structure, after)
        log.warning("replaced haproxy's master, which did not answer", master=self.processes.master, was=old.master,
                    took_ms=round((time.monotonic() - begin) * 1000))  # fmt: skip
        return picture

    async def _freed(self, old: Processes, picture: Picture) -> bool:
        """Whether the master reloads at a signal, which needs none of its connections."""
        begin = time.monotonic()
        socket = self._worker_socket(picture.structure)
        try:
            now = await process.reload_by_signal(self._store.master_socket, old, socket, self._store.log)
        except Unavailable:
            return False
        self._take(now)
        log.warning("freed haproxy's master, which did not answer, by a reload", master=now.master, worker=now.worker,
                    took_ms=round((time.monotonic() - begin) * 1000))  # fmt: skip
        return True

    async def served(self, structure: Structure) -> Structure:
        """What the serving worker has: `structure`, or the newest file's when a reload to it went through unseen."""
        live = self._store.picture()
        if live is None or live.structure.generation == structure.generation:
            return structure
        if not await process.about(self._worker_socket(live.structure)):
            return structure
        with contextlib.suppress(Unavailable):
            self._take(await process.show(self._store.master_socket))
        return live.structure

    async def deaf(self, structure: Structure) -> bool:
        """Whether master or worker does not answer at all."""
        try:
            await process.show(self._store.master_socket)
        except Unavailable:
            return True
        return not await process.about(self._worker_socket(structure))

    async def _end_all(self, processes: Processes) -> None:
        for pid in (processes.master, processes.worker, *processes.old):
            if (identity := identify(pid)) is not None:
                send_signal(identity, signal.SIGKILL)
                await process.wait_gone(identity, within_s=1)

    @property
    def orphaned(self) -> bool:
        """Whether workers that no master tells of finish sessions: nobody can say whose. Ends masters of none."""
        self._orphans = [i for i in self._orphans if identify(i.pid) == i]
        if not self._orphans:
            for master in self._deaf_masters:
                send_signal(master, signal.SIGKILL)  # with its last worker gone nothing depends on it
            self._deaf_masters = []
        return bool(self._orphans)

    async def stop(self, *, grace_s: float = 5.0) -> None:
        """Ends HAProxy itself, for good: only at a clean end of everything."""
        self._unwatch()
        running = self._store.running()
        for identity in (running.master, *running.workers) if running else ():
            await process.end(identity, grace_s=grace_s)
        self._store.forget_running()
        self.alive = False

    def leave(self) -> None:
        """Stops watching; HAProxy serves on."""
        self._unwatch()

    async def _spawn(self, structure: Structure, after: process.Predecessor | None = None) -> None:
        self._child = process.start(
            self._program, self._store.config, self._store.master_socket, self._store.log, after=after
        )
        if (started := identify(self._child.pid)) is not None:
            self._store.write_running(Running(master=started))  # before it serves: whoever ends us now knows it
        socket = self._worker_socket(structure)
        found = await process.wait_started(self._child, self._store.master_socket, socket, self._store.log)
        self._take(found)
        metrics.STARTS.inc()

    def _take(self, found: Processes) -> None:
        self._unwatch()
        self.processes = found
        master = identify(found.master)
        if master is None:
            raise Unavailable(f"haproxy: master {found.master} has just ended")
        workers = tuple(i for pid in (found.worker, *found.old) if (i := identify(pid)) is not None)
        self._store.write_running(Running(master=master, workers=workers))
        self._unwatch = process.watch(master, self._ended)
        self.alive = True

    def _ended(self) -> None:
        if self._child is not None:
            self._child.poll()  # reaps it
        self.alive = False
        self.old_used = {}
        log.warning("haproxy ended", master=self.processes.master)
        self.died()

    async def _end_leftovers(self) -> None:
        """Workers without a master, or a master without a voice: two HAProxies would share the ports silently."""
        running = self._store.running()
        for identity in (running.master, *running.workers) if running else ():
            if send_signal(identity, signal.SIGUSR1):  # it gives up its ports at once, and then ends its sessions
                await process.wait_gone(identity, within_s=LEFTOVER_S)
        self._store.sweep_sockets(())

    # --- talk ----------------------------------------------------------------------------------------------------

    def _worker_socket(self, structure: Structure) -> str:
        return render.worker_socket(structure.frame, structure.generation)

    async def read(self, structure: Structure, known: Known) -> Serving:
        """Everything HAProxy has. `known` names the task in a slot. Raises Unavailable."""
        self._tcp_names.update(name for name, shape in structure.shapes.items() if shape.mode == "tcp")
        await self.read_old(structure)
        maps = await self.read_maps(structure, MAP_NAMES)
        return Serving(structure=structure, slots=await self.read_slots(structure, known), maps=Maps(**maps))

    async def read_slots(self, structure: Structure, known: Known) -> dict[str, Slots]:
        """Every slot of the serving worker's tenants. Raises Unavailable."""
        commands = ["show servers state", *_count_commands(_tcp_of(structure))]
        state, *counts = await socket_cli.ask_all(self._worker_socket(structure), commands)
        used = answers.busy(counts)
        found = answers.servers_state(state)
        return {b: self._filled(b, found[b], used, known) for b in structure.shapes if b in found}

    async def read_backends(self, structure: Structure, names: Sequence[str], known: Known) -> dict[str, Slots]:
        """The state first, then the connections: a count of none belongs to the state, or to a later moment."""
        commands = [f"show servers {what} {name}" for what in ("state", "conn") for name in names]
        tcp = [_tcp_sessions(name) for name in names if _is_tcp(structure, name)]
        found = await socket_cli.ask_all(self._worker_socket(structure), [*commands, *tcp])
        used = answers.busy(found[len(names) :])
        slots: dict[str, Slots] = {}
        for name, state in zip(names, found, strict=False):
            there = answers.servers_state(state).get(name)
            if there is None:
                raise Unavailable(f"haproxy: no backend {name}: {state[:80]}")
            slots[name] = self._filled(name, there, used, known)
        return slots

    async def read_used(self, structure: Structure, slots: Mapping[str, Slots]) -> dict[str, Slots]:
        """These backends with the connections they have now, else as they are. Raises Unavailable."""
        commands = [f"show servers conn {name}" for name in slots]
        commands += [_tcp_sessions(name) for name in slots if _is_tcp(structure, name)]
        used = answers.busy(await socket_cli.ask_all(self._worker_socket(structure), commands))
        return {name: self._counted(name, there, used) for name, there in slots.items()}

    def _filled(self, backend: str, there: Slots, used: Mapping[tuple[str, str], int], known: Known) -> Slots:
        named = {s: slot if slot.empty else _named(slot, known(backend, s, slot)) for s, slot in there.items()}
        return self._counted(backend, named, used)

    def _counted(self, backend: str, there: Slots, used: Mapping[tuple[str, str], int]) -> Slots:
        """Slots that have no connections stay the objects they are."""
        old = self.old_used
        if not used and not old:
            return {s: _used(slot, 0) if slot.used else slot for s, slot in there.items()}
        counts = {s: used.get((backend, s), 0) + old.get((backend, s), 0) for s in there}
        return {s: slot if slot.used == counts[s] else _used(slot, counts[s]) for s, slot in there.items()}

    async def read_maps(self, structure: Structure, names: Sequence[str]) -> dict[str, dict[str, str]]:
        folder = f"{structure.frame.folder}/maps"
        found = await socket_cli.ask_all(self._worker_socket(structure), [f"show map {folder}/{n}.map" for n in names])
        return {n: dict(answers.map_entries(text)) for n, text in zip(names, found, strict=True)}

    async def mend_frontends(self, structure: Structure) -> tuple[str, ...]:
        """Those that were paused or limited by hand, and are not any more. Raises Unavailable."""
        socket = self._worker_socket(structure)
        found = answers.mended(await socket_cli.ask(socket, "show stat -1 1 -1"), structure.connections)
        if found:
            await _told(socket, [command for commands in found.values() for command in commands])
        return tuple(found)

    async def read_old(self, structure: Structure) -> None:
        """Which old workers are left, and what connections they have."""
        if not self.processes.old and not self.old_used:
            return
        self.processes = await process.show(self._store.master_socket)
        self._end_too_many()
        await self._hand_over(structure)
        used: dict[tuple[str, str], int] = {}
        for pid in self.processes.old:
            for place, count in answers.connections(await self._ask_old(pid, _count_commands(self._tcp_names))).items():
                used[place] = used.get(place, 0) + count
        self.old_used = used
        self.names_of_old = frozenset(b for b, _ in used)

    def _end_too_many(self) -> None:
        """The oldest: by their number alone, so that many reloads do not end the sessions of a single old worker."""
        for pid in answers.too_many(self.processes.old, self._most_old):
            if (identity := identify(pid)) is not None and send_signal(identity, signal.SIGTERM):
                log.warning("too many old workers of haproxy: the oldest ends with its sessions", worker=pid)

    async def _ask_old(self, pid: int, commands: Sequence[str]) -> list[str]:
        """An answer a command; none when it has ended, or is about to.

        The master of 2.6 has ten connections, and may lose one for good (until the next reload) to a command for a
        worker that is ending or hangs. So there is one connection for all commands, and a worker that failed to answer
        once is not asked again: its sessions count as unknown for as long as it lives.
        """
        if pid in self._silent or (identity := identify(pid)) is None:
            return []
        try:
            said = await socket_cli.ask_old(self._store.master_socket, pid, commands)
        except Unavailable as error:
            said = ""
            log.warning("an old worker of haproxy does not answer", worker=pid, reason=str(error))
        found = answers.split(said)
        if len(found) < len(commands):
            self._silent.add(pid)
            self._orphans.append(identity)
        return found

    async def perform(self, structure: Structure, commands: Sequence[Command]) -> list[str]:
        """In order; returns what HAProxy said against it. Raises Unavailable."""
        self._store.note([c for c in commands if isinstance(c, SetAddress) and c.task])
        folder = f"{structure.frame.folder}/maps"
        objections: list[str] = []
        for batch in _batches(commands):
            if isinstance(batch, MapWhole):
                objections += await self._replace_map(structure, batch, f"{folder}/{batch.map}.map")
                continue
            lines = [c.text(f"{folder}/{c.map}.map") if isinstance(c, MapEntry) else c.text() for c in batch]
            objections += await _told(self._worker_socket(structure), lines)
        metrics.COMMANDS.inc(len(commands))
        return objections

    async def _hand_over(self, structure: Structure) -> None:
        """Old workers send what their keep-alive clients still ask to the new one, which knows today's servers."""
        for pid in set(self.processes.old) - self._handed_over:
            await self._ask_old(pid, render.handover(structure.frame))
            self._handed_over.add(pid)
        self._handed_over &= set(self.processes.old)
        self._silent &= set(self.processes.old)

    async def _replace_map(self, structure: Structure, whole: MapWhole, file: str) -> list[str]:
        """All of it or, when HAProxy objects to an entry, nothing."""
        socket = self._worker_socket(structure)
        version = answers.new_map_version((await socket_cli.ask_all(socket, [f"prepare map {file}"]))[0])
        adds = [f"add map @{version} {file} {key} {value}" for key, value in whole.entries]
        objections = await _told(socket, adds)
        return objections + await _told(socket, [f"{'clear' if objections else 'commit'} map @{version} {file}"])

    async def stats_of(self, structure: Structure, names: Sequence[str]) -> list[str]:
        """Counts of the backends and their servers, a CSV each."""
        return await socket_cli.ask_all(self._worker_socket(structure), [f"show stat {name} 6 -1" for name in names])

    async def answered(self, structure: Structure, names: Sequence[str]) -> tuple[str, str]:
        """Backends' statistics (perhaps others' too) and the table of answer times. Raises Unavailable."""
        asked = [f"show stat {name} 2 -1" for name in names] if len(names) <= FEW_STATS else ["show stat -1 2 -1"]
        commands = [*asked, "show table fairlead_times"]
        *stats, times = await socket_cli.ask_all(self._worker_socket(structure), commands)
        return "\n".join(stats), times

    async def show_stats(self, structure: Structure, what: int) -> dict[str, str]:
        """`show stat` of the serving worker and then of those that finish sessions, by a name that no other process has.
        One that ends meanwhile is left out. Raises Unavailable for the serving one.
        """
        command = f"show stat -1 {what} -1"
        found = {_name(self.processes.worker): await socket_cli.ask(self._worker_socket(structure), command)}
        for pid in self.processes.old:
            if said := await self._ask_old(pid, [command]):
                found[_name(pid)] = "\n".join(said)
        return found

    async def loads(self, structure: Structure) -> str:
        """Counts of all backends, without their servers, as CSV."""
        return await socket_cli.ask(self._worker_socket(structure), "show stat -1 2 -1")

    async def show_stat(self, structure: Structure) -> str:
        return await socket_cli.ask(self._worker_socket(structure), "show stat")


def _name(pid: int) -> str:
    identity = identify(pid)
    return f"{pid}-{identity.start_ticks if identity is not None else 0}"


async def _told(socket: str, lines: Sequence[str]) -> list[str]:
    """What HAProxy has against them. Raises Unavailable."""
    said = await socket_cli.tell_all(socket, lines)
    told = ((line, answers.objection(s)) for line, s in zip(lines, said, strict=True))
    return [f"{line}: {why}" for line, why in told if why]


def _tcp_of(structure: Structure) -> list[str]:
    """Those that somebody stands in."""
    return [name for name in structure.owners if structure.shapes[name].mode == "tcp"]


def _is_tcp(structure: Structure, name: str) -> bool:
    return name in structure.owners and structure.shapes[name].mode == "tcp"


def _named(slot: Slot, task: str) -> Slot:
    return msgspec.structs.replace(slot, task=task) if task else slot


def _used(slot: Slot, used: int) -> Slot:
    return msgspec.structs.replace(slot, used=used)


def _tcp_sessions(name: str) -> str:
    """HAProxy counts a TCP service's connections as sessions only (`used_cur` stays 0)."""
    return f"show stat {name} 4 -1"


def _count_commands(tcp: Iterable[str]) -> list[str]:
    return ["show servers conn", *map(_tcp_sessions, tcp)]


def _batches(commands: Sequence[Command]) -> list[list[ServerCommand | MapEntry] | MapWhole]:
    found: list[list[ServerCommand | MapEntry] | MapWhole] = []
    for command in commands:
        if isinstance(command, MapWhole):
            found.append(command)
        elif found and isinstance(found[-1], list):
            found[-1].append(command)
        else:
            found.append([command])
    return found


def within_limits(picture: Picture) -> Picture:
    """With as many connections as the limit of open files allows. Raises BadSettings."""
    frame = picture.structure.frame
    hard = process.raise_open_files(limits.descriptors(picture, frame.max_connections))
    most = limits.connections(picture, frame.max_connections, hard_limit=hard)
    if most < frame.max_connections:
        log.warning("fewer connections than set: open files are limited", max_connections=most, limit=hard)
    return msgspec.structs.replace(picture, structure=msgspec.structs.replace(picture.structure, connections=most))


def free_for_hosts(structure: Structure) -> None:
    """Raises BadSettings naming port and option when another process holds a port HAProxy cannot do without."""
    frame = structure.frame
    for option, host, port in frame.listeners:
        if port and (why := ports.taken(host, [port])):
            raise BadSettings(f"{option}: cannot listen on {host}:{port}: {why[port].lower()}")
