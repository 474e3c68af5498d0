"""The frame of every daemon: arguments, settings, signals, one TaskGroup, exit codes.

Exit codes: 0 stopped as asked, 1 a bug (traceback in the log), 2 bad settings (the key is named), 3 a peer
without which it cannot start.
"""

import argparse
import asyncio
import gc
import json
import signal
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, TypeVar

import msgspec

from fairlead_daemon import logs
from fairlead_daemon.errors import BadSettings, FairleadError
from fairlead_daemon.settings import Beneath, DaemonSettings, load
from fairlead_daemon.web import Health

S = TypeVar("S", bound=DaemonSettings)


@dataclass(slots=True)
class Context:
    """What a daemon's `run` gets beside its settings."""

    name: str
    log: logs.Log
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    """Set on SIGTERM and SIGINT. `run` then ends the daemon and nothing it looks after."""
    reload: asyncio.Event = field(default_factory=asyncio.Event)
    """Set on SIGHUP; whoever acts on it clears it and calls `reread()`."""
    health: Health = field(default_factory=Health)
    reread: Callable[[], DaemonSettings] = DaemonSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class Daemon(Generic[S]):
    """One `fairlead <name>`: `run(settings, context)` returns when `context.stop` is set and all is tidy."""

    name: str
    summary: str
    settings: type[S]
    run: Callable[[S, Context], Awaitable[None]]
    files: Mapping[str, str] = field(default_factory=dict)
    """Keys that have an option of their own, as `mesos_dns_config` has `--mesos-dns-config FILE`: what it is for."""
    flags: Mapping[str, str] = field(default_factory=dict)
    """Keys that an option without a value sets to true, as `node` by `--node`: what it is for."""
    beneath: Beneath | None = None
    """See settings.load."""
    check: Callable[[S], None] | None = None
    """What `--check` looks at beyond the keys' types, without touching anything. Raises BadSettings naming the key."""

    def load(self, arguments: argparse.Namespace) -> S:
        """Raises BadSettings."""
        sets = [f"{key}={json.dumps(getattr(arguments, key))}" for key in self.files if getattr(arguments, key)]
        sets += [f"{key}=true" for key in self.flags if getattr(arguments, key)]
        file = Path(arguments.config) if arguments.config else None
        overrides = (*sets, *arguments.set)
        if self.beneath is None:
            return load(self.settings, file=file, overrides=overrides)
        return load(self.settings, file=file, overrides=overrides, beneath=self.beneath)


def main(daemon: Daemon[S], argv: Sequence[str]) -> int:
    """Runs it until a signal; returns the exit code."""
    arguments = _parser(daemon).parse_args(argv)
    try:
        settings = daemon.load(arguments)
        if arguments.check:
            if daemon.check is not None:
                daemon.check(settings)
            print(msgspec.json.format(msgspec.json.encode(settings), indent=2).decode())  # noqa: T201  # its output
            return 0
        logs.set_up(settings.log_level)
        gc.freeze()  # what is imported by now lives for good: keep it out of every collection
        return asyncio.run(_run(daemon, settings, lambda: daemon.load(arguments)))
    except BadSettings as error:
        print(f"fairlead {daemon.name}: {error}", file=sys.stderr)  # noqa: T201  # there may be no log yet
        return 2
    except FairleadError as error:
        print(f"fairlead {daemon.name}: {error}", file=sys.stderr)  # noqa: T201  # see above
        return 3


def _parser(daemon: Daemon[S]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=f"fairlead {daemon.name}",
        description=daemon.summary,
        epilog=f"Example: fairlead {daemon.name} --config /etc/fairlead/{daemon.name}.toml --set log_level=debug",
    )
    parser.add_argument("--config", metavar="FILE", help="TOML file; unknown keys are refused")
    parser.add_argument("--set", metavar="KEY=VALUE", action="append", default=[], help="override one key of the file")
    for key, text in daemon.files.items():
        parser.add_argument(f"--{key.replace('_', '-')}", dest=key, metavar="FILE", help=text)
    for key, text in daemon.flags.items():
        parser.add_argument(f"--{key.replace('_', '-')}", dest=key, action="store_true", help=text)
    parser.add_argument("--check", action="store_true", help="check the settings, print them whole, and exit")
    return parser


async def _run(daemon: Daemon[S], settings: S, reread: Callable[[], S]) -> int:
    context = Context(name=daemon.name, log=logs.Log(daemon.name), reread=reread)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, context.stop.set)
    loop.add_signal_handler(signal.SIGHUP, context.reload.set)
    try:
        await daemon.run(settings, context)
    except BaseExceptionGroup as group:
        known = group.subgroup(FairleadError)
        if known is None or group.split(FairleadError)[1] is not None:
            context.log.exception("crashed")
            return 1
        raise _first(known) from group
    except FairleadError:
        raise
    except Exception:  # a bug: say so in the log, let the supervisor start us afresh
        context.log.exception("crashed")
        return 1
    context.log.info("stopped")
    return 0


def _first(group: BaseExceptionGroup[FairleadError]) -> FairleadError:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    assert isinstance(error, FairleadError)
    return error


async def until_stopped(context: Context, *bodies: Awaitable[None]) -> None:
    """Runs the bodies in one TaskGroup until the stop signal, then cancels and awaits them. A crash of one ends all."""

    async def guard() -> None:
        await context.stop.wait()
        raise _Stopped

    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(guard())
            for body in bodies:
                group.create_task(_as_coroutine(body))
    except* _Stopped:
        pass


async def _as_coroutine(body: Awaitable[None]) -> None:
    await body


class _Stopped(Exception):  # noqa: N818  # a signal between two functions of this file
    pass
