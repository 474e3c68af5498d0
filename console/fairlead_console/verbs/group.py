"""`fairlead group`: who is there; and being there for as long as a command runs."""

import asyncio
import os
import signal
import socket
import sys
from collections.abc import Sequence
from contextlib import aclosing, suppress
from typing import Any

import click

from fairlead_console.output import show_json, show_table
from fairlead_console.use import Use, registry_verb
from fairlead_daemon.errors import BadSettings


@click.command(
    context_settings={"ignore_unknown_options": True},
    epilog="Example: fairlead group workers -- ./worker; and who is there: fairlead group workers",
)
@click.argument("name")
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
@click.option("--as", "identity", default="", metavar="ME", help="Whom to join as.  [default: <host>-<pid>]")
@click.option("--data", default="", help="A word that the others see.")
@click.option("--watch", is_flag=True, help="Without a command: the members again at every change.")
@registry_verb
def group(use: Use, name: str, command: Sequence[str], **more: Any) -> int:
    """Show the members of the group NAME; or, with a command, be one of them while it runs.

    A member whose process dies is gone when its session ends. The command's exit code is ours; signals are passed on.
    """
    where = use.registry

    async def run() -> int:
        from fairlead_discovery.backends import open_registry  # noqa: PLC0415  # `--help` is fast without it
        from fairlead_discovery.coordination import Group  # noqa: PLC0415  # see above

        registry: Any = await open_registry(where)
        try:
            joined = Group(registry, name)
            if command:
                return await _be_there(joined, command, more["identity"], more["data"])
            await _show(joined, as_json=use.as_json, watch=more["watch"])
            return 0
        finally:
            await registry.close()

    return asyncio.run(run())


async def _be_there(joined: Any, command: Sequence[str], identity: str, data: str) -> int:
    me = identity or f"{socket.gethostname()}-{os.getpid()}"
    membership = await joined.join(me, data.encode())
    try:
        process = await asyncio.create_subprocess_exec(*command)
    except OSError as error:
        raise BadSettings(f"{command[0]}: {error.strerror}") from error
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, _pass_on, process, number)
    code = await process.wait()
    await membership.end()
    return code if code >= 0 else 128 - code


def _pass_on(process: Any, number: int) -> None:
    with suppress(ProcessLookupError):
        process.send_signal(number)


async def _show(joined: Any, *, as_json: bool, watch: bool) -> None:
    from fairlead_console.verbs.registry import WAIT_S  # noqa: PLC0415  # see above
    from fairlead_daemon.errors import Unavailable  # noqa: PLC0415  # see above

    async with aclosing(joined.members()) as looks:
        try:
            async with asyncio.timeout(WAIT_S):
                members = await anext(looks)
        except TimeoutError as error:
            raise Unavailable(f"the registry does not answer within {WAIT_S:g} s") from error
        _print(joined.name, members, as_json=as_json)
        if watch:
            async for members in looks:
                _print(joined.name, members, as_json=as_json)


def _print(name: str, members: Any, *, as_json: bool) -> None:
    rows = [(who, data.decode(errors="replace")) for who, data in sorted(members.items())]
    if as_json:
        show_json({"group": name, "members": [{"name": who, "data": data} for who, data in rows]})
    else:
        show_table(("member", "data"), rows, empty=f"{name}: nobody is there")
    sys.stdout.flush()
