"""The `fairlead` command within a test."""

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from fairlead_console.main import main
from harness.servers import Server
from harness.waiting import wait_until

Verb = Callable[..., Awaitable[tuple[int, str, str]]]


def verb(capsys: pytest.CaptureFixture[str], *begin: str) -> Verb:
    """Runs `fairlead <begin> <words>`: exit code, output, errors."""

    async def run(*words: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = await asyncio.to_thread(main, [*begin, *words])
        return (code, *capsys.readouterr())

    return run


@asynccontextmanager
async def registry_of_verbs(folder: Path) -> AsyncIterator[tuple[str, Server]]:
    """A registry's process and its url, which verbs find; they run in the folder `there`, an empty one."""
    url = f"local:{folder}/registry.sock"
    words = [sys.executable, "-m", "fairlead_console", "registry", "--set", f"registry={url}", "--set", "token=off"]
    server = Server([*words, "--set", f"data_dir={folder}"], log=folder / "registry.log").start()
    there = folder / "there"
    there.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(there)
        patch.setenv("FAIRLEAD_REGISTRY", url)
        patch.delenv("FAIRLEAD_DATA_DIR", raising=False)
        try:
            await asyncio.to_thread(wait_until, "the registry serves", (folder / "registry.sock").exists)
            yield url, server
        finally:
            server.stop()
