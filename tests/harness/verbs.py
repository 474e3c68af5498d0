"""The `fairlead` command within a test."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from fairlead_console.main import main

Verb = Callable[..., Awaitable[tuple[int, str, str]]]


def verb(capsys: pytest.CaptureFixture[str], *begin: str) -> Verb:
    """Runs `fairlead <begin> <words>`: exit code, output, errors."""

    async def run(*words: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = await asyncio.to_thread(main, [*begin, *words])
        return (code, *capsys.readouterr())

    return run
