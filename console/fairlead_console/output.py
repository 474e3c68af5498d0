"""How verbs answer: a table with colours on a terminal, plain columns when piped, JSON when asked for."""

import os
import shutil
import sys
from collections.abc import Iterable, Sequence

import msgspec

from fairlead_console.decisions.visible import cut, visible

PIPED_WIDTH = 60
"""Of a column of long texts, where there is no terminal to say."""
GOOD = frozenset({"ready", "running", "active", "healthy", "yes", "live", "leading", "ok"})
BAD = frozenset({"not ready", "unreachable", "unhealthy", "gone", "no", "stale", "held", "dead"})
NOTED = frozenset({"deploying", "draining", "drained", "waiting", "suspect", "deactivated", "delayed"})


def show_json(value: object) -> None:
    """Indented, as it is, with a line end."""
    say(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())


def say(text: str) -> None:
    """One line or several. A reader that has enough (`| head`) ends us, well. A terminal obeys nobody's text."""
    try:
        print(visible(text, keep="\n\t") if sys.stdout.isatty() else text)  # noqa: T201  # a command's output
    except BrokenPipeError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is buffered goes nowhere
        raise SystemExit(0) from error


def show_table(
    columns: Sequence[str], rows: Iterable[Sequence[object]], *, empty: str, long_last: bool = False
) -> None:
    """`empty` is said instead of a table without rows. A `long_last` column is cut to what the terminal has left."""
    lines = [[visible(str(cell)) for cell in row] for row in rows]
    if not lines:
        say(empty)
        return
    terminal = sys.stdout.isatty()
    if long_last:
        width = shutil.get_terminal_size().columns if terminal else PIPED_WIDTH
        lines = [[*line[:-1], cut(line[-1], width)] for line in lines]
    if terminal:
        _rich(columns, lines, long_last=long_last)
    else:
        _plain([list(columns), *lines])


def _plain(lines: Sequence[Sequence[str]]) -> None:
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    for line in lines:
        say("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def _rich(columns: Sequence[str], lines: Sequence[Sequence[str]], *, long_last: bool) -> None:
    from rich.console import Console  # noqa: PLC0415  # only a terminal pays for it
    from rich.table import Table  # noqa: PLC0415  # see above
    from rich.text import Text  # noqa: PLC0415  # see above

    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    for number, column in enumerate(columns, 1):
        one_line = long_last and number == len(columns)
        table.add_column(column, overflow="ellipsis" if one_line else "fold", no_wrap=one_line)
    for line in lines:
        table.add_row(*(Text(cell, style=_style(cell)) for cell in line))
    Console(highlight=False).print(table)


def _style(cell: str) -> str:
    for words, style in ((GOOD, "green"), (BAD, "bold red"), (NOTED, "yellow")):
        if cell in words:
            return style
    return ""
