"""`fairlead registry tree|get|confirm` on a real registry process."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fairlead_console.main import main
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
