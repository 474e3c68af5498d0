"""A file that follows endpoints: checked before it is swapped, reloaded after, never to zero unconfirmed."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest

from discovery.records_of import leave, publish, withdraw
from fairlead_daemon.errors import Refused, Unavailable, Unsafe
from fairlead_discovery.backends import open_registry
from fairlead_discovery.registry import Change, Registry
from fairlead_discovery.rendering import Job, Renderer
from fairlead_discovery.resolver import Resolver

Publish = Callable[..., Awaitable[None]]


@pytest.fixture
async def registry(request: pytest.FixtureRequest) -> AsyncIterator[Registry]:
    opened = await open_registry(f"memory:{request.node.name}")
    yield opened
    await opened.close()


@pytest.fixture
async def resolver(registry: Registry) -> AsyncIterator[Resolver]:
    async with Resolver(registry) as found:
        yield found


@pytest.fixture
def commit(registry: Registry, resolver: Resolver) -> Publish:
    async def run(*changes: Change) -> None:
        revision = await registry.commit(changes)
        async with asyncio.timeout(5):
            while resolver.snapshot.revision < revision:  # noqa: ASYNC110  # ends with its first deadline
                await asyncio.sleep(0.002)

    return run


@pytest.fixture
def job(tmp_path: Path) -> Job:
    template = tmp_path / "web.j2"
    template.write_text(
        '{% for e in endpoints("web.marathon.mesos") %}\nserver {{ e.host }}:{{ e.port }};\n{% endfor %}\n'
    )
    reload = ("sh", "-c", f"echo reload >> {tmp_path}/reloads")
    return Job(template=template, target=tmp_path / "web.conf", reload=reload, quiet_s=0.02)


def reloads(job: Job) -> int:
    file = job.target.with_name("reloads")
    return len(file.read_text().splitlines()) if file.exists() else 0


async def becomes(job: Job, text: str) -> None:
    async with asyncio.timeout(5):
        while not job.target.exists() or job.target.read_text() != text:  # noqa: ASYNC110  # a file tells nobody
            await asyncio.sleep(0.005)


async def test_the_file_is_written_and_reloaded_once(commit: Publish, resolver: Resolver, job: Job):
    """A second time nothing is to be done."""
    await commit(publish(1))
    renderer = Renderer(job, resolver)

    assert [True, False] == [await renderer.once(), await renderer.once()]
    assert "server 10.0.0.1:31001;\n" == job.target.read_text()
    assert 1 == reloads(job)


async def test_what_the_check_refuses_is_not_served(commit: Publish, resolver: Resolver, job: Job):
    """The old file stays, and the check's words are told."""
    await commit(publish(1))
    checked = replace(job, check=("sh", "-c", "grep -q 31002 {} && { echo no 31002 here; exit 4; } || true"))
    await Renderer(checked, resolver).once()
    await commit(publish(2))

    with pytest.raises(Refused, match="check sh: exit 4: no 31002 here"):
        await Renderer(checked, resolver).once()

    assert "server 10.0.0.1:31001;\n" == job.target.read_text()
    assert 1 == reloads(job)


async def test_a_service_does_not_vanish_from_the_file_unconfirmed(commit: Publish, resolver: Resolver, job: Job):
    """Until a person allows it."""
    await commit(publish(1))
    await Renderer(job, resolver).once()
    await commit(withdraw(1), leave(1))

    with pytest.raises(Unsafe, match=r"stays: no endpoint of web\.marathon\.mesos"):
        await Renderer(job, resolver).once()

    assert "server 10.0.0.1:31001;\n" == job.target.read_text()
    assert await Renderer(replace(job, allow_empty=True), resolver).once()
    assert "" == job.target.read_text()


async def test_a_failed_reload_is_made_up_for(commit: Publish, resolver: Resolver, job: Job):
    """Also by another process: it is noted beside the file."""
    await commit(publish(1))
    with pytest.raises(Refused, match="reload false: exit 1"):
        await Renderer(replace(job, reload=("false",)), resolver).once()

    assert await Renderer(job, resolver).once()
    assert 1 == reloads(job)


async def test_it_follows_changes_and_reloads_once_for_many(commit: Publish, resolver: Resolver, job: Job):
    """Ten changes in a moment are one reload, or two."""
    await commit(publish(1))
    keeping = asyncio.create_task(Renderer(replace(job, quiet_s=0.2), resolver).keep())
    await becomes(job, "server 10.0.0.1:31001;\n")
    for number in range(2, 10):
        await commit(publish(number))
    await becomes(job, "".join(f"server 10.0.0.1:{31000 + n};\n" for n in range(1, 10)))
    keeping.cancel()
    await asyncio.gather(keeping, return_exceptions=True)

    assert reloads(job) <= 3


async def test_a_wrong_template_is_named(commit: Publish, resolver: Resolver, job: Job):
    """File and line; an unknown word is no empty text."""
    await commit(publish(1))
    job.template.write_text("one\n{% for %}\n")
    with pytest.raises(Refused, match=r"web\.j2: line 2: "):
        await Renderer(job, resolver).once()
    job.template.write_text("{{ nothing }}")
    with pytest.raises(Refused, match="'nothing' is undefined"):
        await Renderer(job, resolver).once()


async def test_nothing_is_written_while_nothing_is_known(tmp_path: Path, job: Job, monkeypatch: pytest.MonkeyPatch):
    """An absent registry is no empty one."""
    monkeypatch.setattr("fairlead_discovery.resolver.FIRST_S", 0.1)
    absent = await open_registry(f"local:{tmp_path}/none.sock")
    async with Resolver(absent) as resolver:
        with pytest.raises(Unavailable, match="out of sight"):
            await Renderer(job, resolver).once()
    await absent.close()

    assert not job.target.exists()
