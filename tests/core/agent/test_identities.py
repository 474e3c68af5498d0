"""Certificates in sandboxes: whose they are, who can read them, how they are renewed. With a real authority's signatures."""

import asyncio
import os
import stat
import threading
import time
from pathlib import Path

import pytest

from fairlead_core.agent.decisions.identities import Had, Wish, due, wish
from fairlead_core.agent.identities import whole
from fairlead_daemon.errors import Refused
from fairlead_discovery.adapters import x509
from fairlead_discovery.authority import Authority
from harness.agents import Agent, agent
from harness.stub_master import StubMaster
from harness.waiting import eventually, wait_until

as_root = pytest.mark.skipif(os.getuid() != 0, reason="needs root")
NOBODY = 65534
SLEEP = "sleep 60"
FILES = {"identity.pem", "key.pem", "cert.pem", "bundle.pem"}


def asking(value: str = "true") -> dict[str, object]:
    return {"labels": {"labels": [{"key": "FAIRLEAD_IDENTITY", "value": value}]}}


def authority(folder: Path, *, ago_s: float = 0.0) -> Authority:
    made = Authority(folder=folder / "ca", trust_domain="test.internal", clock=lambda: time.time() - ago_s)
    made.open()
    return made


@pytest.fixture
def signing(short_dir: Path, master: StubMaster) -> Authority:
    master.authority = authority(short_dir)
    return master.authority


def text(one: Agent, task_id: str, name: str = "identity.pem") -> str:
    return (one.sandbox(task_id) / "identity" / name).read_text()


def test_which_tasks_get_one_is_the_label_and_the_setting():
    """A label wins over the setting, but not over `off`; a wrong one is refused and named."""
    table = {
        (None, "asked"): Wish.NONE, (None, "all"): Wish.OPTIONAL, (None, "off"): Wish.NONE,
        ("true", "asked"): Wish.NEEDED, ("True", "all"): Wish.NEEDED, ("false", "all"): Wish.NONE,
        ("optional", "asked"): Wish.OPTIONAL, ("optional", "off"): Wish.NONE,
    }  # fmt: skip
    found = {(said, setting): wish({"FAIRLEAD_IDENTITY": said} if said else {}, setting) for said, setting in table}

    assert table == found
    with pytest.raises(Refused, match="expected true, optional or false"):
        wish({"FAIRLEAD_IDENTITY": "yes"}, "asked")
    with pytest.raises(Refused, match="gives no identities"):
        wish({"FAIRLEAD_IDENTITY": "true"}, "off")


def test_it_is_renewed_at_half_of_its_life():
    """And when there is none."""
    had = Had(not_before_s=0, not_after_s=100, chain="", bundle="")

    assert [True, False, True] == [due(None, 1), due(had, 49), due(had, 50)]


@as_root
async def test_a_task_that_asks_finds_its_own_key_and_certificate(one: Agent, master: StubMaster, signing: Authority):
    """Its variables name them, they are its user's alone, and the key has not left the machine."""
    command = 'env | grep ^FAIRLEAD_IDENTITY; cat "$FAIRLEAD_IDENTITY_FILE"; sleep 60'
    await master.run("web", command, **asking())
    await master.run("other", SLEEP)
    await master.until("web", "TASK_RUNNING")
    await asyncio.to_thread(wait_until, "it has read its key", lambda: "END PRIVATE KEY" in one.output("web"))
    folder = one.sandbox("web") / "identity"
    seen = x509.seen(text(one, "web"))
    told = dict(line.split("=", 1) for line in one.output("web").splitlines() if line.startswith("FAIRLEAD_IDENTITY_"))

    assert ("test:web", ("spiffe://test.internal/task/test/web",)) == (seen.common_name, seen.uris)
    assert x509.fits(text(one, "web", "cert.pem"), text(one, "web", "key.pem"))
    assert x509.verified(text(one, "web", "cert.pem"), text(one, "web", "bundle.pem"))
    assert {(NOBODY, 0o600)} == {(p.stat().st_uid, stat.S_IMODE(p.stat().st_mode)) for p in folder.iterdir()}
    assert {str(folder / name) for name in FILES} == set(told.values())
    assert not (one.sandbox("other") / "identity").exists()
    assert not any("PRIVATE" in asked.csr for asked in master.asked)
    await master.kill("web", grace_s=0)
    await asyncio.to_thread(wait_until, "the key is gone with the task", lambda: not folder.exists())


