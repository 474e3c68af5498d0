"""A session that never ends holds an old worker after each reload: not for ever, and not any number of them."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from fairlead_daemon.errors import BadSettings
from fairlead_lb.settings import LbSettings, frame
from harness.balancer import Balancer, Task, balancer, route, service
from harness.waiting import eventually

pytestmark = pytest.mark.needs("haproxy")


@asynccontextmanager
async def endless_session(place: Balancer) -> AsyncIterator[asyncio.StreamReader]:
    """Over TCP, with a server that waits as its client does."""
    task = await Task("waits", app="/waits").start()
    asked = route("/waits", mode="tcp", service_port=place.first_port)
    await place.applied(await place.publish(task.member(), routes=[asked]))
    reader, writer = await asyncio.open_connection("127.0.0.1", place.first_port)
    writer.write(b"GET /?slow=600 HTTP/1.1\r\nHost: x\r\n\r\n")

    async def arrived() -> bool:
        return bool(task.seen)

    try:
        await eventually("the server has it", arrived)
        yield reader
    finally:
        writer.close()
        await task.stop()


async def ended(place: Balancer, pid: int) -> bool:
    now = (await place.status("summary=1"))["haproxy"]
    return pid not in (now["worker_pid"], *now["old_worker_pids"])


async def worker(place: Balancer) -> int:
    return int((await place.status("summary=1"))["haproxy"]["worker_pid"])


async def test_an_old_worker_ends_after_its_time(short_dir: Path):
    """With the session that it still had; those of the new one are not touched."""
    async with balancer(short_dir, spare_backends=0, old_worker_s=2) as place, endless_session(place) as held:
        first = await worker(place)
        await service(place, "/new", vhosts=("new.example",))
        second = await worker(place)
        await eventually("the first worker ended", lambda: ended(place, first), within_s=30)

        assert b"" == await asyncio.wait_for(held.read(), 10)
        assert first != second == await worker(place)
        assert (200, "new") == await place.ask("new.example")


async def old_workers(place: Balancer) -> list[int]:
    return [int(pid) for pid in (await place.status("summary=1"))["haproxy"]["old_worker_pids"]]


async def test_many_reloads_do_not_end_a_session(short_dir: Path):
    """Workers without sessions do not count: one tenant's changes are no harm to another's connections."""
    async with balancer(short_dir, spare_backends=0, old_workers=2) as place, endless_session(place) as held:
        first = await worker(place)

        async def alone() -> bool:
            return [first] == await old_workers(place)

        for n in range(5):
            await service(place, f"/n{n}", vhosts=(f"n{n}.example",))
            await eventually("the others ended", alone, within_s=30)

        assert not held.at_eof()


async def test_no_more_old_workers_than_told(short_dir: Path):
    """One that has sessions and is one too many ends the oldest; all that is wanted is served."""
    async with balancer(short_dir, spare_backends=0, old_workers=1) as place, endless_session(place) as held:
        first = await worker(place)
        await service(place, "/n0", vhosts=("n0.example",))
        assert [first] == await old_workers(place)
        _, other = await asyncio.open_connection("127.0.0.1", place.first_port)
        other.write(b"GET /?slow=600 HTTP/1.1\r\nHost: x\r\n\r\n")
        second = await worker(place)
        await service(place, "/n1", vhosts=("n1.example",))
        await eventually("the first worker ended", lambda: ended(place, first), within_s=30)

        assert b"" == await asyncio.wait_for(held.read(), 10)
        assert [second] == await old_workers(place)
        assert [(200, f"n{n}") for n in range(2)] == [await place.ask(f"n{n}.example") for n in range(2)]
        other.close()


@pytest.mark.parametrize(("key", "value"), [("old_worker_s", 0.5), ("old_worker_s", 3e6), ("old_workers", -1)])
def test_limits_that_haproxy_would_not_take_are_refused(key: str, value: float):
    """By the name of the setting; 0 is no limit."""
    with pytest.raises(BadSettings, match=f"{key}: "):
        frame(LbSettings(registry="memory:x", data_dir="/srv/lb", **{key: value}))  # type: ignore[arg-type]  # by table

    assert frame(LbSettings(registry="memory:x", data_dir="/srv/lb", **{key: 0}))  # type: ignore[arg-type]  # see above
