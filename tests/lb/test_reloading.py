"""A reload goes on beside the loop. HAProxy is a twin here: a model whose check and reload last as long as the test says."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec

from fairlead_daemon.errors import Refused, Unavailable
from fairlead_discovery.records import Leaving, Reason, Route, RoutePort
from fairlead_discovery.snapshots import Snapshot, Trust
from fairlead_lb.adapters.store import Store
from fairlead_lb.controller import Controller
from fairlead_lb.decisions.answers import Processes
from fairlead_lb.decisions.change import Serving
from fairlead_lb.decisions.commands import Command
from fairlead_lb.decisions.rails import Limits, Rails
from fairlead_lb.decisions.values import Admin, Picture, Slots, Structure
from fairlead_lb.memory import Memory
from fairlead_lb.rolling import Gate
from harness.balancer import member
from harness.haproxy_model import AROUND, Model
from harness.waiting import eventually

LONG_S = 20.0


class Twin:
    """Stands in for the supervisor and its HAProxy."""

    def __init__(self) -> None:
        self.model = Model()
        self.alive = True
        self.version = None
        self.processes = Processes(master=1, worker=2)
        self.orphaned = False
        self.old_used: dict[tuple[str, str], int] = {}
        self.names_of_old: frozenset[str] = frozenset()
        self.checked: list[Picture] = []
        self.loaded: list[Picture] = []
        self.may_check, self.may_load = asyncio.Event(), asyncio.Event()
        self.may_check.set()
        self.may_load.set()
        self.refuses = ""
        self.dies = ""

    async def try_out(self, candidate: Picture) -> None:
        self.checked.append(candidate)
        await self.may_check.wait()
        if self.refuses:
            raise Refused(self.refuses)

    async def check(self, _text: str) -> None:
        return None

    async def swap(self, candidate: Picture) -> None:
        self.loaded.append(candidate)
        await self.may_load.wait()
        if self.dies:
            raise Unavailable(self.dies)
        self.model.serving = Serving(structure=candidate.structure, slots=candidate.slots, maps=candidate.maps)

    async def perform(self, _structure: Structure, commands: Iterable[Command]) -> list[str]:
        for command in commands:
            self.model.perform(command)
        return []

    async def read(self, structure: Structure, _known: object) -> Serving:
        serving = self.model.serving
        return Serving(structure=structure, slots=serving.slots, maps=serving.maps)

    async def read_backends(self, _structure: Structure, names: Sequence[str], _known: object) -> dict[str, Slots]:
        return {name: self.model.serving.slots[name] for name in names}

    async def read_used(self, _structure: Structure, slots: Mapping[str, Slots]) -> dict[str, Slots]:
        return {name: self.model.serving.slots[name] for name in slots}

    async def read_maps(self, _structure: Structure, names: Sequence[str]) -> dict[str, Any]:
        return {name: getattr(self.model.serving.maps, name) for name in names}

    async def read_old(self, _structure: Structure) -> None:
        return None

    async def mend_frontends(self, _structure: Structure) -> list[str]:
        return []

    async def served(self, structure: Structure) -> Structure:
        return structure

    async def show_stats(self, _structure: Structure, _what: int) -> dict[str, str]:
        raise Unavailable("a twin counts nothing")


class Place:
    def __init__(self, folder: Path) -> None:
        self.twin = Twin()
        store = Store(folder, folder / "run")
        store.prepare()
        self.controller = Controller(self.twin, store, AROUND, lambda _s, _m: None, Rails(Limits()))  # type: ignore[arg-type]  # a twin
        self.controller.state.serving = self.twin.model.serving
        self.controller.desk.memory = Memory({})
        self._revision = 0

    def offer(self, leaving: Sequence[str] = (), **tasks: Sequence[str]) -> int:
        """Tasks by app; returns the snapshot's revision."""
        self._revision += 1
        routes, members = {}, {}
        for name, ids in tasks.items():
            app, service = f"/{name}", f"marathon:/{name}"
            there = [member(t, 31000 + int(t[1:]), app=app) for t in ids]
            members[service] = {f"member_{m.task.id}_1": m for m in there}
            port = RoutePort(index=0, vhosts=(f"{name}.example",))
            routes[service] = Route(service=service, app=app, ports=(port,))
        gone = {
            t: Leaving(task=t, service="marathon:/web", member=f"member_{t}_1", reason=Reason.SCALE, deadline_s=4e9)
            for t in leaving
        }
        self.controller.offer(
            Snapshot(revision=self._revision, trust=Trust.LIVE, members=members, routes=routes, leaving=gone)
        )
        return self._revision

    async def applied(self, revision: int) -> None:
        async def probe() -> bool:
            return self.told >= revision

        await eventually(f"revision {revision} is applied", probe, within_s=LONG_S)

    @property
    def told(self) -> int:
        progress = self.controller.state.progress
        return progress.applied_revision if progress is not None else -1

    def ready(self, slots: Slots) -> set[str]:
        return {s.task for s in slots.values() if s.admin is Admin.READY and s.task}

    def slots(self, name: str = "web") -> Slots:
        serving = self.twin.model.serving
        return next((s for n, s in serving.slots.items() if n.startswith(f"marathon_{name}") or name in n), {})

    async def serves(self, *tasks: str) -> None:
        async def probe() -> bool:
            return set(tasks) == self.ready(self.slots())

        await eventually(f"{tasks} are served", probe, within_s=LONG_S)

    async def seen(self, what: list[Picture], count: int) -> None:
        async def probe() -> bool:
            return len(what) >= count

        await eventually(f"{count} candidates", probe, within_s=LONG_S)


