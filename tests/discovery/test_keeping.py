"""The last good state on disk: whatever was written last, also when the end of it is torn."""

import asyncio
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairlead_discovery import keeping
from fairlead_discovery.keeping import Book, Keeper, load
from fairlead_discovery.registry import Sight
from harness.waiting import wait_until

FOLDERS = st.dictionaries(
    st.sampled_from(("/e/a", "/e/b")),
    st.dictionaries(st.sampled_from(("m1", "m2", "m3")), st.sampled_from((b"1", b"2")), min_size=1),
)


def sight(revision: int, folders: Mapping[str, Mapping[str, bytes]], *, cluster: str = "c") -> Sight:
    return Sight(in_sight=True, cluster=cluster, revision=revision, folders=folders)


def kept(path: Path) -> tuple[str, int, object]:
    found = load(path)
    assert found is not None
    return found.cluster, found.revision, found.folders


@settings(max_examples=20)  # each writes to disk
@given(st.lists(FOLDERS, min_size=1, max_size=6), st.sampled_from((0, 100, 1 << 16)))
def test_what_was_saved_last_is_loaded(states: list[Mapping[str, Mapping[str, bytes]]], small_bytes: int):
    """After each save; whole every time, sometimes, or once and changes after it."""
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(keeping, "SMALL_BYTES", small_bytes)
        book = Book(Path(folder) / "state")
        for revision, folders in enumerate(states):
            book.save(sight(revision, folders))

            assert ("c", revision, folders) == kept(Path(folder) / "state")


def test_a_change_costs_a_write_of_its_size(tmp_path: Path):
    """Among 10,000 nodes; the file that holds all of them stays as it is."""
    nodes = {f"m{n}": b"x" * 100 for n in range(10_000)}
    book = Book(tmp_path / "state")
    book.save(sight(1, {"/e/a": nodes}))
    before = (tmp_path / "state").stat()
    book.save(sight(2, {"/e/a": {**nodes, "m0": b"y"}}))

    assert before.st_ino == (tmp_path / "state").stat().st_ino
    assert (tmp_path / "state.changes").stat().st_size < 200
    assert ("c", 2, {"/e/a": {**nodes, "m0": b"y"}}) == kept(tmp_path / "state")


@pytest.mark.parametrize("left", [0, 4, 8, 20])
def test_a_torn_end_is_left_out(tmp_path: Path, left: int):
    """Power was lost while the last change was being appended: the state before it is served."""
    book = Book(tmp_path / "state")
    for revision in range(3):
        book.save(sight(revision, {"/e/a": {f"m{revision}": b"1"}}))
        if revision == 1:
            whole = (tmp_path / "state.changes").read_bytes()
    torn = (tmp_path / "state.changes").read_bytes()[: len(whole) + left]
    (tmp_path / "state.changes").write_bytes(torn)

    assert ("c", 1, {"/e/a": {"m1": b"1"}}) == kept(tmp_path / "state")


def test_changes_of_another_file_are_not_applied(tmp_path: Path):
    """We died between replacing the whole and removing its predecessor's changes."""
    path = tmp_path / "state"
    old = Book(path)
    old.save(sight(1, {"/e/a": {"m1": b"1"}}))
    old.save(sight(2, {"/e/a": {"m2": b"1"}}))
    left_over = (tmp_path / "state.changes").read_bytes()
    Book(path).save(sight(3, {"/e/b": {"m3": b"1"}}))
    (tmp_path / "state.changes").write_bytes(left_over)

    assert ("c", 3, {"/e/b": {"m3": b"1"}}) == kept(path)


def test_changes_after_a_gap_are_not_applied(tmp_path: Path):
    """Another process has used the same file, and taken away what we had appended until then."""
    book = Book(tmp_path / "state")
    changes = tmp_path / "state.changes"
    sizes = []
    for revision in range(4):
        book.save(sight(revision, {"/e/a": {f"m{revision}": b"1"}}))
        sizes.append(changes.stat().st_size if revision else 0)
    changes.write_bytes(changes.read_bytes()[: sizes[1]] + changes.read_bytes()[sizes[2] :])

    assert ("c", 1, {"/e/a": {"m1": b"1"}}) == kept(tmp_path / "state")


@pytest.mark.parametrize("name", ["state", "state.changes"])
def test_a_file_that_went_is_written_anew(tmp_path: Path, name: str):
    """Somebody has removed it; a change alone would be lost behind the gap."""
    book = Book(tmp_path / "state")
    book.save(sight(1, {"/e/a": {"m1": b"1"}}))
    book.save(sight(2, {"/e/a": {"m2": b"1"}}))
    (tmp_path / name).unlink()
    book.save(sight(3, {"/e/a": {"m3": b"1"}}))

    assert ("c", 3, {"/e/a": {"m3": b"1"}}) == kept(tmp_path / "state")


def test_two_processes_on_one_file_lose_nothing(tmp_path: Path):
    """Whoever saves last is loaded, whatever the other had done to the files before; also what says only "still true"."""
    one, other = Book(tmp_path / "state"), Book(tmp_path / "state")
    for revision, book in enumerate((one, other, one, one, other, other, one)):
        state = sight(revision, {"/e/a": {f"m{revision}": b"1"}})
        book.save(state)
        assert ("c", revision, {"/e/a": {f"m{revision}": b"1"}}) == kept(tmp_path / "state")
    last = sight(7, {"/e/a": {"m7": b"1"}})
    one.save(last)
    other.save(sight(5, {}))
    one.save(last)

    assert ("c", 7, {"/e/a": {"m7": b"1"}}) == kept(tmp_path / "state")


async def test_what_could_not_be_written_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The disk was full, and no change came after: what lies there is not called true until it is."""
    monkeypatch.setattr(keeping, "PAUSE_S", 0.01)
    monkeypatch.setattr(keeping, "TOUCH_S", 0.05)
    path = tmp_path / "none" / "state"
    path.parent.write_text("a file where a folder should be")
    keeper = Keeper(path)
    keeper.live = True
    keeper.put(sight(1, {"/e/a": {"m1": b"1"}}))
    running = asyncio.create_task(keeper.run())
    await asyncio.sleep(0.1)
    path.parent.unlink()
    await asyncio.to_thread(wait_until, "the state on disk", path.exists)
    running.cancel()
    await asyncio.wait([running])

    assert ("c", 1, {"/e/a": {"m1": b"1"}}) == kept(path)


def test_another_cluster_is_written_whole(tmp_path: Path):
    """Its changes are none of the other's."""
    book = Book(tmp_path / "state")
    book.save(sight(5, {"/e/a": {"m1": b"1"}}))
    book.save(sight(6, {"/e/a": {"m2": b"1"}}))
    book.save(sight(1, {}, cluster="d"))

    assert ("d", 1, {}) == kept(tmp_path / "state")
    assert not (tmp_path / "state.changes").exists()
