"""Lines of the access log: what is written is JSON, whatever a client sends; what is counted is bounded."""

import asyncio
import contextlib
import json
import os
import socket
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import REGISTRY

from fairlead_daemon.errors import Refused
from fairlead_lb.access_log import AccessLog, Around, Sink
from fairlead_lb.decisions import access_lines
from fairlead_lb.decisions.access_lines import Golden, Raw, line, parse
from harness.ports import free_port
from harness.waiting import eventually

said = st.text().filter(lambda text: text != access_lines.UNSAID)


@given(said, said)
def test_a_line_is_json_and_one_line(path: str, host: str):
    """Quotes, braces and line ends of a client stay inside of its values."""
    data = msgspec.json.encode(Raw(t=0.5, path=path, host=host, be="b", slot="s1", addr="10.0.0.1:80"))
    written = msgspec.json.encode(line(parse(data), "marathon:/web", "task", "2026-11-20T16:09:08"))
    found = json.loads(written)

    assert b"\n" not in written
    assert (path, host, "task") == (found.get("path", ""), found.get("host", ""), found["task"])


def test_times_and_ends_are_told_by_name():
    """As HAProxy counted them."""
    raw = parse(
        b'{"t":12.345,"caller":"marathon:%2Fa","fe":"f","be":"b","slot":"s1","addr":"1.2.3.4:80","status":200,"tq":1,'
        b'"tr":7,"ta":9,"tw":2,"tc":3,"tt":10,"in":100,"out":200,"term":"--","rc":"+2","client":"5.6.7.8:9"}'
    )
    found = json.loads(msgspec.json.encode(line(raw, "marathon:/b", "t1", "1970-01-01T00:00:12")))

    assert {"request": 1, "queue": 2, "connect": 3, "answer": 7, "all": 9} == found["ms"]
    assert ("1970-01-01T00:00:12.345Z", "marathon:/a", 2, True) == (
        found["time"], found["caller"], found["retries"], found["redispatched"],
    )  # fmt: skip


@pytest.mark.parametrize("data", [b"", b"<134>haproxy", b'{"t":"x"}', b"[1]", b'{"t":1,"path":"\xff"}'])
def test_what_is_no_line_is_refused(data: bytes):
    """And never written."""
    with pytest.raises(Refused):
        parse(data)


def test_counts_are_bounded():
    """However many callers and services there are."""
    golden = Golden()
    for number in range(access_lines.MOST_CALLERS + 100):
        golden.count(Raw(t=0, caller=f"a:{number}", status=200, ta=3), "marathon:/web")

    assert access_lines.MOST_CALLERS + 1 == len(golden.callers)
    assert (
        100
        == golden.callers["marathon:/web", "(other)", "2xx"]
        == golden.callers_took["marathon:/web", "(other)"].counts[0]
    )
    assert access_lines.MOST_CALLERS + 100 == golden.took["marathon:/web"].counts[0]


def test_a_big_file_is_put_aside_and_only_so_many_are_kept(tmp_path: Path):
    """The newest is number one."""
    sink = Sink(path=tmp_path / "access.log", most_bytes=10, keep=2)
    for number in range(5):
        sink.write(b"line %d\n" % number)

    assert ["line 4\n", "line 3\n", "line 2\n"] == [
        (tmp_path / name).read_text() for name in ("access.log", "access.log.1", "access.log.2")
    ]
    assert 3 == len(list(tmp_path.iterdir()))


def test_a_disk_that_takes_nothing_costs_lines_only(tmp_path: Path):
    """The balancer goes on."""
    (tmp_path / "file").write_text("")

    assert not Sink(path=tmp_path / "file" / "access.log", most_bytes=10, keep=2).write(b"x\n")


@pytest.mark.parametrize(("master", "expected"), [(os.getppid(), True), (1, False)])
async def test_only_our_haproxy_is_believed(tmp_path: Path, master: int, expected: bool):
    """Any process may connect; the kernel says which one does. Lines may come in pieces."""
    around = Around(serving=lambda: None, former=dict, master=lambda: master)
    sink = Sink(path=tmp_path / "log", most_bytes=10_000, keep=1)
    taken = AccessLog(name=f"127.0.0.1:{free_port()}", sink=sink, around=around, only_refused=False)
    running = asyncio.create_task(taken.run())
    sender = await eventually("it listens", lambda: connected(taken.name))
    sender.send(b'{"t":1,"pa')
    with contextlib.suppress(OSError):
        sender.send(b'th":"/x"}\nrubbish\n{"t":2,"path":"/y"}\n')
    sender.shutdown(socket.SHUT_WR)
    with contextlib.suppress(OSError):
        await asyncio.get_running_loop().sock_recv(sender, 1)  # the other side has read all of it, and closes
    sender.close()
    running.cancel()
    written = (tmp_path / "log").read_text().splitlines() if (tmp_path / "log").exists() else []

    assert (["/x", "/y"] if expected else []) == [json.loads(text)["path"] for text in written]


@pytest.mark.parametrize(
    ("data", "result"),
    [(b"Server web_p0/s1 is DOWN, reason: Layer4 timeout", "haproxy"), (b'{"t":"x"}', "unreadable")],
)
def test_what_haproxy_says_of_itself_is_no_unreadable_line(tmp_path: Path, data: bytes, result: str):
    """An alert on unreadable lines stays quiet when a server goes down."""
    around = Around(serving=lambda: None, former=dict, master=lambda: 1)
    sink = Sink(path=tmp_path / "log", most_bytes=10_000, keep=1)
    taken = AccessLog(name="x", sink=sink, around=around, only_refused=False)
    before = {r: counted(r) for r in ("haproxy", "unreadable")}
    taken.take_lines([data])

    assert {**before, result: before[result] + 1} == {r: counted(r) for r in before}
    assert not (tmp_path / "log").exists()


def counted(result: str) -> float:
    return REGISTRY.get_sample_value("fairlead_lb_access_lines_total", {"result": result}) or 0.0


async def connected(name: str) -> socket.socket | None:
    host, _, port = name.rpartition(":")
    found = socket.socket()
    try:
        found.connect((host, int(port)))
    except OSError:
        found.close()
        return None
    found.setblocking(False)
    return found
