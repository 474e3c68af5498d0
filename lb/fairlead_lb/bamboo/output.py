"""A template's output: rendered, checked, put in its place, and the operator's HAProxy told; else the last good stays."""

import asyncio
import os
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fairlead_daemon.backoff import Backoff
from fairlead_daemon.errors import FairleadError, Refused
from fairlead_daemon.logs import Log
from fairlead_daemon.waiting import within
from fairlead_discovery.snapshots import Trust
from fairlead_lb import metrics
from fairlead_lb.adapters.shell import run as run_shell
from fairlead_lb.bamboo.book import Book
from fairlead_lb.bamboo.settings import BambooSettings
from fairlead_lb.decisions.bamboo_template import render, usable

log = Log("lb.template")
SETTLE_S = 0.1
"""Bamboo's own: what comes together is rendered together."""
LOOK_S = 5.0
"""The template's file, and a reload that failed, are looked at again."""
BACKOFF = Backoff(first_s=1.0, most_s=60.0)
FILE = "{{.}}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Commands are shell's; "" is none. `{{.}}` in `validate` is the candidate's path."""

    template: Path
    output: Path
    validate: str = ""
    reload: str = ""
    cleanup: str = ""


def target_of(settings: BambooSettings) -> Target | None:
    if not settings.bamboo_template:
        return None
    return Target(
        template=Path(settings.bamboo_template),
        output=Path(settings.bamboo_output),
        validate=settings.bamboo_validate,
        reload=settings.bamboo_reload,
        cleanup=settings.bamboo_cleanup,
    )


def rendered(target: Target, apps: list[dict[str, Any]], services: Mapping[str, Mapping[str, Any]]) -> str:
    """Raises Refused naming the template."""
    good, refused = usable(services)
    for app, why in refused.items():
        log.warning("rule left out of the template", app=app, why=why)
    try:
        return render(target.template.read_text(encoding="utf-8"), apps, good)
    except (OSError, UnicodeDecodeError, Refused) as error:
        raise Refused(f"{target.template}: {error}") from error


class Output:
    """Owned by one task. `problem` is "" while the output is as it should be."""

    def __init__(self, target: Target) -> None:
        self.problem = ""
        self.counted: Callable[[str], None] = lambda _name: None
        self._target = target
        self._unloaded = False
        """The file is newer than what was loaded."""

    async def run(self, book: Book) -> None:
        """For ever; a failure is told once, and tried again."""
        attempt = 0
        while True:
            wait_s = LOOK_S
            if book.snapshot is not None and book.snapshot.trust is Trust.LIVE:
                book.changed.clear()
                try:
                    await self.write(book.apps(), book.services())
                    self._tell("")
                    attempt = 0
                except (FairleadError, OSError) as error:
                    self._tell(str(error))
                    wait_s = BACKOFF.delay_s(attempt, chance=random.random())  # noqa: S311  # jitter
                    attempt += 1
            await within(book.changed, wait_s)
            await asyncio.sleep(SETTLE_S)

    async def write(self, apps: list[dict[str, Any]], services: Mapping[str, Mapping[str, Any]]) -> bool:
        """Whether there was something to do. Raises Refused, Unavailable, OSError: what lay there lies there still, or
        is there and was not loaded.
        """
        text = await asyncio.to_thread(rendered, self._target, apps, services)
        if _text_of(self._target.output) != text:
            await self._replace(text)
            self._unloaded = True
        elif not self._unloaded:
            return False
        await self._load()
        self._unloaded = False
        metrics.TEMPLATES.labels("written").inc()
        return True

    async def _replace(self, text: str) -> None:
        output = self._target.output
        beside = output.with_name(f".{output.name}.{os.getpid()}.new")
        try:
            beside.write_text(text, encoding="utf-8")
            beside.chmod(0o600 if not output.exists() else output.stat().st_mode & 0o777)
            if self._target.validate:
                command = self._target.validate.replace(FILE, _shell_word(str(beside)))
                await run_shell(command, what="validation")
            beside.replace(output)
        finally:
            beside.unlink(missing_ok=True)

    async def _load(self) -> None:
        try:
            if self._target.reload:
                await run_shell(self._target.reload, what="reload")
        finally:
            if self._target.cleanup:
                try:
                    await run_shell(self._target.cleanup, what="cleanup")
                except FairleadError as error:
                    log.warning("cleanup failed", why=str(error))

    def _tell(self, problem: str) -> None:
        if problem:
            metrics.TEMPLATES.labels("failed").inc()
            self.counted("haproxy.reload.error")
        if problem != self.problem:
            if problem:
                log.error("template not applied, the last good output stays", why=problem)
            else:
                log.info("template applied", output=str(self._target.output))
        self.problem = problem


def _text_of(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None


def _shell_word(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"
