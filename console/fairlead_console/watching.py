"""Waiting for a deployment: a live line on a terminal, a line a change when piped, and why not at the end."""

import asyncio
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote

from fairlead_console.decisions.deployment import State, last_failure, state
from fairlead_console.decisions.explanation import sentences
from fairlead_console.output import say
from fairlead_console.use import Calls
from fairlead_daemon.errors import FairleadError, Refused, Unavailable

POLL_S = 0.2
EXPLAIN_EVERY_S = 3.0
PATIENCE_S = 30.0
"""How long the scheduler may be out of sight meanwhile: its daemon is started again within seconds."""


async def follow(calls: Calls, app_id: str, deployment_id: str, *, timeout_s: float, quiet: bool) -> None:
    """Returns when the deployment is done. Raises Refused saying why not when it ended otherwise, or timed out."""
    begin_s = time.monotonic()
    with _progress(app_id, quiet=quiet) as show:
        while True:
            now = await _look(calls, app_id, deployment_id)
            if now.over:
                break
            waited_s = time.monotonic() - begin_s
            if waited_s > timeout_s:
                raise Refused(f"{app_id}: not done after {timeout_s:.0f} s: {now.text}{await why(calls, app_id)}")
            reason = await why(calls, app_id) if waited_s > EXPLAIN_EVERY_S else ""
            show(now, reason)
            await asyncio.sleep(POLL_S if not reason else POLL_S * 5)
    if not now.done:
        raise Refused(f"{app_id}: the deployment ended, but: {now.text}{await why(calls, app_id)}")
    if not quiet:
        say(f"{app_id}: {now.text or 'removed'}, after {time.monotonic() - begin_s:.1f} s")


async def _look(calls: Calls, app_id: str, deployment_id: str) -> State:
    """Bears with a scheduler that is started again meanwhile."""
    end_s = time.monotonic() + PATIENCE_S
    while True:
        try:
            deployments = await calls.services("GET", "/v2/deployments")  # first: then the app is no older than it
            return state(await _app(calls, app_id), deployments, deployment_id)
        except Unavailable:
            if time.monotonic() > end_s:
                raise
            await asyncio.sleep(POLL_S)


async def _app(calls: Calls, app_id: str) -> Mapping[str, Any]:
    """{} once it is removed."""
    try:
        return dict((await calls.services("GET", f"/v2/apps{quote(app_id)}"))["app"])
    except Refused:
        return {}


async def why(calls: Calls, app_id: str) -> str:
    """The scheduler's own explanation in one line, with `; ` in front; "" when it has none."""
    try:
        found = await _app(calls, app_id)
        told = await calls.services("GET", f"/fairlead/explain?app={quote(app_id)}")
    except FairleadError:
        return ""
    return "".join(f"; {text}" for text in sentences(told)[:3] or [last_failure(found)] if text)


@contextmanager
def _progress(app_id: str, *, quiet: bool) -> Iterator[Callable[[State, str], None]]:
    if quiet:
        yield lambda _state, _reason: None
    elif sys.stdout.isatty():
        with _bar(app_id) as show:
            yield show
    else:
        yield _lines(app_id)


def _lines(app_id: str) -> Callable[[State, str], None]:
    last = ""

    def show(now: State, reason: str) -> None:
        nonlocal last
        text = f"{app_id}: {now.text}{reason}"
        if text != last:
            say(text)
            sys.stdout.flush()
        last = text

    return show


@contextmanager
def _bar(app_id: str) -> Iterator[Callable[[State, str], None]]:
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn  # noqa: PLC0415  # ditto

    told = TextColumn("{task.description}")
    columns = (SpinnerColumn(), TextColumn(app_id), BarColumn(20), TimeElapsedColumn(), told)
    with Progress(*columns, transient=True) as progress:
        bar = progress.add_task("", total=None)

        def show(now: State, reason: str) -> None:
            progress.update(bar, total=max(now.wanted, 1), completed=now.ready, description=f"{now.text}{reason}")

        yield show