@asynccontextmanager
async def running(folder: Path) -> AsyncIterator[Place]:
    place = Place(folder)
    task = asyncio.create_task(place.controller.run())
    try:
        await place.applied(place.offer(web=["t1"]))
        yield place
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def test_endpoints_go_live_while_a_candidate_is_checked(tmp_path: Path):
    """And HAProxy is reloaded with them: what was checked is written with the servers of that moment."""
    async with running(tmp_path) as place:
        twin = place.twin
        twin.may_check.clear()
        place.offer(web=["t1"], other=["t5"])
        await place.seen(twin.checked, 2)
        last = place.offer(leaving=["t1"], web=["t2"], other=["t5"])
        await place.serves("t2")
        loaded, told = len(twin.loaded), place.told
        twin.may_check.set()
        await place.applied(last)

    assert (1, 1) == (loaded, told)
    assert [2, 2] == [len(twin.checked), len(twin.loaded)]
    assert [{"t1"}, {"t2"}] == [place.ready(_web(made)) for made in (twin.checked[1], twin.loaded[1])]


async def test_what_comes_during_a_reload_counts_once_the_new_worker_has_it(tmp_path: Path):
    """The worker before is told at once; the one after comes up without it, and is told before anything is reported."""
    async with running(tmp_path) as place:
        twin = place.twin
        twin.may_load.clear()
        place.offer(web=["t1"], other=["t5"])
        await place.seen(twin.loaded, 2)
        last = place.offer(leaving=["t1"], web=["t2"], other=["t5"])
        await place.serves("t2")
        told = place.told
        twin.may_load.set()
        await place.applied(last)
        await place.serves("t2")

    assert 1 == told
    assert {"t1"} == place.ready(_web(twin.loaded[1]))
    assert {"t5"} == place.ready(place.slots("other"))


async def test_a_service_that_comes_while_haproxy_reloads_is_served_after_it(tmp_path: Path):
    """One reload more; nobody is forgotten."""
    async with running(tmp_path) as place:
        twin = place.twin
        twin.may_load.clear()
        place.offer(web=["t1"], other=["t5"])
        await place.seen(twin.loaded, 2)
        last = place.offer(web=["t1"], other=["t5"], third=["t6"])
        await asyncio.sleep(0)
        twin.may_load.set()
        await place.applied(last)

    assert [{"t1"}, {"t5"}, {"t6"}] == [place.ready(place.slots(n)) for n in ("web", "other", "third")]
    assert 3 == len(twin.loaded)


async def test_a_refusal_comes_beside_the_loop_too(tmp_path: Path):
    """Endpoints of the others have gone live before HAProxy has said it."""
    async with running(tmp_path) as place:
        twin = place.twin
        twin.may_check.clear()
        twin.refuses = "no such thing"
        place.offer(web=["t1"], other=["t5"])
        await place.seen(twin.checked, 2)
        place.offer(leaving=["t1"], web=["t2"], other=["t5"])
        await place.serves("t2")
        error = place.controller.state.last_error
        twin.may_check.set()
        await eventually("it is told", lambda: _told(place), within_s=LONG_S)

    assert "" == error
    assert 1 == len(twin.loaded)


