"""`fairlead mesh`: callers that cannot do TLS themselves."""

import ctypes
import os
import re
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import click

from fairlead_console.output import say
from fairlead_console.use import Use, verb
from fairlead_daemon.errors import BadSettings
from fairlead_daemon.logs import set_up

if TYPE_CHECKING:
    import socket

    from fairlead_discovery import forwarding

PR_SET_PDEATHSIG = 1
_TO = re.compile(r"(?P<port>[0-9]{1,5})=(?P<service>[^:]+:.+?)(?:#(?P<index>[0-9]{1,3}))?")
EXAMPLE = "Example: fairlead mesh connect --to 9000=marathon:/shop/cart -- ./shop --cart http://127.0.0.1:9000"


@click.group(epilog=EXAMPLE)
def mesh() -> None:
    """Programs that cannot do TLS call services as who they are."""


@mesh.command(epilog=EXAMPLE)
@click.option(
    "--to", "to", multiple=True, metavar="PORT=SERVICE[#INDEX]", help="A port of localhost, and whom it reaches."
)
@click.option("--tcp", "tcp", multiple=True, metavar="PORT=SERVICE[#INDEX]", help="The same for services of mode tcp.")
@click.option("--mesh", "http_mesh", envvar="FAIRLEAD_MESH", metavar="HOST:PORT", help="A balancer's mesh_port.")
@click.option("--mesh-tcp", envvar="FAIRLEAD_MESH_TCP", metavar="HOST:PORT", help="A balancer's mesh_tcp_port.")
@click.option("--identity", envvar="FAIRLEAD_IDENTITY_FILE", help="Certificate and key, PEM.", metavar="FILE")
@click.option("--roots", envvar="FAIRLEAD_IDENTITY_ROOTS", help="Whom to believe, PEM.", metavar="FILE")
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
@verb
def connect(use: Use, to: tuple[str, ...], tcp: tuple[str, ...], command: tuple[str, ...], **given: str | None) -> None:
    """Open ports of localhost that lead to services, for this user's programs only, and run COMMAND beside them.

    The certificate is that of the task (label FAIRLEAD_IDENTITY=true names it in the environment), or of
    `fairlead ca issue`. COMMAND keeps this process: its signals and its exit are its own. Without one, it serves until
    it is ended.
    """
    from fairlead_discovery import forwarding  # noqa: PLC0415  # `--help` is fast without it

    files = {key: given[key] or "" for key in ("identity", "roots")}
    if missing := [f"--{key}" for key, value in files.items() if not value]:
        raise BadSettings(f"{' and '.join(missing)}: not given; a task needs the label FAIRLEAD_IDENTITY=true")
    ways = [_way("--to", one, "--mesh", given["http_mesh"]) for one in to]
    ways += [_way("--tcp", one, "--mesh-tcp", given["mesh_tcp"]) for one in tcp]
    if not ways:
        raise BadSettings("--to: not given; PORT=SERVICE, as 9000=marathon:/shop/cart")
    made = forwarding.Forwarder(forwarding.Shown(Path(files["identity"]), Path(files["roots"])), ways)
    sockets = forwarding.listening(ways)
    set_up("info")
    if not command and not use.as_json:
        say("\n".join(f"127.0.0.1:{w.port} leads to {w.service}" for w in ways))
        sys.stdout.flush()
    if command and (parent := os.getpid()) and os.fork():
        _become(command)
    if command:
        _stay_beside(parent)
    _serve(made, sockets)


def _way(option: str, text: str, mesh_option: str, at: str | None) -> "forwarding.Way":
    """Raises BadSettings naming the option."""
    from fairlead_discovery import forwarding  # noqa: PLC0415  # see above
    from fairlead_discovery.decisions import identity  # noqa: PLC0415  # see above

    found = _TO.fullmatch(text)
    if found is None or not 0 < int(found["port"]) < 65_536:
        raise BadSettings(f"{option}: {text!r}: expected PORT=SERVICE, as 9000=marathon:/shop/cart")
    host, _, port = (at or "").rpartition(":")
    if not host or not port.isdigit():
        raise BadSettings(f"{mesh_option}: {at or 'not given'}: expected the balancer's host:port")
    return forwarding.Way(
        port=int(found["port"]),
        service=identity.service(found["service"]),
        index=int(found["index"] or 0),
        mesh=(host.strip("[]"), int(port)),
    )


def _become(command: tuple[str, ...]) -> NoReturn:
    """The task's own process goes on as COMMAND."""
    try:
        os.execvp(command[0], command)  # noqa: S606  # a program and its arguments, no shell
    except OSError as error:
        os.write(2, f"fairlead: cannot run {command[0]}: {error.strerror}\n".encode())
    os._exit(127)


def _stay_beside(parent: int) -> None:
    """We end with COMMAND, not before it: what it still has to say while it ends wants its connections."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    if os.getppid() != parent:
        os._exit(0)


def _serve(made: "forwarding.Forwarder", sockets: list["socket.socket"]) -> None:
    import asyncio  # noqa: PLC0415  # see above

    asyncio.run(made.serve(sockets))
