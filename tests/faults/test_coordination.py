"""Never two holders at once, whoever is paused, killed or cut off: judged by one append-only log of all holders.

Each holder writes its fencing token into the log all the time. Appends have one order: once a token was written, no
lower one may follow, or two held the lock at once.
"""

import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import groupby, pairwise
from pathlib import Path

import pytest

from harness.house import FAIRLEAD, HARNESS
from harness.servers import Server
from harness.waiting import wait_until
from harness.zookeeper import ZooKeeper

WRITER = str(HARNESS / "lock_writer.py")


class Arena:
    """A registry that may be killed and started again, and contenders for one lock."""

    def __init__(self, folder: Path, backend: str) -> None:
        self.prepare(folder)
        self.zookeeper = ZooKeeper(folder / "zk") if backend == "zookeeper" else None
        socket = folder / "r.sock"
        self.url = self.zookeeper.url if self.zookeeper else f"local:{socket}"
        command = [str(FAIRLEAD), "registry", "--set", f"registry={self.url}", "--set", f"data_dir={folder}/d"]
        self.registry = self.zookeeper.server if self.zookeeper else Server(command, log=folder / "registry.log")

    def prepare(self, folder: Path) -> None:
        self.folder = folder
        self.log = folder / "log"
        self.log.touch()
        self.contenders: list[Server] = []
        self.env: Mapping[str, str] = {}
        """Of contenders."""

    def start_registry(self) -> None:
        if self.zookeeper:
            self.zookeeper.start()
        else:
            self.registry.start()
            wait_until("the registry serves", (self.folder / "r.sock").is_socket)

    def contend(self, verb: str, *options: str, work_s: float) -> Server:
        """`fairlead lock|elect x -- writer`, again and again for locks."""
        words = [
            str(FAIRLEAD),
            verb,
            "x",
            *options,
            "--registry",
            self.url,
            "--",
            sys.executable,
            WRITER,
            str(self.log),
        ]
        loop = 'while true; do "$@"; sleep 0.05; done'
        command = [*words, str(work_s)]
        if verb == "lock":
            command = ["/bin/sh", "-c", loop, "sh", *command]
        server = Server(command, log=self.folder / f"c{len(self.contenders)}.log", env=self.env).start()
        self.contenders.append(server)
        return server

    def trouble(self, chance: random.Random) -> None:
        """Something befalls the registry."""
        if chance.random() < 0.3:
            self.registry.kill()
            self.start_registry()

    def calm(self) -> None:
        """Nothing does any more."""

    def held(self) -> list[tuple[int, int]]:
        """Every (token, pid) in the log's order, each run of equal ones once."""
        lines = [line.split() for line in self.log.read_text().splitlines()]
        return [key for key, _ in groupby((int(fence), int(pid)) for fence, pid in lines)]

    def holder(self) -> int:
        """The pid of whoever wrote last."""
        return self.held()[-1][1]

    def wait_for_another(self, fence: int, *, within_s: float = 25) -> int:
        """The token of a later holder."""
        wait_until("another holds", lambda: self.held()[-1][0] > fence, within_s=within_s)
        return self.held()[-1][0]

    def end(self) -> None:
        for server in self.contenders:
            server.kill()
        for pid in alive_in(str(self.folder)):
            send(pid, signal.SIGKILL)
        self.end_registry()

    def end_registry(self) -> None:
        self.registry.kill()


def alive_in(text: str) -> list[int]:
    """Processes whose command line holds the text, but the registry's."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                words = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if text.encode() in words and b"QuorumPeer" not in words and b"data_dir" not in words:
                found.append(int(entry.name))
    return found


def parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def assert_one_at_a_time(arena: Arena) -> None:
    """Tokens never fall, and no token was two processes'."""
    held = arena.held()

    assert [] == [pair for pair in pairwise(held) if pair[1][0] <= pair[0][0]]


@pytest.fixture(params=["local", "zookeeper"])
def arena(request: pytest.FixtureRequest) -> Iterator[Arena]:
    folder = Path(tempfile.mkdtemp(prefix="fl-", dir="/tmp"))
    (folder / "zk").mkdir()
    place = Arena(folder, request.param)
    try:
        place.start_registry()
        yield place
    finally:
        place.end()
        shutil.rmtree(folder, ignore_errors=True)


def first_holder(arena: Arena) -> tuple[int, int, int]:
    """Token, pid of the command, pid of the `fairlead` above its guardian."""
    wait_until("somebody holds", arena.held, within_s=15)
    fence, pid = arena.held()[-1]
    return fence, pid, parent(parent(pid))


