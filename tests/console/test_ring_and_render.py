"""`fairlead ring …` and `fairlead render` on a real registry process."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fairlead_console.main import main
from harness.servers import Server
from harness.waiting import wait_until


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("ring")
    url = f"local:{folder}/registry.sock"
    words = [sys.executable, "-m", "fairlead_console", "registry", "--set", f"registry={url}", "--set", "token=off"]
    server = Server([*words, "--set", f"data_dir={folder}"], log=folder / "registry.log")
    server.start()
    wait_until("the registry serves", (folder / "registry.sock").exists)
    yield url
    server.stop()


@pytest.fixture
def fairlead(registry: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FAIRLEAD_REGISTRY", registry)
    monkeypatch.delenv("FAIRLEAD_DATA_DIR", raising=False)

    def run(*words: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main(["ring", *words])
        return (code, *capsys.readouterr())

    return run


@pytest.fixture
def orders(fairlead) -> Iterator[str]:
    """A ring of three members and two copies."""
    assert (0, "orders: made; `fairlead ring join` adds members (version 1)\n", "") == fairlead(
        "create", "orders", "--slots", "64", "--replicas", "2"
    )
    fairlead("join", "orders", "a", "--rack", "r1")
    fairlead("join", "orders", "b", "--rack", "r2")
    fairlead("settle", "orders")
    fairlead("join", "orders", "c", "--rack", "r1")
    fairlead("settle", "orders")
    yield "orders"
    fairlead("destroy", "orders")


def asked(fairlead, *words: str) -> dict:
    code, out, err = fairlead(*words, "--json")
    assert (0, "") == (code, err)
    return json.loads(out)


def test_a_member_joins_when_it_is_ready(fairlead, orders: str):
    """Owners stay until then; `diff` shows what it waits for."""
    before = asked(fairlead, "owners", orders, "user:42")["keys"][0]["owners"]
    _, out, _ = fairlead("join", orders, "d", "--rack", "r2")
    pending = asked(fairlead, "diff", orders)
    during = asked(fairlead, "owners", orders, "user:42")["keys"][0]
    receivers = sorted({move["to"] for move in pending["moves"]})
    for name in receivers:
        code, done, _ = fairlead("ready", orders, name, "--version", str(pending["version"]))
        assert code == 0
    after = asked(fairlead, "owners", orders, "user:42")["keys"][0]

    assert "d" in receivers
    assert f"orders: hand-over goes on, waiting for {', '.join(receivers)} (version {pending['version']})\n" == out
    assert before == during["owners"]
    assert f"orders: nothing to hand over (version {pending['version'] + 1})\n" == done
    assert during["next_owners"] == after["owners"]


def test_a_weight_is_changed_by_hand_over(fairlead, orders: str):
    """Planned, pending, and in force when ownership moves."""
    planned = asked(fairlead, "diff", orders, "--weigh", "a=3")
    code, out, _ = fairlead("weigh", orders, "a", "3")
    pending = asked(fairlead, "diff", orders)
    shown = fairlead("balance", orders)[1]
    fairlead("settle", orders)
    weights = {row["name"]: row["weight"] for row in asked(fairlead, "balance", orders)["members"]}

    assert (0, True) == (code, "hand-over goes on, waiting for" in out)
    assert planned["moves"] == pending["moves"]
    assert "1 -> 3" in shown
    assert {"a": 3.0, "b": 1.0, "c": 1.0} == weights


def test_balance_shows_shares_beside_what_is_fair(fairlead, orders: str):
    """A row a member; the copies are all there."""
    found = asked(fairlead, "balance", orders)
    table = fairlead("balance", orders)[1].splitlines()

    assert 0 == found["short_slots"]
    assert 2 * 64 == sum(member["copies"] for member in found["members"])
    assert ["a", "active", "1", "-", "r1"] == table[1].split()[:5]


def test_a_planned_leave_changes_nothing(fairlead, orders: str):
    """`diff --leave` counts what would move."""
    version = asked(fairlead, "balance", orders)["version"]
    _, out, _ = fairlead("diff", orders, "--leave", "c", "--join", "x=0.5")

    assert "copies move" in out
    assert version == asked(fairlead, "balance", orders)["version"]


@pytest.mark.parametrize(
    ("words", "code", "error"),
    [
        (("owners", "none", "k"), 1, "no ring is called none, and no endpoint; `fairlead ring create` makes a ring"),
        (("owners", "/no/app", "k"), 1, "no ring is called /no/app, and no endpoint; `fairlead ring create` makes a ring"),
        (("create", "x", "--slots", "1000"), 1, "ring: slots is 1000, expected a power of two"),
        (("leave", "none", "a"), 1, "no ring is called none; `fairlead ring create` makes one"),
        (("diff", "none", "--join", "a=much"), 1, "no ring is called none, and no endpoint; `fairlead ring create` makes a ring"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_one_line(fairlead, words: tuple[str, ...], code: int, error: str):
    """With what to do."""
    assert (code, "", f"fairlead: {error}\n") == fairlead(*words)


def test_a_weight_that_is_none_is_named(fairlead, orders: str):
    """Exit 2, as other words that cannot be."""
    assert (2, "", "fairlead: --join a=much: 'much' is no weight\n") == fairlead("diff", orders, "--join", "a=much")


def test_a_repeated_readiness_says_why_not(fairlead, orders: str):
    """After the hand-over nobody waits any more."""
    version = asked(fairlead, "balance", orders)["version"]
    code, _, err = fairlead("ready", orders, "a", "--version", str(version))

    assert 1 == code
    assert f"a is to get nothing at version {version}" in err


def test_render_writes_a_file_of_endpoints(
    registry: str, capsys: pytest.CaptureFixture[str], monkeypatch, tmp_path: Path
):
    """Once; a template without a word about services needs none."""
    monkeypatch.setenv("FAIRLEAD_REGISTRY", registry)
    template, target = tmp_path / "t.j2", tmp_path / "out.conf"
    template.write_text("{{ endpoints('/nobody') | length }}\n")
    words = ["render", str(template), "--to", str(target), "--check", "grep -q 0 {}", "--once"]
    first = main(words), capsys.readouterr().out
    second = main(words), capsys.readouterr().out
    template.write_text("{{ endpoints('/nobody') | length }} more\n")
    refused = main(words), capsys.readouterr().err

    assert (0, f"{target}: written\n") == first
    assert (0, f"{target}: unchanged\n") == second
    assert (1, f"fairlead: {target} stays: no endpoint of /nobody (--allow-empty)\n") == refused
    assert "0\n" == target.read_text()
