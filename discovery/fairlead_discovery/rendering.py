"""A file made of endpoints, for nginx and the like: candidate, check, swap, reload; damped, never to zero unconfirmed.

upstream web { {% for e in endpoints("web-shop.marathon.mesos") %}server {{ e.host }}:{{ e.port }};{% endfor %} }
"""

import asyncio
import os
import shlex
import stat
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path

import jinja2

from fairlead_daemon.errors import BadSettings, FairleadError, Refused, Unavailable, Unsafe
from fairlead_daemon.files import replace_file
from fairlead_daemon.logs import Log
from fairlead_discovery.decisions.picking import Endpoint
from fairlead_discovery.resolver import Resolver
from fairlead_discovery.snapshots import Snapshot

log = Log("render")
COMMAND_S = 30.0
"""How long a check or a reload may take."""
RETRY_S = 5.0
"""After a refused candidate or a failed reload, unless something changes sooner."""
TOLD_BYTES = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """`check` and `reload` are words; `{}` in a word of `check` is the candidate's path. Both may be empty."""

    template: Path
    target: Path
    check: Sequence[str] = ()
    reload: Sequence[str] = ()
    quiet_s: float = 0.2
    """So long nothing must have changed, at most five times as long: a rescale is one reload, not ten."""
    allow_empty: bool = False
    """A service in the template may have no endpoint, though it had some when the file was written."""


def words(command: str, option: str) -> tuple[str, ...]:
    """As a shell splits them; no shell runs them. Raises BadSettings."""
    try:
        return tuple(shlex.split(command))
    except ValueError as error:
        raise BadSettings(f"{option}: {error}") from error


@dataclass(frozen=True, slots=True)
class Rendered:
    """`empty` are names asked for that have no endpoint."""

    data: bytes
    empty: tuple[str, ...]


def render(template: Path, resolver: Resolver) -> Rendered:
    """Raises Refused naming file and line of what is wrong in the template, BadSettings when it cannot be read."""
    empty: dict[str, None] = {}

    def endpoints(name: str) -> tuple[Endpoint, ...]:
        found = resolver.endpoints(name)
        if not found:
            empty[name] = None
        return found

    environment = jinja2.Environment(
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=False,  # noqa: S701  # configuration files, no HTML
    )
    try:
        text = environment.from_string(template.read_text()).render(endpoints=endpoints)
    except OSError as error:
        raise BadSettings(f"{template}: {error.strerror}") from error
    except jinja2.TemplateSyntaxError as error:
        raise Refused(f"{template}: line {error.lineno}: {error.message}") from error
    except (jinja2.TemplateError, TypeError, ValueError, ArithmeticError) as error:
        raise Refused(f"{template}: {error}") from error
    return Rendered(text.encode(), tuple(empty))


class Renderer:
    """Keeps one file true. What is served is replaced only by a candidate that passed the check."""

    def __init__(self, job: Job, resolver: Resolver) -> None:
        self._job = job
        self._resolver = resolver
        self._reload_due = job.target.with_name(f".{job.target.name}.reload")
        """There while the file was replaced and not reloaded yet: whoever died in between is made up for."""

    async def once(self) -> bool:
        """True when the file was replaced, or reloaded after all. Raises Refused (the check said no, the reload failed),
        Unsafe (a service would vanish from the file), Unavailable (nothing is known yet).
        """
        if self._resolver.snapshot.revision < 0:
            raise Unavailable("the registry is out of sight, and nothing is known of it")
        rendered = render(self._job.template, self._resolver)
        if rendered.data != _read(self._job.target):
            if rendered.empty and self._job.target.exists() and not self._job.allow_empty:
                raise Unsafe(f"{self._job.target} stays: no endpoint of {', '.join(rendered.empty)} (--allow-empty)")
            await self._swap(rendered.data)
        if not self._reload_due.exists():
            return False
        await run(self._job.reload, "reload")
        self._reload_due.unlink(missing_ok=True)
        return True

    async def keep(self) -> None:
        """For ever. Reasons not to are logged, once each, and tried again."""
        last = ""
        async with aclosing(self._resolver.snapshots()) as found:  # type: ignore[type-var]  # a generator
            await anext(found)
            upcoming = _next(found)
            try:
                while True:
                    why = await self._try()
                    if why and why != last:
                        log.error("not written", why=why)
                    last = why
                    await asyncio.wait([upcoming], timeout=RETRY_S if why else None)
                    if upcoming.done():
                        upcoming.result()
                        upcoming = await self._calm(found)
            finally:
                upcoming.cancel()
                await asyncio.gather(upcoming, return_exceptions=True)

    async def _try(self) -> str:
        try:
            if await self.once():
                log.info("written", file=str(self._job.target), revision=self._resolver.snapshot.revision)
        except FairleadError as error:
            return str(error)
        return ""

    async def _calm(self, changes: AsyncIterator[Snapshot]) -> asyncio.Future[Snapshot]:
        """Waits until nothing changes for a while; returns the wait for the next change."""
        end_s = asyncio.get_running_loop().time() + 5 * self._job.quiet_s
        while True:
            upcoming = _next(changes)
            left_s = min(self._job.quiet_s, end_s - asyncio.get_running_loop().time())
            await asyncio.wait([upcoming], timeout=max(0.0, left_s))
            if not upcoming.done() or left_s <= 0:
                return upcoming
            upcoming.result()

    async def _swap(self, data: bytes) -> None:
        target = self._job.target
        candidate = target.with_name(f".{target.name}.candidate")
        mode = stat.S_IMODE(target.stat().st_mode) if target.exists() else 0o644
        try:
            replace_file(candidate, data, mode=mode)
            await run([word.replace("{}", str(candidate)) for word in self._job.check], "check")
            replace_file(self._reload_due, b"")
            os.replace(candidate, target)  # noqa: PTH105  # one system call, as files.py
        except OSError as error:
            raise Refused(f"{error.filename or target}: {error.strerror}") from error


def _next(changes: AsyncIterator[Snapshot]) -> asyncio.Future[Snapshot]:
    return asyncio.ensure_future(anext(changes))


async def run(command: Sequence[str], what: str) -> None:
    """Raises Refused with the exit code and the end of its output."""
    if not command:
        return
    try:
        process = await asyncio.create_subprocess_exec(
            *command, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
        )
    except OSError as error:
        raise Refused(f"{what} {command[0]}: {error.strerror}") from error
    try:
        async with asyncio.timeout(COMMAND_S):
            output, _ = await process.communicate()
    except TimeoutError as error:
        raise Refused(f"{what} {command[0]}: not done after {COMMAND_S:.0f} s") from error
    finally:
        if process.returncode is None:
            process.kill()
    if process.returncode:
        told = output[-TOLD_BYTES:].decode("utf-8", "replace").strip()
        raise Refused(f"{what} {command[0]}: exit {process.returncode}: {told}")


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise Refused(f"{path}: {error.strerror}") from error
