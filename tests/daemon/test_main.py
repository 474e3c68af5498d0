"""The frame of a daemon, as a real process: signals, exit codes, a busy port, bad settings."""

import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from harness.waiting import wait_until

SOURCE = """
import asyncio, sys
from fairlead_daemon.errors import Unavailable
from fairlead_daemon.main import Daemon, main, until_stopped
from fairlead_daemon.settings import DaemonSettings
from fairlead_daemon.web import make_app, serve

class Settings(DaemonSettings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    fail: str = ""

async def run(settings, context):
    app = make_app(settings, context.health)
    runner, port = await serve(app, settings)
    print(port, flush=True)
    async def body():
        if settings.fail == "bug":
            raise KeyError("a bug")
        if settings.fail == "peer":
            raise Unavailable("the peer is away")
        await context.reload.wait()
        print(context.reread().fail, flush=True)
        await asyncio.Event().wait()
    await until_stopped(context, body())
    await runner.cleanup()

sys.exit(main(Daemon(name="example", summary="An example.", settings=Settings, run=run), sys.argv[1:]))
"""


@pytest.fixture
def program(tmp_path: Path) -> list[str]:
    file = tmp_path / "example.py"
    file.write_text(SOURCE)
    return [sys.executable, str(file), "--set", f"data_dir={tmp_path}", "--set", "token=off"]


def start(program: list[str], *more: str) -> "subprocess.Popen[str]":
    return subprocess.Popen([*program, *more], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(process: "subprocess.Popen[str]") -> tuple[int, str]:
    _, errors = process.communicate(timeout=20)
    return process.returncode, errors


def test_sigterm_stops_it_in_order(program: list[str]):
    """Exit 0; until then /health answers."""
    process = start(program)
    assert process.stdout is not None
    port = process.stdout.readline().strip()
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5) as answer:
        assert b'{"status":"ok"}' == answer.read()

    process.send_signal(signal.SIGTERM)

    assert 0 == finish(process)[0]


def test_sighup_rereads_the_settings(program: list[str], tmp_path: Path):
    """What the file says now."""
    file = tmp_path / "x.toml"
    file.write_text('fail = ""')
    process = start(program, "--config", str(file))
    assert process.stdout is not None
    process.stdout.readline()
    file.write_text('fail = "later"')

    process.send_signal(signal.SIGHUP)

    assert "later" == process.stdout.readline().strip()
    process.terminate()
    assert 0 == finish(process)[0]


@pytest.mark.parametrize(
    ("more", "code", "words"),
    [
        (["--set", "nonsense=1"], 2, "nonsense"),
        (["--config", "/nonexistent.toml"], 2, "/nonexistent.toml"),
        (["--set", "fail=peer"], 3, "the peer is away"),
        (["--set", "fail=bug"], 1, "KeyError"),
    ],
)
def test_exit_codes_say_what_went_wrong(program: list[str], more: list[str], code: int, words: str):
    """2 settings, 3 a peer, 1 a bug with its traceback."""
    got, errors = finish(start(program, *more))

    assert (code, True) == (got, words in errors)
    assert ("Traceback" in errors) == (code == 1)


def test_a_busy_port_is_named_with_its_option(program: list[str]):
    """Which port, which key."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        code, errors = finish(start(program, "--set", f"port={port}"))

    assert 2 == code
    assert f"port: cannot listen on 127.0.0.1:{port}" in errors


def test_check_prints_the_whole_settings_and_starts_nothing(program: list[str]):
    """`--check` exits at once."""
    process = start(program, "--check")
    output, _ = process.communicate(timeout=20)

    assert 0 == process.returncode
    assert '"fail": ""' in output


def test_a_malformed_body_names_the_place(program: list[str]):
    """Unknown pages are JSON too."""
    process = start(program)
    assert process.stdout is not None
    port = int(process.stdout.readline())

    def ask() -> str:
        with socket.create_connection(("127.0.0.1", port), timeout=5) as link:
            link.sendall(b"GET /nothing HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            return link.makefile().read()

    text = wait_until("it answers", ask)
    process.terminate()
    finish(process)

    assert "404" in text
    assert '{"message":"Not Found"}' in text
