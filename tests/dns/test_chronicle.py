"""The journal across restarts: what a file of any length says is true, and changes go on where they stood."""

import asyncio
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import dns.query as dns_query
import pytest
from dns.xfr import TransferError
from hypothesis import given, settings
from hypothesis import strategies as st

from fairlead_discovery.backends import open_registry
from fairlead_dns.adapters import chronicle as chronicle_file
from fairlead_dns.adapters.chronicle import Chronicle
from fairlead_dns.decisions import chronicle, history
from fairlead_dns.decisions.chronicle import MAGIC, Based, Head, Kept, Settled, frame
from fairlead_dns.decisions.journal import Held
from fairlead_dns.names import Names
from harness.names import authority, member, names, publish, snapshot, withdraw
from harness.naming import Running, running
from harness.waiting import eventually

MESOS = b"\5mesos\0"
NAME = "web.marathon.mesos"
WEB = b"\3web\x08marathon\5mesos\0"
STATES = st.lists(st.sets(st.integers(0, 3)), min_size=1, max_size=4)
"""Which instances there are, at one revision after the other."""
Content = dict[bytes, Held]


def content(made: Names) -> Content:
    """What the names have at the ledger's serial."""
    return dict(made.ledger.frozen(MESOS).all_names())


def settled(made: Names, instances: set[int], revision: int) -> None:
    made.take_snapshot(snapshot(*map(member, instances), revision=revision))
    made.settle()


class Life:
    """One process: its names, and the file it writes."""

    def __init__(self, file: bytes = b"") -> None:
        self.names = names(member(0))
        self.file = bytearray(file)
        self.contents: dict[int, Content] = {}
        self.names.ledger.told = lambda *change: self.file.extend(frame(Settled(*change)))

    def begin(self) -> None:
        """As the daemon makes a new file."""
        ledger = self.names.ledger
        head = Head(self.names.authority, ledger.begun_s, any(j.forgotten for j in ledger.journals.values()))
        assert ledger.serial is not None
        self.file = bytearray(MAGIC + b"".join(map(frame, (head, *chronicle.past(ledger)))))
        self.file += b"".join(map(frame, chronicle.statement(ledger.frozen(MESOS).all_names())))
        self.file += frame(Based(ledger.serial))

    def take(self, states: list[set[int]], first: int) -> int:
        """Returns the next revision."""
        for revision, instances in enumerate(states, start=first):
            settled(self.names, instances, revision)
            self.contents[revision] = content(self.names)
        return first + len(states)


def kept_of(file: bytes, most: int = 1000) -> Kept | None:
    return chronicle.read(memoryview(file), authority(), most)


def after(before: Content, made: Names, since: int) -> Content:
    """What a secondary has that had `before`, and fetches the changes."""
    serial = made.ledger.serial
    assert serial is not None
    found = made.ledger.journals[MESOS].since(since, serial)
    assert found is not None
    now = dict(before)
    for change in found:
        for each in change.names:
            assert now.get(each.name, ()) == each.before
            now[each.name] = each.after
    return {name: held for name, held in now.items() if held}


@given(STATES, STATES, STATES, st.booleans())
@settings(deadline=None, max_examples=60)
def test_a_secondary_follows_across_a_restart(
    first: list[set[int]], missed: list[set[int]], second: list[set[int]], anew: bool
) -> None:
    """Whatever changed before, while nobody looked, and after: the changes lead from what each serial had to what is."""
    old = Life()
    revision = old.take(first, 1)
    old.begin()
    revision = old.take(second, revision)
    if anew:
        old.begin()
    kept = kept_of(old.file)
    assert kept is not None
    young = Life(old.file)
    young.names.take_snapshot(snapshot(*map(member, missed[-1]), revision=revision + 5))
    for _ in chronicle.resume(young.names.ledger, kept):
        pass
    assert (content(old.names), old.names.ledger.serial) == (content(young.names), young.names.ledger.serial)
    young.names.settle()
    young.take(second, revision + 6)

    for serial, was in old.contents.items():
        assert content(young.names) == after(was, young.names, serial)


def test_what_a_name_answered_before_a_restart_is_known() -> None:
    """Also of one that has changed since, and of one that has not."""
    old = Life()
    old.take([{0}, {0, 1}], 1)
    old.begin()
    (kept,) = [kept_of(old.file)]
    assert kept is not None
    young = names()
    young.take_snapshot(snapshot(member(2), revision=9))
    [*chronicle.resume(young.ledger, kept)]
    young.settle()
    source = young.source(WEB)
    assert source is not None
    memory = history.Memory(source.journal, source.held(WEB), source.begun_s)
    moments = [change.at_s for change in source.journal.changes]

    assert [["A 10.0.0.1"], ["A 10.0.0.1", "A 10.0.0.2"], ["A 10.0.0.3"]] == [
        history.rows(history.past(memory, WEB, at_s).held) for at_s in (moments[0] - 1.0, moments[0], moments[1])
    ]
    assert old.names.ledger.begun_s == source.begun_s


