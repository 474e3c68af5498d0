"""`fairlead logs`: the end of a daemon's log, and what comes after."""

import time
from collections import deque
from pathlib import Path
from typing import TextIO

import click

from fairlead_console.decisions.names import nearest
from fairlead_console.output import say, show_json
from fairlead_console.use import Use, verb
from fairlead_daemon.errors import BadSettings, Refused

POLL_S = 0.2


@click.command(epilog="Example: fairlead logs master -f")
@click.argument("name", default="")
@click.option("-n", "--lines", default=50, show_default=True, help="How many of the last lines.")
@click.option("-f", "--follow", is_flag=True, help="Go on until Ctrl-C.")
@verb
def logs(use: Use, name: str, lines: int, *, follow: bool) -> None:
    """The log of NAME, as master or agent-1; without NAME, which there are."""
    folder = _folder(use)
    known = sorted(file.stem for file in folder.glob("*.log"))
    if not name:
        show_json(known) if use.as_json else say("\n".join(known))
        return
    if name not in known:
        near = nearest(name, known) or known
        raise Refused(f"no log of {name} in {folder}; there are {', '.join(near)}")
    with (folder / f"{name}.log").open(encoding="utf-8", errors="replace") as stream:
        last = [line.rstrip("\n") for line in deque(stream, maxlen=lines)]
        show_json(last) if use.as_json else say("\n".join(last))
        if follow:
            _follow(stream)


def _folder(use: Use) -> Path:
    if not use.addresses.data_dir:
        raise BadSettings("no data directory of a `fairlead up` found here; name it by --data-dir")
    return Path(use.addresses.data_dir) / "log"


def _follow(stream: TextIO) -> None:
    while True:
        if text := stream.read():
            say(text.rstrip("\n"))
        else:
            time.sleep(POLL_S)
