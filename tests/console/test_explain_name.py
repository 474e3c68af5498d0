"""`fairlead explain-name`, against a name server's real HTTP pages."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from fairlead_console.cli import run_verb
from harness.dns_api import Served, api
from harness.names import member, node_name, snapshot

WEB = "web.marathon.mesos"


@pytest.fixture
async def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Served]:
    """One endpoint, and the verb's way to it."""
    made = await api(tmp_path, member(0))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FAIRLEAD_DNS_HTTP", str(made.client.make_url("/")))
    yield made
    await made.client.close()


async def run(*arguments: str) -> int:
    return await asyncio.to_thread(run_verb, ["explain-name", *arguments])


@pytest.mark.usefixtures("served")
async def test_a_name_is_explained_in_words(capsys: pytest.CaptureFixture[str]) -> None:
    """The verdict, the records, and who gives them under which node; an app id is a name too."""
    for name in (WEB, "/web"):
        code = await run(name)

        said = capsys.readouterr().out
        assert (0, True) == (code, said.startswith(f"{WEB} A: 1 record\n"))
        assert node_name(member(0)) in said


@pytest.mark.usefixtures("served")
async def test_json_is_the_servers_own(capsys: pytest.CaptureFixture[str]) -> None:
    """For programs: what the page says."""
    await run(f"_{WEB.replace('.', '._tcp.', 1)}", "--client", "10.1.2.3", "--json")

    told = json.loads(capsys.readouterr().out)
    assert ("SRV", "10.1.2.3", "answered") == (told["type"], told["client"], told["verdict"])


@pytest.mark.usefixtures("served")
async def test_a_miss_tells_what_may_have_been_meant(capsys: pytest.CaptureFixture[str]) -> None:
    """No error: it is explained."""
    assert 0 == await run("wbe.marathon.mesos", "--type", "A")

    assert WEB in capsys.readouterr().out


async def test_what_it_answered_then(served: Served, capsys: pytest.CaptureFixture[str]) -> None:
    """At a time, with since when and until when."""
    served.take(snapshot(member(1), revision=2), at_s=time.time() - 600)
    served.take(snapshot(member(2), revision=3), at_s=time.time() - 60)

    assert 0 == await run(WEB, "--at", "5m")
    said = capsys.readouterr().out
    assert "  A 10.0.0.2\n" in said
    assert "serial 2" in said
    assert "serial 3" in said


@pytest.mark.usefixtures("served")
async def test_nonsense_is_an_error_in_the_servers_words(capsys: pytest.CaptureFixture[str]) -> None:
    """With the exit code of a refusal."""
    assert 1 == await run(WEB, "--at", "soon")

    assert "is no time" in capsys.readouterr().err


async def test_no_server_is_exit_3(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """And says where it asked."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FAIRLEAD_DNS_HTTP", "http://127.0.0.1:9")

    assert 3 == await run(WEB)
    assert "127.0.0.1:9" in capsys.readouterr().err
