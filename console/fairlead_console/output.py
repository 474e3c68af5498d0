"""How verbs answer: a table with colours on a terminal, plain columns when piped, JSON when asked for."""

import os
import sys
from collections.abc import Iterable, Sequence

import msgspec

PIPED_WIDTH = 500
GOOD = frozenset({"ready", "running", "active", "healthy", "yes", "live", "leading", "ok"})
BAD = frozenset({"not ready", "unreachable", "unhealthy", "gone", "no", "stale", "held", "dead"})
NOTED = frozenset({"deploying", "draining", "drained", "waiting", "suspect", "deactivated", "delayed"})


def show_json(value: object) -> None:
    """Indented, as it is, with a line end."""
    say(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())


def say(text: str) -> None:
    """One line or several. A reader that has enough (`| head`) ends us, well."""
    try:
        print(text)  # noqa: T201  # a command's output
    except BrokenPipeError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is buffered goes nowhere
        raise SystemExit(0) from error


def show_table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, empty: str) -> None:
    """`empty` is said instead of a table without rows."""
    lines = [[str(cell) for cell in row] for row in rows]
    if not lines:
        say(empty)
    elif sys.stdout.isatty():
        _rich(columns, lines)
    else:
        _plain([list(columns), *lines])


def _plain(lines: Sequence[Sequence[str]]) -> None:
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    for line in lines:
        say("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def _rich(columns: Sequence[str], lines: Sequence[Sequence[str]]) -> None:
    from rich.console import Console  # noqa: PLC0415  # only a terminal pays for it
    from rich.table import Table  # noqa: PLC0415  # see above
    from rich.text import Text  # noqa: PLC0415  # see above

    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    for column in columns:
        table.add_column(column, overflow="fold")
    for line in lines:
        table.add_row(*(Text(cell, style=_style(cell)) for cell in line))
    Console(highlight=False).print(table)


def _style(cell: str) -> str:
    for words, style in ((GOOD, "green"), (BAD, "bold red"), (NOTED, "yellow")):
        if cell in words:
            return style
    return ""
