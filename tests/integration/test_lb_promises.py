"""What traffic rules promise, kept to the letter by a real HAProxy: one balancer, each test a service of its own."""

import asyncio
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from fairlead_discovery.records import Traffic
from harness.balancer import Balancer, Task, balancer, service
from harness.waiting import eventually

pytestmark = [pytest.mark.needs("haproxy"), pytest.mark.asyncio(loop_scope="module")]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def place() -> AsyncIterator[Balancer]:
    with tempfile.TemporaryDirectory(prefix="fl", dir="/tmp") as made:
        folder = Path(made)
        folder.chmod(0o755)
        async with balancer(folder, spare_backends=1) as one:
            yield one


async def ask(place: Balancer, host: str, path: str = "/", **headers: str) -> tuple[int, dict[str, str]]:
    """Status and headers of an answer."""
    text = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
    async with asyncio.timeout(15):
        reader, writer = await asyncio.open_connection("127.0.0.1", place.settings.http_port)
        writer.write(f"GET {path} HTTP/1.1\r\nHost: {host}\r\n{text}Connection: close\r\n\r\n".encode())
        raw = (await reader.read(-1)).decode()
        writer.close()
    first, *lines = raw.partition("\r\n\r\n")[0].split("\r\n")
    return int(first.split()[1]), {k.lower(): v for k, _, v in (line.partition(": ") for line in lines)}


class PartlyFailing(Task):
    """Of ten answers nine are errors."""

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        self.status = 200 if len(self.seen) % 10 == 0 else 500
        return await super()._answer(reader, writer)


async def test_a_server_that_fails_most_requests_is_put_aside_for_all_its_good_answers(place: Balancer) -> None:
    """Nine of ten are errors, never many in a row by chance of a look: the share of them puts it aside."""
    rules = Traffic(eject_after=1000, eject_s=60)
    good = await service(place, "/partly", vhosts=("partly.example",), traffic=rules)
    bad = await PartlyFailing("partly-bad", app="/partly").start()
    await place.applied(await place.publish(bad.member()))

    async def put_aside() -> bool:
        await asyncio.gather(*(place.ask("partly.example") for _ in range(10)))
        return await place.servers("marathon:/partly") == {bad.id: "aside", good.id: "ready"}

    await eventually("the failing one is put aside", put_aside, within_s=30)
    before = len(bad.seen)
    assert {200} == {(await place.ask("partly.example"))[0] for _ in range(10)}
    assert before == len(bad.seen)


async def test_only_redirects_to_the_service_itself_get_its_prefix(place: Balancer) -> None:
    """Paths, the host that was asked, the server's own address; wherever else one leads, it leads there unchanged."""
    task = await service(place, "/moved", vhosts=("moved.example",), traffic=Traffic(location_prefix="/svc1"))
    own = {
        "/": "/svc1/",
        "/x?y=//z": "/svc1/x?y=//z",
        "https://moved.example/x": "https://moved.example/svc1/x",
        "http://Moved.example:80/x": "http://Moved.example:80/svc1/x",
        "https://moved.example": "https://moved.example/svc1",
        f"http://127.0.0.1:{task.port}/x": "/svc1/x",
    }
    others = (
        "https://login.example/auth",
        "//cdn.example/y",
        "///cdn.example/y",
        "https://moved.example.evil.example/x",
        "https://moved.example@evil.example/x",
        "https://moved.example:8443/x",
        f"http://127.0.0.1:{task.port + 1}/x",
        "http://moved.example?next=/x",
        "x/y",
        "mailto:joe@moved.example",
    )
    asks = {to: await ask(place, "moved.example", f"/?status=302&moved={to}") for to in (*own, *others)}

    assert {**own, **{to: to for to in others}} == {to: headers["location"] for to, (_, headers) in asks.items()}