async def test_without_the_authority_a_task_that_needs_one_fails_and_one_that_does_not_starts(
    short_dir: Path, master: StubMaster
):
    """The reason is the status' message; the other finds it when the authority is back."""
    async with agent(short_dir, master.address, identity_wait_s=1.0, identities="all") as one:
        await master.registered()
        await master.run("needs", SLEEP, **asking())
        await master.run("plain", SLEEP)
        await master.until("plain", "TASK_RUNNING")
        failed = await master.until("needs", "TASK_FAILED")
        before = (one.sandbox("plain") / "identity").exists()
        master.authority = authority(short_dir)
        await asyncio.to_thread(
            wait_until, "it is there", (one.sandbox("plain") / "identity" / "identity.pem").exists, within_s=20
        )

    assert failed["message"].startswith("no identity: ")
    assert not before


async def test_it_waits_a_while_for_an_authority_that_comes_back(one: Agent, master: StubMaster, short_dir: Path):
    """Nothing of the task runs before."""
    await master.run("web", 'test -s "$FAIRLEAD_IDENTITY_FILE" && sleep 60', **asking())
    await eventually("it was asked", lambda: asyncio.sleep(0, bool(master.asked)))
    before = one.processes()
    master.authority = authority(short_dir)
    await master.until("web", "TASK_RUNNING")

    assert [] == before
    assert "test:web" == x509.seen(text(one, "web")).common_name


async def test_it_is_renewed_in_place_also_by_the_next_agent(one: Agent, master: StubMaster, short_dir: Path):
    """The task runs on; a file that a reader has open stays whole, the next reader gets the new one."""
    master.authority = authority(short_dir, ago_s=13 * 3600.0)  # more than half of its day is over
    await master.run("web", SLEEP, **asking())
    await master.until("web", "TASK_RUNNING")
    first = text(one, "web")
    one.kill()
    master.authority = authority(short_dir)
    one.start()
    await master.registered(2)
    await asyncio.to_thread(wait_until, "it is renewed", lambda: first != text(one, "web"), within_s=20)
    whole, serial = text(one, "web"), x509.seen(text(one, "web")).serial
    asked = len(master.asked)
    await asyncio.sleep(2.5)  # longer than a look: a fresh one is left alone

    assert x509.fits(whole, whole)
    assert (serial, asked) == (x509.seen(text(one, "web")).serial, len(master.asked))
    assert ["TASK_STARTING", "TASK_RUNNING"] == master.states("web")


@as_root
async def test_a_link_in_the_folders_place_is_never_followed(one: Agent, master: StubMaster, short_dir: Path):
    """A task cannot have the agent, which is root, write or remove anything elsewhere."""
    victim = short_dir / "victim"
    victim.mkdir(mode=0o755)
    (victim / "identity.pem").write_text("untouched")
    master.authority = authority(short_dir, ago_s=13 * 3600.0)  # due again at once
    await master.run("evil", f"mv identity mine; ln -s {victim} identity; echo done; sleep 60", **asking())
    await asyncio.to_thread(wait_until, "it is planted", lambda: "done" in one.output("evil"))
    asked = len(master.asked)
    await eventually("it was renewed into the link", lambda: asyncio.sleep(0, len(master.asked) > asked), within_s=20)
    await master.kill("evil", grace_s=0)
    await master.until("evil", "TASK_KILLED")

    assert ["identity.pem"] == [p.name for p in victim.iterdir()]
    assert "untouched" == (victim / "identity.pem").read_text()


async def test_a_wrong_label_and_a_custom_executor_are_refused_in_words(one: Agent, master: StubMaster):
    """Before anything runs."""
    executor = {"executor_id": {"value": "x"}, "command": {"value": SLEEP}}
    await master.run("wrong", SLEEP, **asking("yes"))
    await master.run("custom", None, executor=executor, **asking())
    wrong, custom = await master.until("wrong", "TASK_FAILED"), await master.until("custom", "TASK_FAILED")

    assert "label FAIRLEAD_IDENTITY: 'yes': expected true, optional or false" == wrong["message"]
    assert "custom executors have no identity" in custom["message"]
    assert [] == master.asked


async def test_who_is_cancelled_while_files_are_written_ends_after_them():
    """Else a key would come into the sandbox of a task that has ended, and been cleared."""
    begun, may_end, written = threading.Event(), threading.Event(), []

    def write() -> None:
        begun.set()
        may_end.wait(30)
        written.append("key")

    writing = asyncio.create_task(whole(write))
    await eventually("it writes", lambda: asyncio.sleep(0, begun.is_set()))
    writing.cancel()
    await asyncio.sleep(0)
    ended_early = writing.done()
    may_end.set()
    with pytest.raises(asyncio.CancelledError):
        await writing

    assert (False, ["key"]) == (ended_early, written)
