"""What `up` says: a line a step with its time; plain when it is no terminal; a terminal that went away ends nothing."""

import sys
import time
from collections.abc import Sequence

from rich.console import Console
from rich.text import Text

STYLES = {"ok": "green", "note": "yellow", "bad": "bold red"}


class Screen:
    """`screen.step("master", "ready")` prints `  1.2 s  master      ready`."""

    def __init__(self) -> None:
        self._console = Console(file=sys.stdout, highlight=False, soft_wrap=True)
        self._begin_s = time.monotonic()

    def restart_clock(self) -> None:
        self._begin_s = time.monotonic()

    def step(self, what: str, text: str, *, style: str = "ok") -> None:
        line = Text(f"{time.monotonic() - self._begin_s:6.1f} s  ", style="dim")
        line.append(f"{what:<11} ", style=STYLES[style])
        line.append(text)
        self._print(line)

    def say(self, text: str = "") -> None:
        self._print(Text(text))

    def table(self, title: str, rows: Sequence[tuple[str, str]]) -> None:
        """What is to be pasted must stand on one line, however narrow the terminal: no frames, no cutting."""
        width = max((len(name) for name, _ in rows), default=0)
        self._print(Text(title, style="bold"))
        for name, value in rows:
            self._print(Text(f"  {name:<{width}}   ", style="cyan").append(value, style="default"))

    def _print(self, value: object) -> None:
        try:
            self._console.print(value)
            self._console.file.flush()
        except OSError:  # the terminal or pipe is gone; the house stands on
            self._console = Console(quiet=True)
