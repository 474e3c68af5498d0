"""Endpoints that come and go while clients ask: deploys, one task in and out, a hundred changes a second."""

import asyncio
from collections.abc import Iterator, Sequence

from fairlead_discovery import paths
from fairlead_discovery.records import Leaving, Member, Reason, encode
from fairlead_discovery.registry import Delete, Put
from harness.balancer import Balancer, Task, member
from harness.waiting import eventually

REMEMBERED = 200
"""Leaving records of tasks that are being ended."""


async def started(*names: str, app: str = "/shop/web") -> list[Task]:
    return [await Task(name, app=app).start() for name in names]


async def drained(place: Balancer, *tasks: Task, within_s: float = 60) -> None:
    """They are told to leave, and may be ended when this returns."""
    revision = await place.leave(*(t.member() for t in tasks))

    async def probe() -> bool:
        progress = await place.progress()
        return progress.applied_revision >= revision and not {t.id for t in tasks} & set(progress.busy)

    await eventually("they are drained", probe, within_s=within_s)


async def toggle(place: Balancer, task: Task, ending: asyncio.Event, stale: list[str], *, pause_s: float = 0.1) -> int:
    """In, and out again, until `ending`; what it is asked after it was drained goes to `stale`. Returns how often."""
    times = 0
    while not ending.is_set():
        await place.applied(await place.publish(task.member()), within_s=60)
        await drained(place, task)
        asked = len(task.seen)
        await asyncio.sleep(pause_s)
        stale += task.seen[asked:]
        await place.gone(task.id)
        times += 1
    return times


async def churn(place: Balancer, apps: Sequence[str], length_s: float, *, rate: float = 100) -> int:
    """One in, one out, with its record, `rate` times a second; returns how many changes that were.

    Of each app, `member(f"{app}-first", 31000, app=app)` is there already.
    """
    loop = asyncio.get_running_loop()
    begin, number = loop.time(), 0
    current = {app: member(f"{app}-first", 31000, app=app) for app in apps}
    records: list[str] = []
    while loop.time() - begin < length_s:
        app = apps[number % len(apps)]
        new = member(f"{app}-{number}", 31001 + number % 900, app=app)
        await place.registry.commit([*_swapped(app, current[app], new), *(Delete(r) for r in records[:-REMEMBERED])])
        records = [*records[-REMEMBERED:], paths.leaving(current[app].task.id)]
        current[app] = new
        number += 1
        await asyncio.sleep(max(0.0, begin + number / rate - loop.time()))
    return number


def _swapped(app: str, old: Member, new: Member) -> Iterator[Put | Delete]:
    folder = f"marathon:{app}"
    name = paths.member_name(old.task.id, encode(old))
    yield Put(paths.member(folder, paths.member_name(new.task.id, encode(new))), encode(new))
    yield Delete(paths.member(folder, name))
    record = Leaving(task=old.task.id, service=folder, member=name, reason=Reason.SCALE, deadline_s=4e9)
    yield Put(paths.leaving(old.task.id), encode(record))
