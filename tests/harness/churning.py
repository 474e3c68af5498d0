"""Endpoints that come and go while clients ask: deploys, one task in and out, a hundred changes a second."""

import asyncio
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from fairlead_discovery import paths
from fairlead_discovery.backends import open_registry
from fairlead_discovery.records import Leaving, Member, Reason, encode
from fairlead_discovery.registry import Delete, Put, Registry
from harness.balancer import Balancer, Task, member
from harness.waiting import eventually

WRITERS = 5
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
    return await _churn(place.registry, apps, length_s, rate)


async def churn_beside(url: str, apps: Sequence[str], length_s: float, *, rate: float = 100) -> int:
    """The same by writers in a process of their own, which nothing else of the test slows down."""
    arguments = ("-m", __name__, url, str(length_s), str(rate), *apps)
    folder = Path(__file__).parent.parent
    beside = await asyncio.create_subprocess_exec(
        sys.executable, *arguments, cwd=folder, stdout=asyncio.subprocess.PIPE
    )
    try:
        async with asyncio.timeout(length_s + 60):
            made = (await beside.communicate())[0]
    finally:
        if beside.returncode is None:
            beside.kill()
            await beside.wait()
    assert beside.returncode == 0
    return int(made)


async def _write(url: str, length_s: float, rate: float, apps: Sequence[str]) -> int:
    """Some at a time, so that the time of one commit does not limit them."""
    registry = await open_registry(url)
    try:
        shares = [apps[n::WRITERS] for n in range(WRITERS)]
        return sum(await asyncio.gather(*(_churn(registry, some, length_s, rate / WRITERS) for some in shares)))
    finally:
        await registry.close()


async def _churn(registry: Registry, apps: Sequence[str], length_s: float, rate: float) -> int:
    loop = asyncio.get_running_loop()
    begin, number = loop.time(), 0
    current = {app: member(f"{app}-first", 31000, app=app) for app in apps}
    records: list[str] = []
    while loop.time() - begin < length_s:
        app = apps[number % len(apps)]
        new = member(f"{app}-{number}", 31001 + number % 900, app=app)
        await registry.commit([*_swapped(app, current[app], new), *(Delete(r) for r in records[:-REMEMBERED])])
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


if __name__ == "__main__":
    _url, _length, _rate, *_apps = sys.argv[1:]
    sys.stdout.write(str(asyncio.run(_write(_url, float(_length), float(_rate), _apps))))
