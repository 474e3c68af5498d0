"""The rendered page, rendered anew when what it shows changed: once for all who look."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping

from fairlead_console.web import render
from fairlead_console.web.decisions.page import Facts, Section, Services, page
from fairlead_console.web.decisions.services import Service
from fairlead_console.web.render import Fragment
from fairlead_discovery.store import Cell

GATHER_S = 0.05
"""Changes that come together are rendered together: at most 20 times a second."""
SHARE = 0.25
"""Of the time, rendering a large house takes no more than this."""
Fragments = Mapping[str, Fragment]


class Board:
    """`cell` holds the sections by name, in the page's order, and after them each service; it changes when one does."""

    def __init__(self, facts: Callable[[], Facts]) -> None:
        self.cell: Cell[Fragments] = Cell({})
        self._facts = facts
        self._views: Mapping[str, Section] = {}
        self._services: dict[Service, Fragment] = {}

    def render(self) -> Fragments:
        """Everything as of now; what shows the same as before is not rendered again."""
        views = page(self._facts())
        before = self.cell.value
        made: dict[str, Fragment] = {}
        for name, view in views.items():
            if view == self._views.get(name):
                made[name] = before[name]
            elif isinstance(view, Services):
                made[name] = render.services(view, self._render_services(view.services))
            else:
                made[name] = render.fragment(name, view)
        self._views = views
        made.update((fragment.name, fragment) for fragment in self._services.values())
        if {name: f.digest for name, f in made.items()} != {name: f.digest for name, f in before.items()}:
            self.cell.set(made)
        return made

    def _render_services(self, views: Iterable[Service]) -> list[Fragment]:
        before = self._services
        self._services = {view: before.get(view) or render.service(view) for view in views}
        return list(self._services.values())

    async def run(self, changed: asyncio.Event, *, watched: Callable[[], Awaitable[None]]) -> None:
        """For ever, while somebody looks. `changed` is set by what the facts come from, and cleared here."""
        while True:
            await changed.wait()
            await watched()
            changed.clear()
            begin_s = time.monotonic()
            self.render()
            await asyncio.sleep(max(GATHER_S, (time.monotonic() - begin_s) / SHARE))


def fresh(board: Fragments, sent: Mapping[str, str]) -> list[Fragment]:
    """What a page that was sent these digests lacks. A section that is sent whole brings its parts along."""
    lacking = [fragment for fragment in board.values() if sent.get(fragment.name) != fragment.digest]
    contained = frozenset[str]().union(*(fragment.parts for fragment in lacking))
    return [fragment for fragment in lacking if fragment.name not in contained]


def digests(fragments: Iterable[Fragment], board: Fragments) -> dict[str, str]:
    """What a page has that was sent these: their parts too."""
    named = {fragment.name for fragment in fragments}.union(*(fragment.parts for fragment in fragments))
    return {name: board[name].digest for name in named if name in board}