@given(STATES, STATES, st.integers(0, 10_000), st.booleans())
@settings(deadline=None, max_examples=80)
def test_of_a_torn_file_what_is_whole_counts(
    first: list[set[int]], second: list[set[int]], cut: int, garbled: bool
) -> None:
    """Cut anywhere, or with another byte anywhere: nothing, or exactly what stood at an earlier serial."""
    life = Life()
    revision = life.take(first, 1)
    life.begin()
    life.take(second, revision)
    at = cut % len(life.file)
    torn = bytes(life.file[:at]) + (bytes((life.file[at] ^ 1,)) + bytes(life.file[at + 1 :]) if garbled else b"")
    kept = kept_of(torn)
    if kept is None or kept.serial is None:
        return
    said = {name: held for part in kept.names() for name, held in part.items()}

    assert life.contents[kept.serial] == said
    assert kept.end <= at or kept.end == len(life.file)


@pytest.mark.parametrize("at", [0, 3, 4, 9, 30])
@pytest.mark.parametrize("damaged", [1, 2])
def test_damage_is_told_from_a_last_frame_that_was_under_way(at: int, damaged: int) -> None:
    """Another byte in a frame's length, checksum, mark or data: changes after it are missing. Of the last frame any part
    may be missing.
    """
    life = Life()
    life.take([{0}], 1)
    life.begin()
    ends = [len(life.file)]
    for revision, instances in enumerate(({0, 1}, {1}, {0}), start=2):
        life.take([instances], revision)
        ends.append(len(life.file))
    file = bytearray(life.file)
    file[ends[damaged - 1] + at] ^= 0x40
    found = kept_of(bytes(file))

    assert found is not None
    assert (ends[damaged - 1], True) == (found.end, found.lost)
    for size in (ends[2] + 3, ends[2] + 8, ends[3] - 1, ends[3]):
        whole = kept_of(bytes(life.file[:size]))
        assert whole is not None
        assert not whole.lost


