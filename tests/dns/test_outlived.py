"""Workers of a name server that crashed: whoever comes next ends them all, and none that has been forgotten goes on."""

import asyncio
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from fairlead_daemon.files import replace_file
from fairlead_daemon.processes import alive, identify
from fairlead_dns.outlived import MODULE, Left, Outlived, outliving, read, replaced

Start = Callable[..., int]
DEAF = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); "


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts what looks like a worker; gives its pid."""
    begun: list[subprocess.Popen[bytes]] = []

    def one(first: str = "") -> int:
        code = f"{first}import time; print(flush=True); time.sleep(60)"
        made = subprocess.Popen([sys.executable, "-c", code, MODULE], stdout=subprocess.PIPE)
        assert made.stdout is not None
        made.stdout.readline()
        begun.append(made)
        return made.pid

    yield one
    for each in begun:
        each.kill()
        each.communicate()


def listed(file: Path) -> set[int]:
    left = read(file)
    assert left is not None
    return {each.pid for each in left.workers}


async def test_two_crashes_in_a_row_forget_nobody(tmp_path: Path, start: Start) -> None:
    """The second name server notes its own beside those it found; the third ends both."""
    file = tmp_path / "workers"
    first, second = start(), start()
    await Outlived(file).keep([first])
    await Outlived(file).keep([second])
    assert {first, second} == listed(file)
    third = Outlived(file)
    assert not third.gone.is_set()

    await third.stand()
    assert third.gone.is_set()
    assert (None, None, set()) == (identify(first), identify(second), listed(file))


async def test_a_name_server_without_workers_ends_those_of_before(tmp_path: Path, start: Start) -> None:
    """Once it has something to answer, and not before."""
    file, loaded = tmp_path / "workers", asyncio.Event()
    pid = start()
    await Outlived(file).keep([pid])
    after = Outlived(file)
    running = asyncio.ensure_future(after.run(loaded))
    await asyncio.sleep(0)
    assert identify(pid) is not None
    loaded.set()
    await running

    assert identify(pid) is None


async def test_who_is_ended_ends_those_of_before(tmp_path: Path, start: Start) -> None:
    """At any moment, by SIGTERM. A bug ends nobody."""
    file = tmp_path / "workers"
    pid = start()
    await Outlived(file).keep([pid])
    with pytest.raises(ZeroDivisionError):
        async with outliving(file):
            raise ZeroDivisionError
    assert identify(pid) is not None
    async with outliving(file):
        pass

    assert (None, set()) == (identify(pid), listed(file))


async def test_who_does_not_end_is_killed(tmp_path: Path, start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes datagrams that nobody else gets."""
    monkeypatch.setattr("fairlead_dns.outlived.PATIENCE_S", 0.1)
    file = tmp_path / "workers"
    pid = start(DEAF)
    known = identify(pid)
    await Outlived(file).keep([pid])
    await Outlived(file).stand()

    assert known is not None
    assert not alive(known)


async def test_a_worker_that_nobody_knows_sees_a_later_name_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not its own parent, nor the one before that, nor a file that cannot be read: only one that stands after both."""
    monkeypatch.setattr("fairlead_dns.outlived.LOOK_S", 0.01)
    file = tmp_path / "workers"
    own = Outlived(file)
    looking = asyncio.ensure_future(replaced(file, {own.mark, own.stood}))
    for text in (b"{", msgspec.json.encode(Left()), msgspec.json.encode(Left(own.mark))):
        replace_file(file, text)
        await asyncio.wait({looking}, timeout=0.1)
        assert not looking.done()
    await Outlived(file).stand()

    async with asyncio.timeout(20):
        await looking


async def test_the_last_word_is_written_last(tmp_path: Path, start: Start) -> None:
    """Two that write at the same moment: what stands there in the end is what is true."""
    file = tmp_path / "workers"
    pids = [start(), start()]
    outlived = Outlived(file)
    await asyncio.gather(outlived.keep(pids[:1]), outlived.keep(pids))

    assert set(pids) == listed(file)


async def test_what_cannot_be_written_keeps_nobody_from_answering(tmp_path: Path) -> None:
    """The folder is a file."""
    (tmp_path / "data").write_text("")
    outlived = Outlived(tmp_path / "data" / "workers")
    await outlived.keep([])
    await outlived.stand()

    assert outlived.gone.is_set()