def test_a_paused_keeper_loses_its_command_before_the_lock(arena: Arena):
    """SIGSTOP for longer than the session: its guardian ends the command; only then another holds."""
    arena.contend("elect", work_s=60)
    fence, pid, keeper = first_holder(arena)
    arena.contend("elect", work_s=60)
    os.kill(keeper, signal.SIGSTOP)

    later = arena.wait_for_another(fence)

    assert not Path(f"/proc/{pid}").exists()
    os.kill(keeper, signal.SIGCONT)
    time.sleep(1.5)
    assert later == arena.held()[-1][0]
    assert_one_at_a_time(arena)


def test_a_killed_keeper_takes_its_command_with_it(arena: Arena):
    """SIGKILL for the keeper; then for a guardian. Nothing of theirs runs on beside the next holder."""
    for number in range(3):
        arena.contend("elect", work_s=60)
        if number == 0:
            first_holder(arena)
    fence, pid, keeper = first_holder(arena)
    os.kill(keeper, signal.SIGKILL)
    later = arena.wait_for_another(fence)
    assert not Path(f"/proc/{pid}").exists()

    os.kill(parent(arena.holder()), signal.SIGKILL)

    arena.wait_for_another(later)
    assert_one_at_a_time(arena)


def test_a_registry_out_of_sight_ends_what_is_held(arena: Arena):
    """Longer than the lease: the command is ended in time. When the registry is back one holds again."""
    for _ in range(2):
        arena.contend("elect", work_s=60)
    fence, pid, _ = first_holder(arena)
    arena.registry.pause()
    wait_until("the command has ended", lambda: not Path(f"/proc/{pid}").exists(), within_s=9)

    arena.registry.resume()

    arena.wait_for_another(fence)
    assert_one_at_a_time(arena)


def test_a_registrys_restart_takes_no_lock_away(arena: Arena):
    """The session outlives it."""
    arena.contend("elect", work_s=60)
    fence, pid, _ = first_holder(arena)
    arena.registry.kill()
    arena.start_registry()
    size = arena.log.stat().st_size
    time.sleep(2)

    assert (fence, pid) == arena.held()[-1]
    assert size < arena.log.stat().st_size


def storm(arena: Arena, *, seconds: float, pauses_s: Sequence[float]) -> None:
    """Four contenders; keepers and guardians are killed, keepers paused, and the registry has the arena's troubles."""
    chance = random.Random(7)  # the same storm every time
    for _ in range(4):
        arena.contend("lock", work_s=0.3)
    wait_until("somebody holds", arena.held, within_s=40)
    end_s = time.monotonic() + seconds
    paused: dict[int, float] = {}
    while time.monotonic() < end_s:
        time.sleep(chance.uniform(0.1, 0.5))
        for pid in [p for p, when_s in paused.items() if when_s < time.monotonic()]:
            del paused[pid]
            send(pid, signal.SIGCONT)
        try:
            keepers = sorted({parent(parent(pid)) for pid in alive_in(WRITER) if command_of(pid, "writer")})
        except OSError:
            continue
        keepers = [pid for pid in keepers if pid > 1]
        match chance.choice(["keeper", "guardian", "pause", "pause", "registry", "nothing"]):
            case "keeper" if keepers:
                send(chance.choice(keepers), signal.SIGKILL)
            case "guardian" if writers := [pid for pid in alive_in(WRITER) if command_of(pid, "writer")]:
                with_parent(chance.choice(writers))
            case "pause" if keepers and len(paused) < 2:
                victim = chance.choice(keepers)
                send(victim, signal.SIGSTOP)
                paused[victim] = time.monotonic() + chance.choice(pauses_s)
            case "registry":
                arena.trouble(chance)
    for pid in paused:
        send(pid, signal.SIGCONT)
    arena.calm()


def send(pid: int, number: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)


def with_parent(pid: int) -> None:
    with suppress(OSError):
        send(parent(pid), signal.SIGKILL)


def command_of(pid: int, kind: str) -> bool:
    """Whether it is the writer itself, not the `fairlead` or the guardian that were told of it."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    return kind == "writer" and words[1:2] == [WRITER.encode()]


def test_a_storm_of_faults_never_makes_two_holders(arena: Arena):
    """A short one for every day; when it is over the lock goes on from hand to hand."""
    storm(arena, seconds=10, pauses_s=(0.2, 0.5, 2.0))

    arena.wait_for_another(arena.held()[-1][0], within_s=40)
    assert_one_at_a_time(arena)


@pytest.mark.soak
@pytest.mark.timeout(900)
def test_a_long_storm_never_makes_two_holders(arena: Arena):
    """Ten minutes of it."""
    storm(arena, seconds=600, pauses_s=(0.5, 3.0, 12.0))

    assert len(arena.held()) > 20
    assert_one_at_a_time(arena)
