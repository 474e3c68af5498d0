"""What `up` says: a line a step with its time; plain when it is no terminal; a reader that went away ends nothing."""

import os
import sys
import time
from collections.abc import Sequence

import click

COLOURS = {"ok": "green", "note": "yellow", "bad": "red"}


class Screen:
    """`screen.step("master", "ready")` prints `   1.2 s  master      ready`."""

    def __init__(self) -> None:
        self._begin_s = time.monotonic()

    def restart_clock(self) -> None:
        self._begin_s = time.monotonic()

    def step(self, what: str, text: str, *, style: str = "ok") -> None:
        taken = click.style(f"{time.monotonic() - self._begin_s:6.1f} s  ", dim=True)
        name = click.style(f"{what:<11} ", fg=COLOURS[style], bold=style == "bad")
        self.say(f"{taken}{name}{text}")

    def table(self, title: str, rows: Sequence[tuple[str, str]]) -> None:
        """What is to be pasted must stand on one line, however narrow the terminal: no frames, no cutting."""
        width = max((len(name) for name, _ in rows), default=0)
        self.say(click.style(title, bold=True))
        for name, value in rows:
            self.say(click.style(f"  {name:<{width}}   ", fg="cyan") + value)

    def say(self, text: str = "") -> None:
        try:
            click.echo(text)  # without colours where they would be noise
        except OSError:  # `| head` has read enough, the terminal is gone: the house stands on
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
