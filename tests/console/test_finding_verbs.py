"""`fairlead resolve`, `group` and `barrier`: on a real registry, and over HTTP where it is closed."""

import asyncio
import json
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from discovery.records_of import WEB, member, publish
from fairlead_console.main import main
from fairlead_discovery.backends import open_registry
from fairlead_discovery.registry import Change
from harness.ports import free_port
from harness.servers import Server
from harness.waiting import wait_until

FAIRLEAD = [sys.executable, "-m", "fairlead_console"]
PLACES = [f"10.0.0.1:{member(n).serviceEndpoint.port}" for n in (1, 2)]
Fairlead = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """A registry with two endpoints of one service, and `fairlead discovery` beside it."""
    folder, port = tmp_path_factory.mktemp("finding"), free_port()
    url = f"local:{folder}/r.sock"
    common = ["--set", f"registry={url}", "--set", "token=off", "--set", f"data_dir={folder}"]
    servers = [
        Server([*FAIRLEAD, "registry", *common], log=folder / "registry.log").start(),
        Server([*FAIRLEAD, "discovery", *common, "--set", f"port={port}"], log=folder / "discovery.log").start(),
    ]
    wait_until("the registry serves", (folder / "r.sock").exists, within_s=40)
    asyncio.run(commit(url, publish(1), publish(2)))

    def ready() -> bool:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/v2/services/{WEB}", timeout=5) as answer:
            return len(json.load(answer)["endpoints"]) == 2

    servers[1].wait_ready("fairlead discovery", ready, within_s=60)
    yield {"registry": url, "http": f"http://127.0.0.1:{port}"}
    for server in reversed(servers):
        server.stop()


async def commit(url: str, *changes: Change) -> None:
    opened = await open_registry(url)
    await opened.commit(list(changes))
    await opened.close()


@pytest.fixture
def fairlead(
    places: dict[str, str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FAIRLEAD_REGISTRY", places["registry"])
    monkeypatch.delenv("FAIRLEAD_DATA_DIR", raising=False)

    def run(*words: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main(words)
        return (code, *capsys.readouterr())

    return run


@pytest.mark.parametrize("name", [WEB, "/shop/web", "web.marathon.mesos"])
@pytest.mark.parametrize("how", ["registry", "http"])
def test_endpoints_are_printed(fairlead: Fairlead, places: dict[str, str], how: str, name: str):
    """One a line, from the registry or the watch API."""
    assert (0, "\n".join(PLACES) + "\n", "") == fairlead("resolve", name, "--registry", places[how])


def test_one_is_picked_by_key(fairlead: Fairlead):
    """The same key, the same endpoint."""
    picked = {fairlead("resolve", WEB, "--key", "user:42")[1].strip() for _ in range(3)}
    plain = json.loads(fairlead("resolve", WEB, "--pick", "--json")[1])

    assert 1 == len(picked)
    assert picked < {*PLACES}
    assert f"{plain['host']}:{plain['port']}" in PLACES


@pytest.mark.parametrize(
    "words",
    [
        ("registry", "get", "/fairlead/cluster"),
        ("registry", "export"),
        ("route", "list"),
        ("lb", "list"),
        ("ring", "owners", WEB, "key"),
        ("barrier", "alone", "--parties", "1"),
        ("group", "nobody"),
        ("resolve", WEB),
    ],
)
def test_the_registry_is_named_by_an_option(
    fairlead: Fairlead, places: dict[str, str], monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
):
    """Of every verb that asks it; without one the words name all three ways."""
    monkeypatch.setenv("FAIRLEAD_REGISTRY", "")
    named = fairlead(*words, "--registry", places["registry"])
    unnamed = fairlead(*words)

    assert (0, 2) == (named[0], unnamed[0])
    assert all(way in unnamed[2] for way in ("--registry", "FAIRLEAD_REGISTRY", "--data-dir"))


def test_no_endpoint_is_an_exit_code(fairlead: Fairlead):
    """3: it may come."""
    code, _, err = fairlead("resolve", "/shop/nothing")

    assert (3, True) == (code, "no endpoint" in err)


def test_a_missing_token_is_said_at_once(fairlead: Fairlead, tmp_path: Path):
    """It is not for want of endpoints: there is nothing to wait for."""
    port, token = free_port(), tmp_path / "token"
    token.write_text("x" * 32)
    token.chmod(0o600)
    words = ["--set", f"registry=local:{tmp_path}/none.sock", "--set", "reads=token", "--set", f"token_file={token}"]
    server = Server(
        [*FAIRLEAD, "discovery", *words, "--set", f"data_dir={tmp_path}", "--set", f"port={port}", "--set", "token=on"],
        log=tmp_path / "discovery.log",
    ).start()
    try:
        server.wait_ready("it serves", lambda: serves(f"http://127.0.0.1:{port}/health"), within_s=60)
        code, _, err = fairlead("resolve", WEB, "--registry", f"http://127.0.0.1:{port}")
    finally:
        server.stop()

    assert (1, True, False) == (code, "401" in err and "FAIRLEAD_TOKEN_FILE" in err, "no endpoint" in err)


def serves(url: str) -> bool:
    with urllib.request.urlopen(url, timeout=5) as answer:
        return bool(answer.status == 200)


def test_render_works_over_http(
    fairlead: Fairlead, places: dict[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    """Where the registry is closed."""
    monkeypatch.setenv("FAIRLEAD_REGISTRY", places["http"])
    (tmp_path / "t.j2").write_text("{% for e in endpoints('/shop/web') %}{{ e.name }} {% endfor %}")
    code, _, _ = fairlead("render", str(tmp_path / "t.j2"), "--to", str(tmp_path / "out"), "--once")

    assert (0, " ".join(PLACES)) == (code, (tmp_path / "out").read_text().strip())


def test_a_member_is_there_while_its_command_runs(fairlead: Fairlead, places: dict[str, str]):
    """And is seen with its data; the command's exit code is ours."""
    words = ["group", "workers", "--as", "w1", "--data", "shard 3", "--registry", places["registry"], "--"]
    running = subprocess.Popen([*FAIRLEAD, *words, sys.executable, "-c", "input(); exit(7)"], stdin=subprocess.PIPE)
    try:
        wait_until("it is there", lambda: "w1" in fairlead("group", "workers")[1], within_s=40)
        told = json.loads(fairlead("group", "workers", "--json")[1])
        running.communicate(b"\n", timeout=20)
    finally:
        running.kill()
        running.wait()

    assert [{"name": "w1", "data": "shard 3"}] == told["members"]
    assert 7 == running.returncode
    assert (0, "workers: nobody is there\n", "") == fairlead("group", "workers")


def test_a_barrier_opens_when_all_have_come(fairlead: Fairlead, places: dict[str, str]):
    """Not for one alone."""
    alone = fairlead("barrier", "b1", "--parties", "2", "--wait", "0.3")
    words = [*FAIRLEAD, "barrier", "b2", "--parties", "2", "--registry", places["registry"]]
    other = subprocess.Popen(words, stdout=subprocess.PIPE)
    mine = fairlead("barrier", "b2", "--parties", "2", "--wait", "20")
    out, _ = other.communicate(timeout=20)

    assert (3, "", "fairlead: b1: fewer than 2 came within 0.3 s\n") == alone
    assert (0, "b2: open\n", "") == mine
    assert b"b2: open\n" == out
