"""Power loss for the local registry: whatever was not synced is gone, or torn; whatever was acknowledged is there.

The registry's own hub and file run over a VFS that notes what SQLite writes and syncs. For hundreds of moments the disk
is rebuilt as a power cut would leave it, opened as the registry opens it, and compared with what clients had been told.
"""

import asyncio
import os
import random
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from fairlead_daemon.errors import BadSettings
from fairlead_discovery import messages as m
from fairlead_discovery import paths
from fairlead_discovery.adapters.database import Database
from fairlead_discovery.decisions.nodes import Nodes
from fairlead_discovery.decisions.ops import Drop, Set
from fairlead_discovery.hub import Hub
from harness.power import Event, Journal, Said, Sync, Write, cut, noting

WRITERS = 4
COMMITS = 1200
CUTS = 300
PAD = b"." * 3000
"""Long enough that the log is copied into the file several times."""


@dataclass(eq=False)
class Writer:
    """One client: raises a number in two nodes by each commit, deletes one of two others in turn."""

    hub: Hub
    number: int
    journal: Journal
    done: int = 0
    answer: asyncio.Event = field(default_factory=asyncio.Event)

    def send(self, message: m.AnyReply) -> None:
        """Told: noted in the same order as what happens to the files."""
        if isinstance(message, m.Done):
            self.done += 1
            self.journal.append(Said((self.number, self.done, message.revision)))
            self.answer.set()

    def backed_up(self) -> bool:
        return False

    def close(self) -> None:
        raise AssertionError("turned away")

    def path(self, name: str) -> str:
        return paths.route(f"w{self.number}:{name}")

    async def run(self) -> None:
        client = self.hub.attach(self)
        self.hub.receive(client, m.Hello(number=1))
        for number in range(1, COMMITS // WRITERS + 1):
            data = b"%d " % number + PAD
            here, gone = ("c", "d") if number % 2 else ("d", "c")
            ops = (
                Set(path=self.path("a"), data=data),
                Set(path=self.path("b"), data=data),
                Set(path=self.path(here)),
                Drop(path=self.path(gone), missing_ok=True),
            )
            self.answer.clear()
            self.hub.receive(client, m.Multi(number=number + 1, ops=ops, clocked=True))
            async with asyncio.timeout(20):
                await self.answer.wait()


async def written(folder: Path) -> Journal:
    """What four clients' commits did to the files, with every answer between."""
    with noting() as journal:
        database = Database(folder / "registry.db")
        hub = Hub(database.nodes, store=database.store, reload=database.reload)
        await asyncio.gather(*(Writer(hub, n, journal).run() for n in range(WRITERS)))
        await hub.close()
        database.close()
    return journal


def state(nodes: Nodes) -> list[int]:
    """Each writer's number. Half a commit fails."""
    numbers = []
    for writer in range(WRITERS):
        found = {name: nodes.get(paths.route(f"w{writer}:{name}")) for name in "abcd"}
        a, b = (int(e.data.split()[0]) if (e := found[name]) is not None else 0 for name in "ab")
        assert a == b, f"half a commit: {a} and {b}"
        if a:
            there = [name for name in "cd" if found[name] is not None]
            assert there == (["c"] if a % 2 else ["d"]), f"half of commit {a}: {there}"
        numbers.append(a)
    return numbers


def told(journal: Sequence[Event], at: int) -> tuple[list[int], int]:
    """Each writer's last acknowledged number, and the highest revision anybody has heard of."""
    numbers, revision = [0] * WRITERS, 0
    for event in journal[:at]:
        if isinstance(event, Said):
            writer, number, heard = event.what  # type: ignore[misc]  # said by Writer alone
            numbers[writer], revision = number, max(revision, heard)
    return numbers, revision


def moments(journal: Sequence[Event], chance: random.Random, cuts: int) -> list[int]:
    """Where to cut: right after answers, right before and after syncs, amid the copying into the file, anywhere."""
    said = [i + 1 for i, e in enumerate(journal) if isinstance(e, Said)]
    synced = [i + d for i, e in enumerate(journal) if isinstance(e, Sync) for d in (0, 1)]
    copied = [i for i, e in enumerate(journal) if isinstance(e, Write) and e.file.endswith(".db")]
    quarter = cuts // 4
    return sorted(
        chance.choices(said, k=quarter)
        + chance.choices(synced, k=quarter)
        + chance.choices(copied, k=quarter)
        + [chance.randrange(len(journal)) for _ in range(quarter)]
    )


@pytest.fixture(scope="module")
def journal(tmp_path_factory: pytest.TempPathFactory) -> Journal:
    return asyncio.run(written(tmp_path_factory.mktemp("registry")))


@pytest.mark.parametrize("cuts", [CUTS // 3, pytest.param(CUTS, marks=pytest.mark.soak)])
def test_what_was_acknowledged_outlives_a_power_cut(journal: Journal, tmp_path: Path, cuts: int):
    """All of it, nothing by half, and no revision is ever given twice."""
    chance = random.Random(11)
    landed = 0
    for number, at in enumerate(moments(journal, chance, cuts)):
        folder = tmp_path / f"cut{number}"
        cut(journal, at, chance).put(folder)
        database = Database(folder / "registry.db")
        try:
            numbers, (acknowledged, revision) = state(database.nodes), told(journal, at)
            assert all(mine >= sure for mine, sure in zip(numbers, acknowledged, strict=True)), (at, numbers)
            assert database.nodes.revision >= revision
            landed += numbers != acknowledged
        finally:
            database.close()

    assert landed  # some were cut between writing and answering


def test_the_log_was_copied_into_the_file_meanwhile(journal: Journal):
    """Else the test above has seen only half of what can happen: the file itself was written, and synced, in between."""
    syncs = [e for e in journal if isinstance(e, Sync) and e.file.endswith(".db")]
    copies = [e for e in journal if isinstance(e, Write) and e.file.endswith(".db")]

    assert len(syncs) > 3
    assert len(copies) > 20


@pytest.mark.parametrize("level", ["OFF", "NORMAL"])
async def test_the_harness_finds_a_registry_that_does_not_sync(
    level: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """A planted bug: with less than `synchronous=FULL` some acknowledged commit is lost, or the file is damaged."""
    connect = sqlite3.connect

    class Careless(sqlite3.Connection):
        def execute(self, sql: str, *values: object) -> sqlite3.Cursor:
            return super().execute(sql.replace("synchronous=FULL", f"synchronous={level}"), *values)

    monkeypatch.setattr(sqlite3, "connect", lambda *a, **k: connect(*a, factory=Careless, **k))
    journal = await written(tmp_path / "careless")
    monkeypatch.undo()
    chance = random.Random(3)
    lost = 0
    for number, at in enumerate(moments(journal, chance, CUTS)[::10]):
        folder = tmp_path / f"cut{number}"
        cut(journal, at, chance).put(folder)
        try:
            database = Database(folder / "registry.db")
        except BadSettings:  # damaged
            lost += 1
            continue
        numbers, (acknowledged, _) = (
            [(database.nodes.get(paths.route(f"w{w}:a"))) for w in range(WRITERS)],
            told(journal, at),
        )
        found = [int(entry.data.split()[0]) if entry is not None else 0 for entry in numbers]
        lost += any(mine < sure for mine, sure in zip(found, acknowledged, strict=True))
        database.close()

    assert lost


def test_the_folder_of_a_new_registry_is_on_disk_before_anything_is_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Each new folder's name is synced in the one above; of folders that were there nothing is."""
    synced: list[str] = []
    fsync = os.fsync

    def note(handle: int) -> None:
        synced.append(os.readlink(f"/proc/self/fd/{handle}"))
        fsync(handle)

    monkeypatch.setattr(os, "fsync", note)
    for _ in range(2):
        Database(tmp_path / "a" / "b" / "registry.db").close()

    assert [str(tmp_path), str(tmp_path / "a")] == synced
