"""Endpoints change while HAProxy checks a candidate, and while it reloads: nobody waits for that, and nothing is lost by it.

HAProxy stands behind a script that holds its check, or its new worker, for as long as a file is there.
"""

import asyncio
import shlex
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from harness.balancer import Balancer, Task, balancer, route, service
from harness.clients import Clients
from harness.servers import require
from harness.waiting import eventually

pytestmark = pytest.mark.needs("haproxy")
HOST = "shop.example"
LONG_S = 30
ROUNDS = 12
"""More than a service of one task has slots."""
SCRIPT = """#!/bin/bash
case " $* " in
  *" -c "*) what=check ;;
  *" -W "*) what=reload ;;
  *) what=none ;;
esac
if [ -e {folder}/hold-$what ]; then touch {folder}/held-$what; fi
while [ -e {folder}/hold-$what ]; do sleep 0.02; done
exec -a "$0" {haproxy} "$@"
"""


class Held:
    """A balancer whose HAProxy holds its breath when it is told to."""

    def __init__(self, place: Balancer, folder: Path) -> None:
        self.place = place
        self._folder = folder

    def hold(self, what: str) -> None:
        (self._folder / f"hold-{what}").touch()

    def let_go(self, what: str) -> None:
        (self._folder / f"hold-{what}").unlink()

    async def is_held(self, what: str) -> None:
        async def probe() -> bool:
            return (self._folder / f"held-{what}").exists()

        await eventually(f"HAProxy's {what} is held", probe, within_s=LONG_S)

    async def structural_change(self) -> Task:
        """A service that needs a reload; it is not waited for."""
        task = await Task("other", app="/other").start()
        await self.place.publish(task.member(), routes=[route("/other", vhosts=("other.example",))])
        return task

    async def answers(self, host: str, expected: str) -> None:
        async def probe() -> bool:
            return (200, expected) == await self.place.ask(host)

        await eventually(f"{expected} answers", probe, within_s=LONG_S)

    async def swap(self, old: Task, new: Task) -> int:
        """A rescale: the new one in, the old one out. Returns the last revision."""
        await self.place.publish(new.member())
        return await self.place.leave(old.member())


@pytest.fixture
async def held(short_dir: Path) -> AsyncIterator[Held]:
    """Without spare backends, so that a new service is a structural change."""
    program = short_dir / "haproxy.sh"
    program.write_text(SCRIPT.format(folder=shlex.quote(str(short_dir)), haproxy=shlex.quote(require("haproxy"))))
    program.chmod(0o755)
    async with balancer(short_dir, spare_backends=0, haproxy=str(program)) as place:
        yield Held(place, short_dir)


@pytest.mark.parametrize("what", ["check", "reload"])
async def test_an_endpoint_goes_live_while_haproxy_is_busy_with_a_new_service(held: Held, what: str):
    """Held in its check, or in its reload, HAProxy sends requests to the new endpoint and no more to the old one; that
    is so after the reload too, and only then counts as applied. No request fails or is sent twice on the way.
    """
    place = held.place
    old = await service(place, "/shop/web", vhosts=(HOST,))
    new = await Task("new").start()
    reloads = (await place.status())["reloads"]
    held.hold(what)
    async with Clients(place.settings.http_port, HOST) as clients:
        other = await held.structural_change()
        await held.is_held(what)
        revision = await held.swap(old, new)
        await eventually("the new one is asked", lambda: _asked(new), within_s=LONG_S)
        await eventually("nobody asks the old one any more", lambda: _quiet(old), within_s=LONG_S)
        still = await place.status("summary=1")
        held.let_go(what)
        await place.applied(revision, within_s=LONG_S)
        before = len(old.seen)
        await held.answers("other.example", "other")
        await held.answers(HOST, "new")

    assert reloads == still["reloads"]
    assert still["applied_revision"] < revision
    assert before == len(old.seen)
    assert [] == clients.failures
    assert [] == clients.doubled([*old.seen, *new.seen])
    assert reloads + 1 == (await place.status())["reloads"]
    for task in (old, new, other):
        await task.stop()


async def test_a_service_that_is_rescaled_over_and_over_during_a_reload_finds_slots(held: Held):
    """More tasks come than it has slots: those that have left are emptied meanwhile, as ever."""
    place = held.place
    last = await service(place, "/shop/web", vhosts=(HOST,))
    status = await place.status("")
    reloads = status["reloads"]
    held.hold("reload")
    other = await held.structural_change()
    await held.is_held("reload")
    for number in range(ROUNDS):
        new = await Task(f"new{number}").start()
        revision = await held.swap(last, new)
        await held.answers(HOST, new.id)
        await eventually("nobody asks the last one any more", lambda last=last: _quiet(last), within_s=LONG_S)
        await last.stop()
        last = new
    still = await place.status("summary=1")
    held.let_go("reload")
    await place.applied(revision, within_s=LONG_S)
    await held.answers("other.example", "other")
    await held.answers(HOST, last.id)

    assert reloads == still["reloads"]
    for task in (last, other):
        await task.stop()


async def test_a_service_that_comes_during_a_check_is_served_by_the_same_reload(held: Held):
    """Of a kind HAProxy has taken: it is not checked again for it."""
    place = held.place
    await service(place, "/shop/web", vhosts=(HOST,))
    reloads = (await place.status())["reloads"]
    held.hold("check")
    first = await held.structural_change()
    await held.is_held("check")
    second = await Task("second", app="/second").start()
    revision = await place.publish(second.member(), routes=[route("/second", vhosts=("second.example",))])
    await eventually("it is wanted", lambda: _due(place, "second"), within_s=LONG_S)
    held.let_go("check")
    await place.applied(revision, within_s=LONG_S)
    await held.answers("other.example", "other")
    await held.answers("second.example", "second")

    assert reloads + 1 == (await place.status())["reloads"]
    for task in (first, second):
        await task.stop()


async def test_a_daemon_that_is_killed_during_a_reload_leaves_the_next_one_a_haproxy_it_knows(held: Held):
    """What came meanwhile is told by the successor."""
    place = held.place
    old = await service(place, "/shop/web", vhosts=(HOST,))
    new = await Task("new").start()
    held.hold("reload")
    other = await held.structural_change()
    await held.is_held("reload")
    await held.swap(old, new)
    await held.answers(HOST, "new")
    await place.kill_daemon()
    held.let_go("reload")
    await held.answers("other.example", "other")
    await place.start()
    await held.answers(HOST, "new")
    await held.answers("other.example", "other")
    for task in (old, new, other):
        await task.stop()


async def _asked(task: Task) -> bool:
    return bool(task.seen)


async def _quiet(task: Task) -> bool:
    before = len(task.seen)
    await asyncio.sleep(0.3)
    return before == len(task.seen)


async def _due(place: Balancer, name: str) -> bool:
    return any(name in why for why in (await place.status(""))["reload_due"])