async def _told(place: Place) -> bool:
    return "no such thing" in place.controller.state.last_error


def _web(made: Picture) -> Slots:
    return next(slots for name, slots in made.slots.items() if "web" in name)


async def test_nobody_is_blamed_for_the_balancers_own_files(tmp_path: Path):
    """They may be missing for a moment; the route is served once they are there, as it was asked for."""
    async with running(tmp_path) as place:
        twin, desk = place.twin, place.controller.desk
        frame = msgspec.structs.replace(desk.around.frame, identity="/srv/lb/identity")
        desk.around = replace(desk.around, frame=frame)
        twin.refuses = "unable to stat SSL certificate from file '/srv/lb/identity/identity.pem'"
        last = place.offer(web=["t1"], other=["t5"])
        await place.seen(twin.checked, 2)
        twin.refuses = ""
        await place.applied(last)

        assert {} == desk.state.refused_shapes
        assert {"t5"} == place.ready(place.slots("other"))


async def test_a_service_that_is_rescaled_over_and_over_during_a_reload_finds_slots(tmp_path: Path):
    """They are emptied in the worker that still serves, too: more tasks come than it has slots."""
    async with running(tmp_path) as place:
        twin = place.twin
        twin.may_load.clear()
        place.offer(web=["t1"], other=["t99"])
        await place.seen(twin.loaded, 2)
        rounds = len(place.slots()) + 2
        for number in range(2, rounds + 2):
            last = place.offer(leaving=[f"t{number - 1}"], web=[f"t{number}"], other=["t99"])
            await place.serves(f"t{number}")
        loaded = len(twin.loaded)
        twin.may_load.set()
        await place.applied(last)
        await place.serves(f"t{rounds + 1}")

    assert 2 == loaded


async def test_a_task_that_came_and_left_during_a_reload_is_busy_while_the_old_worker_has_its_sessions(tmp_path: Path):
    """The new worker never had it, so none of its slots tells of them."""
    async with running(tmp_path) as place:
        twin = place.twin
        twin.may_load.clear()
        place.offer(web=["t1"], other=["t5"])
        await place.seen(twin.loaded, 2)
        place.offer(leaving=["t1"], web=["t2"], other=["t5"])
        await place.serves("t2")
        backend = next(name for name, slots in twin.model.serving.slots.items() if place.slots() is slots)
        slot = next(where for where, s in place.slots().items() if s.task == "t2")
        twin.model.use(backend, slot, 1)
        last = place.offer(leaving=["t1", "t2"], web=["t3"], other=["t5"])
        await place.serves("t3")
        twin.old_used = {(backend, slot): 1}
        twin.may_load.set()
        await place.applied(last)
        await eventually("the new worker drains nobody", lambda: _at_rest(place), within_s=LONG_S)
        await eventually("t2 is busy", lambda: _busy(place, "t2"), within_s=LONG_S)
        twin.old_used = {}
        await eventually("nobody is busy", lambda: _busy(place), within_s=LONG_S)


async def _at_rest(place: Place) -> bool:
    place.controller.wake()
    return not place.controller.desk.draining()


async def _busy(place: Place, *tasks: str) -> bool:
    progress = place.controller.state.progress
    place.controller.wake()
    return progress is not None and tasks == tuple(progress.busy)


class Listening(Gate):
    """Lets everything through, and remembers how it went."""

    def __init__(self) -> None:
        super().__init__("", enabled=False)
        self.heard: list[str | None] = []

    def done(self, why: str | None = "") -> None:
        self.heard.append(why)
        super().done(why)


async def test_other_balancers_hear_that_haproxy_died_of_a_reload(tmp_path: Path):
    """They must not follow; one that goes well afterwards is told as such."""
    async with running(tmp_path) as place:
        twin = place.twin
        place.controller.desk.gate = gate = Listening()
        twin.dies = "haproxy: master 1 has ended"
        last = place.offer(web=["t1"], other=["t5"])
        await place.seen(twin.loaded, 2)
        await eventually("it is told", lambda: asyncio.sleep(0, twin.dies in gate.heard), within_s=LONG_S)
        twin.dies = ""
        await place.applied(last)

    assert "" == gate.heard[-1]
