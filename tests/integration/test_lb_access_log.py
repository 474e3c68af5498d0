"""The access log, request ids, trace headers and counts by route and caller, of a real HAProxy."""

import asyncio
import json
import os
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from fairlead_discovery.policies import Source
from harness.balancer import Balancer, balancer, fetch, service
from harness.mesh import intend, meshed
from harness.waiting import eventually

pytestmark = pytest.mark.needs("haproxy")
TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


@pytest.fixture
async def place(short_dir: Path) -> AsyncIterator[Balancer]:
    async with balancer(short_dir, access_log="all", request_ids=True, trace_percent=100.0, spare_backends=4) as made:
        yield made


def lines(place: Balancer) -> list[dict[str, Any]]:
    file = place.folder / "data" / "lb" / "access.log"
    return [json.loads(text) for text in file.read_text().splitlines()] if file.exists() else []


async def logged(place: Balancer, count: int) -> list[dict[str, Any]]:
    async def enough() -> bool:
        return len(lines(place)) >= count

    await eventually(f"{count} lines are written", enough, within_s=20)
    return lines(place)


async def send(place: Balancer, raw: str, port: int = 0) -> str:
    reader, writer = await asyncio.open_connection("127.0.0.1", port or place.settings.http_port)
    writer.write(raw.encode("latin-1"))
    async with asyncio.timeout(15):
        answer = (await reader.read(-1)).decode()
    writer.close()
    return answer


