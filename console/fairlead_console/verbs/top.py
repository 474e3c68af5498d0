"""`fairlead top`: services with their requests, daemons with their CPU, agents with what is taken; live on a terminal."""

import asyncio
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import click

from fairlead_console.decisions.visible import visible
from fairlead_console.output import say, show_json, show_table
from fairlead_console.use import Calls, Use, verb
from fairlead_daemon.errors import Unavailable

Page = Mapping[str, Any]
Table = tuple[str, Sequence[str], list[tuple[str, ...]]]
MEBIBYTE = 1024 * 1024


@click.command(epilog="Example: fairlead top --once")
@click.option("--once", is_flag=True, help="Show it once and exit; so it is when piped.")
@click.option("--every", "every_s", default=1.0, show_default=True, metavar="SECONDS", help="How often it is renewed.")
@verb
def top(use: Use, every_s: float, *, once: bool) -> None:
    """Requests per second, healthy instances, CPU of daemons, resources of agents. Ctrl-C ends it."""
    if use.as_json or once or not sys.stdout.isatty():
        page = use.run(_page)
        if use.as_json:
            show_json(page)
            return
        for title, columns, rows in tables(page):
            show_table(columns, rows, empty=f"no {title}")
            say("")
        say(headline(page))
        return
    use.run(lambda calls: _live(calls, max(0.2, every_s)))


async def _page(calls: Calls) -> Page:
    return dict(await calls.url("GET", f"{calls.addresses.monitor}/api/top"))


async def _live(calls: Calls, every_s: float) -> None:
    with _screen() as show:
        while True:
            try:
                show(await _page(calls))
            except Unavailable as error:  # it is started again meanwhile
                show({"error": str(error)})
            await asyncio.sleep(every_s)


class _screen:  # noqa: N801  # used as a context, like a function
    """The whole terminal, given back at the end."""

    def __enter__(self) -> Callable[[Page], None]:
        from rich.live import Live  # noqa: PLC0415  # only a terminal pays for it

        self._live = Live(screen=True, auto_refresh=False)
        self._live.__enter__()
        return lambda page: self._live.update(_drawn(page), refresh=True)

    def __exit__(self, *about: object) -> None:
        self._live.__exit__(None, None, None)


def _drawn(page: Page) -> Any:
    from rich.console import Group  # noqa: PLC0415  # see above
    from rich.table import Table as Drawing  # noqa: PLC0415  # see above
    from rich.text import Text  # noqa: PLC0415  # see above

    if "error" in page:
        return Text(f"the monitor does not answer: {page['error']}", style="bold red")
    parts: list[Any] = [Text(headline(page), style="bold")]
    for _, columns, rows in tables(page):
        drawing = Drawing(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
        for number, column in enumerate(columns):
            drawing.add_column(column, justify="left" if number == 0 else "right")
        for row in rows:
            drawing.add_row(*(Text(visible(cell), style="bold red" if cell.endswith("!") else "") for cell in row))
        parts += [Text(""), drawing]
    return Group(*parts)


def headline(page: Page) -> str:
    alerts = int(page.get("alerts", 0))
    told = f"{alerts} alerts firing: fairlead alert list" if alerts else "no alerts"
    return f"{told}; registry {page.get('trust', 'unknown')}"


def tables(page: Page) -> list[Table]:
    """Title, columns and rows; a cell that ends in `!` is bad news."""
    return [
        (
            "services",
            ("service", "healthy/wanted", "routed", "requests/s", "errors/s", "sessions"),
            [_service(entry) for entry in page["services"]],
        ),
        ("daemons", ("daemon", "role", "cpu %", "memory MB"), [_daemon(entry) for entry in page["daemons"]]),
        ("agents", ("agent", "cpus", "mem", "state"), [_agent(entry) for entry in page["agents"]]),
    ]


def _service(entry: Page) -> tuple[str, ...]:
    healthy, wanted = entry["healthy"], entry["wanted"]
    short = healthy is not None and wanted is not None and healthy < wanted
    return (
        entry["service"],
        f"{_number(healthy)}/{_number(wanted)}{'!' if short else ''}",
        _number(entry["routed"]),
        _number(entry["requests_per_s"], digits=1),
        _number(entry["errors_per_s"], digits=1),
        _number(entry["sessions"]),
    )


def _daemon(entry: Page) -> tuple[str, ...]:
    memory = entry["memory_bytes"]
    return (
        entry["daemon"] if entry["up"] else f"{entry['daemon']} does not answer!",
        entry["role"],
        _number(entry["cpu_percent"], digits=1),
        _number(memory / MEBIBYTE if memory is not None else None),
    )


def _agent(entry: Page) -> tuple[str, ...]:
    used = (f"{_number(entry[f'{name}_used'])}/{_number(entry[f'{name}_total'])}" for name in ("cpus", "mem"))
    return (entry["agent"], *used, "lost!" if entry["lost"] else "ok")


def _number(value: float | None, *, digits: int = 0) -> str:
    """`-` for what nobody told."""
    if value is None:
        return "-"
    return f"{value:.{digits}f}" if digits else f"{value:g}" if value < 100 else f"{value:.0f}"
