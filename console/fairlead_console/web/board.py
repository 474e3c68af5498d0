"""The rendered page, rendered anew when what it shows changed: once for all who look."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping

from fairlead_console.web.decisions.page import Facts, Section, page
from fairlead_console.web.render import Fragment, fragment
from fairlead_discovery.store import Cell

GATHER_S = 0.05
"""Changes that come together are rendered together: at most 20 times a second."""


class Board:
    """`cell` holds the sections by name, in the page's order; it changes when one of them does."""

    def __init__(self, facts: Callable[[], Facts]) -> None:
        self.cell: Cell[Mapping[str, Fragment]] = Cell({})
        self._facts = facts
        self._views: Mapping[str, Section] = {}

    def render(self) -> Mapping[str, Fragment]:
        """The sections as of now; those whose view is as before are not rendered again."""
        views = page(self._facts())
        before = self.cell.value
        made = {
            name: before[name] if view == self._views.get(name) else fragment(name, view)
            for name, view in views.items()
        }
        self._views = views
        if made != before:
            self.cell.set(made)
        return made

    async def run(self, changed: asyncio.Event, *, watched: Callable[[], Awaitable[None]]) -> None:
        """For ever, while somebody looks. `changed` is set by what the facts come from, and cleared here."""
        while True:
            await changed.wait()
            await watched()
            changed.clear()
            self.render()
            await asyncio.sleep(GATHER_S)