class Echo:
    """A server that answers with what it was asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []


async def echo(place: Balancer) -> Echo:
    """Behind shop.example."""
    task = await service(place, "/shop/web", vhosts=("shop.example",))
    found = Echo()
    answer = task._answer

    async def remembering(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = await reader.readuntil(b"\r\n\r\n")
        found.asked.append(head.decode())
        again = asyncio.StreamReader()
        again.feed_data(head)
        return await answer(again, writer)

    task._answer = remembering  # type: ignore[method-assign]  # of this one server
    return found


async def test_a_request_is_told_with_service_task_and_ids(place: Balancer):
    """One line of JSON; the query is no part of it."""
    servers = await echo(place)
    answer = await send(place, "GET /a?token=secret HTTP/1.1\r\nHost: shop.example\r\nConnection: close\r\n\r\n")
    found = (await logged(place, 1))[-1]
    told = {name: found.get(name) for name in ("service", "task", "method", "host", "path", "status", "caller")}
    request_id = re.search(r"(?im)^x-request-id: (.*?)\r?$", servers.asked[-1])
    parent = re.search(r"(?im)^traceparent: (.*?)\r?$", servers.asked[-1])

    assert {
        "service": "marathon:/shop/web", "task": "shop-web", "method": "GET", "host": "shop.example", "path": "/a",
        "status": 200, "caller": "anonymous",
    } == told  # fmt: skip
    assert request_id is not None
    assert parent is not None
    assert found["id"] == request_id[1]
    assert f"x-request-id: {found['id']}" in answer.lower()
    assert re.fullmatch(rf"00-{found['trace']}-[0-9a-f]{{16}}-01", parent[1])
    assert "secret" not in (place.folder / "data" / "lb" / "access.log").read_text()


@pytest.mark.parametrize(
    ("header", "kept"),
    [
        (f"traceparent: {TRACE}\r\ntracestate: a=b", True),
        (f"traceparent: {TRACE.replace('00-', '01-', 1)}-more", True),
        ("traceparent: 00-00000000000000000000000000000000-00f067aa0ba902b7-01", False),
        ("traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01", False),
        (f"traceparent: {TRACE}x\r\ntracestate: a=b", False),
        ("X-Request-Id: given-by-client-1", True),
        ("X-Request-Id: a b", False),
        (f"X-Request-Id: {'x' * 200}", False),
    ],
)
async def test_ids_of_a_client_are_kept_when_they_are_sane(place: Balancer, header: str, kept: bool):
    """Else new ones are made; a state without its parent goes."""
    servers = await echo(place)
    await send(place, f"GET / HTTP/1.1\r\nHost: shop.example\r\n{header}\r\nConnection: close\r\n\r\n")
    asked = servers.asked[-1].lower().replace("\r\n", "\n")

    assert kept == all(f"\n{line.lower()}\n" in asked for line in header.split("\r\n"))
    assert 1 == asked.count("\ntraceparent:")
    assert 1 == asked.count("\nx-request-id:")
    assert not ("tracestate" in asked and not kept)


async def test_a_hostile_client_writes_no_line_of_its_own(place: Balancer):
    """Quotes, brackets, backslashes, bytes that are no text, and very long values stay in their places."""
    await echo(place)
    for what in ('/"},{"a":"b\\]}', "/%0a%22", "/\xff\xfe", f"/{'x' * 7000}"):
        await send(place, f'GET {what} HTTP/1.1\r\nHost: shop.example\r\nX: "]\\\r\nConnection: close\r\n\r\n')
    await send(place, 'GET / HTTP/1.1\r\nHost: a"b\\c]\r\nConnection: close\r\n\r\n')
    await fetch(f"http://127.0.0.1:{place.settings.http_port}", "/last", host="shop.example")

    async def all_told() -> bool:  # two threads write: in any order
        return 6 == len(lines(place)) and any(line.get("path") == "/last" for line in lines(place))

    await eventually("all six are told", all_told, within_s=20)
    found = lines(place)
    assert {True} == {line["time"].endswith("Z") and "status" in line for line in found}
    assert 1000 == max(len(line.get("path", "")) for line in found)


async def test_every_way_in_is_told_and_counted(place: Balancer):
    """By host, by port over HTTP and TCP, and without a route; the counts are in /metrics."""
    await echo(place)
    await service(place, "/port", service_port=place.first_port)
    await service(place, "/tcp", service_port=place.first_port + 1, mode="tcp")
    await place.ask("nobody.example")
    await place.ask("any", "/by-port", port=place.first_port)
    await place.ask("any", "/by-tcp", port=place.first_port + 1)
    found = {(line.get("service", ""), line.get("path", ""), line.get("status", 0)) for line in await logged(place, 3)}
    metrics = (await fetch(place.admin, "/metrics"))[1]

    assert {("", "/", 404), ("marathon:/port", "/by-port", 200), ("marathon:/tcp", "", 0)} <= found
    assert 'fairlead_lb_route_requests_total{code="2xx",service="marathon:/port"} 1.0' in metrics
    assert 'fairlead_lb_route_duration_seconds_bucket{le="+Inf",service="marathon:/port"} 1.0' in metrics
    labels = 'caller="anonymous",{}service="marathon:/port"'
    requests, durations = labels.format('code="2xx",'), labels.format('le="+Inf",')
    assert f"fairlead_lb_caller_requests_total{{{requests}}} 1.0" in metrics
    assert f"fairlead_lb_caller_duration_seconds_bucket{{{durations}}} 1.0" in metrics


async def test_refused_calls_are_told_by_default_and_others_are_not(short_dir: Path):
    """With the caller's name from its certificate; HTTP and TCP."""
    async with meshed(short_dir) as (lb, mesh):
        await service(lb, "/shop/web", vhosts=("shop.example",))
        await service(lb, "/db", service_port=lb.first_port, mode="tcp")
        await intend(lb, Source(name="etl:ops", paths=("/ops",)), default="deny")
        await intend(lb, default="deny", to="marathon:/db")
        ops = await mesh.caller("etl:ops")
        answers = [await ops.ask(lb.settings.mesh_port, "marathon:/shop/web", p) for p in ("/ops", "/other")]
        anonymous = await lb.ask(path="/x")
        with pytest.raises(OSError):  # closed, or reset
            await lb.ask(port=lb.first_port)
        found = await logged(lb, 3)
        metrics = (await fetch(lb.admin, "/metrics"))[1]

        assert [200, 403, 403] == [answers[0][0], answers[1][0], anonymous[0]]
        assert [
            ("etl:ops", "marathon:/shop/web", "/other", 403), ("anonymous", "marathon:/shop/web", "/x", 403),
            ("anonymous", "marathon:/db", "", 0),
        ] == [(n["caller"], n["service"], n.get("path", ""), n.get("status", 0)) for n in found]  # fmt: skip
        assert 'fairlead_lb_refused_calls_total{caller="etl:ops",service="marathon:/shop/web"} 1.0' in metrics


async def test_haproxy_rests_while_nobody_takes_its_lines_and_tells_them_afterwards(place: Balancer):
    """A unix socket that nobody listened on cost a core."""
    await echo(place)
    worker = (await place.status())["haproxy"]["worker_pid"]
    await place.stop_daemon()
    await fetch(f"http://127.0.0.1:{place.settings.http_port}", "/meanwhile", host="shop.example")
    before_s = cpu_s(worker)
    await asyncio.sleep(2)
    used_s = cpu_s(worker) - before_s
    await place.start()

    assert ["/meanwhile"] == [line["path"] for line in await logged(place, 1)]
    assert used_s < 0.3


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
