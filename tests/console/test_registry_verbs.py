"""`fairlead registry tree|get|watch|export|import|check|copy|confirm` on a real registry process."""

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from threading import Event, Thread

import pytest

from fairlead_console.main import main
from fairlead_discovery.backends import open_registry
from fairlead_discovery.registry import Change, Put
from harness.waiting import wait_until


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("r")
    url = f"local:{folder}/registry.sock"
    words = [sys.executable, "-m", "fairlead_console", "registry", "--set", f"registry={url}", "--set", "token=off"]
    process = subprocess.Popen([*words, "--set", f"data_dir={folder}"])
    wait_until("the registry serves", (folder / "registry.sock").exists)
    yield url
    process.terminate()
    process.wait(10)


@pytest.fixture
def fairlead(registry: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FAIRLEAD_REGISTRY", registry)
    monkeypatch.delenv("FAIRLEAD_DATA_DIR", raising=False)

    def run(*words: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main(["registry", *words])
        return (code, *capsys.readouterr())

    return run


def test_the_tree_lists_every_path_with_its_size(fairlead):
    """Sorted, on one line each."""
    code, out, err = fairlead("tree", "/", "--json")
    paths = [entry["path"] for entry in json.loads(out)]

    assert (0, "") == (code, err)
    assert {"/fairlead/cluster", "/fairlead/revision"} <= set(paths)
    assert sorted(paths) == paths


def test_a_path_is_shown_as_it_is_stored(fairlead):
    """JSON stays JSON."""
    _, out, _ = fairlead("get", "/fairlead/cluster")

    assert "uuid" in json.loads(out)


def test_confirming_names_cluster_and_revision(fairlead):
    """So that the person sees what was believed."""
    cluster = json.loads(fairlead("get", "/fairlead/cluster")[1])["uuid"]
    code, out, err = fairlead("confirm")

    assert (0, "") == (code, err)
    assert f"cluster {cluster} at revision" in out


@pytest.mark.parametrize("verb", ["get", "tree"])
def test_an_unknown_path_is_one_line(fairlead, verb: str):
    """Exit 1."""
    assert (1, "", "fairlead: no such path: /fairlead/none\n") == fairlead(verb, "/fairlead/none")


def test_a_registry_that_is_away_is_exit_3(fairlead, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Within seconds."""
    monkeypatch.setenv("FAIRLEAD_REGISTRY", f"local:{tmp_path}/none.sock")

    assert 3 == fairlead("get", "/fairlead/cluster")[0]


def test_no_registry_known_is_exit_2(fairlead, monkeypatch: pytest.MonkeyPatch):
    """With what to set."""
    monkeypatch.setenv("FAIRLEAD_REGISTRY", "")
    code, _, err = fairlead("tree")

    assert 2 == code
    assert "FAIRLEAD_REGISTRY" in err


def test_what_was_exported_comes_back(fairlead, tmp_path: Path):
    """Through a packed file: the plan first, then the import; revision and cluster go on."""
    file = str(tmp_path / "r.jsonl.gz")
    saved = json.loads(fairlead("export", file, "--json")[1])
    _, planned, _ = fairlead("import", file, "--dry-run", "--json")
    code, out, _ = fairlead("import", file, "--json")
    done = json.loads(out)

    assert (0, True, False) == (code, done["done"], json.loads(planned)["done"])
    assert (saved["cluster"], saved["revision"] + 1) == (done["cluster"], done["revision"])


def test_a_damaged_file_is_named(fairlead, tmp_path: Path):
    """With its line; so is one that is not there."""
    file = tmp_path / "bad.jsonl"
    file.write_text("{}\n")

    code, _, err = fairlead("import", str(file))
    assert (1, True) == (code, f"{file}: line 1" in err)
    code, _, err = fairlead("import", str(tmp_path / "none"))
    assert (1, True) == (code, "No such file" in err)


def test_a_check_names_and_mends(fairlead, registry: str):
    """Exit code 1 as long as something is wrong."""
    path = "/fairlead/leaving/t1"
    asyncio.run(_commit(registry, Put(path, b"no json")))

    code, out, _ = fairlead("check")
    assert (1, True, True) == (code, path in out, "--repair mends it" in out)
    assert 0 == fairlead("check", "--repair")[0]
    assert (0, "nothing is wrong\n", "") == fairlead("check")


def test_a_copy_to_itself_is_refused(fairlead, registry: str):
    """Exit code 2: it is a matter of what was asked for."""
    code, _, err = fairlead("copy", registry)

    assert (2, True) == (code, "is the registry to copy from" in err)


def test_changes_are_shown_as_they_happen(fairlead, registry: str):
    """A line each, with the revision; documents without."""
    started = Thread(target=_commit_until_stopped, args=(registry, stop := Event()), daemon=True)
    started.start()
    try:
        code, out, _ = fairlead("watch", "/fairlead/leaving", "--changes", "2", "--json")
    finally:
        stop.set()
        started.join()
    lines = list(map(json.loads, out.splitlines()))

    assert (0, 2) == (code, len(lines))
    assert {"/fairlead/leaving/watched"} == {line["path"] for line in lines}
    assert lines[0]["revision"] < lines[1]["revision"]


def _commit_until_stopped(url: str, stop: Event) -> None:
    while not stop.wait(0.1):
        asyncio.run(_commit(url, Put("/fairlead/leaving/watched", b"%d" % time.monotonic_ns())))


async def _commit(url: str, *changes: Change) -> None:
    registry = await open_registry(url)
    await registry.commit(changes)
    await registry.close()
