"""`--listen` of commands that run for long: real processes on a real registry, asked over HTTP."""

import json
import socket
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fairlead_daemon.errors import BadSettings
from fairlead_discovery.adapters.pages import parse_listen
from harness.ports import free_port
from harness.servers import Server
from harness.waiting import wait_until

Start = Callable[..., tuple[Server, int]]
FAIRLEAD = [sys.executable, "-m", "fairlead_console"]


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("listen")
    url = f"local:{folder}/r.sock"
    words = ["registry", "--set", f"registry={url}", "--set", "token=off", "--set", f"data_dir={folder}"]
    server = Server([*FAIRLEAD, *words], log=folder / "registry.log").start()
    wait_until("the registry serves", (folder / "r.sock").exists, within_s=40)
    yield url
    server.stop()


@pytest.fixture
def start(registry: str, tmp_path: Path) -> Iterator[Start]:
    started: list[Server] = []

    def run(*words: str) -> tuple[Server, int]:
        """`words` have a place for the options."""
        port = free_port()
        options = ["--listen", f"127.0.0.1:{port}", "--registry", registry]
        command = [*FAIRLEAD, words[0], *options, *words[1:]]
        started.append(Server(command, log=tmp_path / f"{words[0]}{len(started)}.log").start())
        return started[-1], port

    yield run
    for server in started:
        server.stop()


def ask(port: int, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def waits(port: int) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(ask(port, "/ready")[1])["waits"]
    return found


def test_an_announcer_says_what_is_not_announced(start: Start):
    """And why; nothing, once it is."""
    service = free_port()
    _, port = start("announce", "--service", "shop", "--port", str(service), "--interval", "0.1")
    wait_until("it says that nobody listens", lambda: "tcp: [Errno 111]" in "".join(waits(port).values()), within_s=40)
    health = ask(port, "/health")[0]
    with socket.create_server(("127.0.0.1", service)):
        wait_until("it is announced", lambda: ask(port, "/ready")[0] == 200, within_s=40)
        metrics = ask(port, "/metrics")[1]

    assert 200 == health
    assert 'fairlead_announce_instances{state="announced"} 1.0' in metrics
    assert 'fairlead_announce_checks_total{result="bad",type="tcp"}' in metrics


@pytest.mark.parametrize("verb", ["lock", "elect"])
def test_who_waits_is_not_ready_who_holds_is(start: Start, verb: str):
    """The one that holds says so with its fencing token; the other gets it when that ends."""
    first, one = start(verb, f"{verb}-x", "--", "sleep", "60")
    wait_until("the first holds", lambda: ask(one, "/ready")[0] == 200, within_s=40)
    _, other = start(verb, f"{verb}-x", "--", "sleep", "60")
    wait_until("the second waits", lambda: ask(other, "/ready")[0] == 503, within_s=40)
    name = f'name="{verb}:{verb}-x"'
    held = ask(one, "/metrics")[1]
    waiting = waits(other)
    first.stop()
    wait_until("the second holds", lambda: ask(other, "/ready")[0] == 200, within_s=40)

    assert f"fairlead_coordination_held{{{name}}} 1.0" in held
    assert f"fairlead_coordination_fence{{{name}}}" in held
    assert ["lease"] == list(waiting)


@pytest.mark.parametrize(
    ("text", "place"),
    [("127.0.0.1:9120", ("127.0.0.1", 9120)), (":9120", ("127.0.0.1", 9120)), ("[::1]:9120", ("::1", 9120)), ("box:0", ("box", 0))],
)  # fmt: skip
def test_places_are_read(text: str, place: tuple[str, int]):
    """Without a host the loopback."""
    assert place == parse_listen(text)


@pytest.mark.parametrize("text", ["9120", "a:b", "::1:9120", "h:70000", "h:"])
def test_what_is_no_place_is_refused(text: str):
    """By its name."""
    with pytest.raises(BadSettings, match="listen"):
        parse_listen(text)