async def test_after_damage_history_begins_now(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A warning; what was answered before is not known, now and after another restart; the names go on."""
    file, life = tmp_path / "journal", Life()
    life.take([{0}], 1)
    life.begin()
    end = len(life.file)
    life.take([{0, 1}, {1}, {0, 2}], 2)
    life.file[end + 20] ^= 1
    file.write_bytes(life.file)
    damaged_s = time.time()

    for _ in range(2):
        young = names(member(0), member(2))
        young.take_snapshot(snapshot(member(0), member(2), revision=4))
        kept = Chronicle(young, file, 100)
        await kept.resume(alone=False)
        writing = asyncio.ensure_future(kept.run())
        young.settle()
        source = young.source(WEB)
        assert source is not None
        memory = history.Memory(source.journal, source.held(WEB), source.begun_s)
        assert memory.begins_s >= damaged_s
        assert not history.past(memory, WEB, damaged_s - 1).remembered
        assert ["A 10.0.0.1", "A 10.0.0.3"] == history.rows(memory.live)
        await eventually("it is whole again", lambda: whole(file))
        writing.cancel()
        await asyncio.wait({writing})

    assert ["journal damaged"] == [r.getMessage().split(":")[0] for r in caplog.records if r.levelname == "WARNING"]


async def whole(file: Path) -> bool:
    found = kept_of(file.read_bytes())
    return found is not None and not found.lost and found.serial == 4


def test_a_file_of_other_settings_or_a_later_revision_is_not_gone_on_with() -> None:
    """Another TTL is another zone; a smaller revision is another registry, unless nobody is sure of it."""
    life = Life()
    life.take([{0}], 7)
    life.begin()
    kept = kept_of(life.file)
    assert kept is not None

    assert None is chronicle.read(memoryview(bytes(life.file)), authority(ttl_s=9), 1000)
    assert [False, True, True, True] == [
        chronicle.can_follow(kept, revision, sure=sure)
        for revision, sure in ((6, True), (7, True), (8, True), (6, False))
    ]


def test_no_more_is_taken_up_than_is_kept() -> None:
    """The newest changes, and it is known that there were others."""
    life = Life()
    life.take([{0}], 1)
    life.begin()
    life.take([{0, 1}, {1}, {0}], 2)
    kept = kept_of(life.file, most=2)

    assert kept is not None
    assert ([3, 4], True) == ([each.serial for each in kept.changes], kept.forgotten)


async def test_a_restarted_server_remembers(tmp_path: Path) -> None:
    """What was answered before it is told over HTTP; what changed meanwhile is a change of the restart. A file that
    cannot be used is no reason not to start.
    """
    file = tmp_path / "dns-one.journal"
    async with running(tmp_path) as dns:
        await publish(dns.registry, member())
        await dns.until(NAME, ["10.0.0.1"])
        await eventually("the file is made", lambda: exists(file))
        await publish(dns.registry, member(1))
        await dns.until(NAME, ["10.0.0.1", "10.0.0.2"])
    missing = await open_registry(f"memory:{tmp_path.name}")
    await withdraw(missing, member())
    await missing.close()
    async with running(tmp_path) as dns:
        await dns.until(NAME, ["10.0.0.2"])

        async def told() -> list[tuple[list[str], list[str]]]:
            page = await dns.get(f"/v2/history?name={NAME}")
            rows = [(row["added"], row["removed"]) for row in page["changes"]]
            return rows if rows[-1][1] else []

        assert [(["A 10.0.0.2"], []), ([], ["A 10.0.0.1"])] == (await eventually("it is known", told))[-2:]
    file.write_bytes(file.read_bytes()[:40] + bytes(100))
    async with running(tmp_path) as dns:
        await dns.until(NAME, ["10.0.0.2"])
        await eventually("it is made anew", lambda: exists(file))


async def exists(file: Path) -> bool:
    """With all that a file must hold."""
    found = chronicle.frames(memoryview(file.read_bytes())) if file.exists() else ()
    return any(isinstance(message, Based) for _, message in found)


async def test_a_file_that_grows_is_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that changes for ever takes no more room than its past and its present."""
    monkeypatch.setattr("fairlead_dns.adapters.chronicle.LEAST_BYTES", 2000)
    made = names(member())
    made.ledger.journals[MESOS].most_changes = 5
    file = tmp_path / "journal"
    kept = Chronicle(made, file, 5)
    await kept.resume(alone=False)
    made.settle()
    running_ = asyncio.ensure_future(kept.run())
    for revision in range(2, 60):
        settled(made, {revision % 2, 3}, revision)
        await asyncio.sleep(0.01)
    wanted = content(made)

    async def written() -> bool:
        found = kept_of(file.read_bytes()) if file.exists() else None
        return found is not None and found.serial == 59 and file.stat().st_size < 20_000

    await eventually("all is written, and no more than must be", written, within_s=30)
    running_.cancel()
    await asyncio.wait({running_})
    found = kept_of(file.read_bytes())

    assert found is not None
    assert wanted == {name: held for part in found.names() for name, held in part.items()}


async def test_two_processes_do_not_write_one_file(tmp_path: Path) -> None:
    """The second keeps its journal in memory alone."""
    first, second = (Chronicle(names(), tmp_path / "journal", 5) for _ in range(2))
    await first.resume(alone=False)
    await second.resume(alone=False)

    assert (True, False) == (first.keeps, second.keeps)


async def test_a_secondary_fetches_only_changes_after_a_restart(tmp_path: Path) -> None:
    """IXFR from a serial of the life before: what went and what came, not the zone."""
    how = {"transfers": ["127.0.0.1"]}
    async with running(tmp_path, **how) as dns:
        await publish(dns.registry, *map(member, range(50)))
        await eventually("all are there", lambda: counts(dns, 50))
        await eventually("the file is made", lambda: exists(tmp_path / "dns-one.journal"))
        before = await eventually("it has a serial", lambda: transferred(dns.port, "AXFR"))
    registry = await open_registry(f"memory:{tmp_path.name}")
    await withdraw(registry, member(7))
    await registry.close()
    async with running(tmp_path, **how) as dns:
        await eventually("one has gone", lambda: counts(dns, 49))
        serial = int(before[0].split()[-5])

        async def changed() -> list[str]:
            found = await transferred(dns.port, "IXFR", serial)
            return found if len(found) > 1 else []

        rows = await eventually("there are changes", changed)

    assert len(before) > 50 > len(rows)
    assert any(row.endswith("10.0.0.8") for row in rows)
    assert not any(row.endswith("10.0.0.9") for row in rows)


async def counts(dns: Running, instances: int) -> bool:
    return len(await dns.knows(NAME)) == instances


async def transferred(port: int, kind: str, serial: int = 0) -> list[str]:
    """The records of a transfer, in order."""

    def fetched() -> list[str]:
        messages = dns_query.xfr("127.0.0.1", "mesos", kind, port=port, serial=serial, relativize=False, lifetime=10)
        try:
            return [f"{r.name} {line}" for m in messages for r in m.answer for line in r.to_text().splitlines()]
        except TransferError as error:  # nothing has a serial yet
            raise OSError(str(error)) from error

    return await asyncio.to_thread(fetched)


async def test_what_is_being_written_at_the_end_is_written_once_and_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thread goes on though who waits for it is cancelled: nothing is put beside it, and the lock is kept until then."""
    made = names(member())
    file = tmp_path / "journal"
    kept = Chronicle(made, file, 100)
    await kept.resume(alone=False)
    made.settle()
    task = asyncio.ensure_future(kept.run())
    await eventually("the file is made", lambda: exists(file))
    begun, may, append = threading.Event(), threading.Event(), chronicle_file._append

    def slow(path: Path, parts: Sequence[bytes]) -> None:
        if not begun.is_set():
            begun.set()
            may.wait(20)
        append(path, parts)

    monkeypatch.setattr(chronicle_file, "_append", slow)
    settled(made, {1}, 2)
    async with asyncio.timeout(20):
        await asyncio.to_thread(begun.wait, 20)
        settled(made, {1, 2}, 3)
        task.cancel()
        await asyncio.wait({task}, timeout=0.1)
        assert not task.done()
        may.set()
        await asyncio.wait({task})
    found = kept_of(file.read_bytes())

    assert found is not None
    assert [2, 3] == [each.serial for each in found.changes][-2:]
