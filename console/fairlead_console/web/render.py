"""Sections and the page as HTML. Everything from outside is escaped; nothing is inline that a policy would have to allow."""

import functools
import hashlib
import time
from collections.abc import Mapping
from dataclasses import dataclass

import jinja2

from fairlead_console.web.decisions.page import Section

TITLES: Mapping[str, str] = {
    "graph": "Requests per second",
    "alerts": "Alerts",
    "services": "Services",
    "nodes": "Nodes",
    "links": "Links",
}


@dataclass(frozen=True, slots=True)
class Fragment:
    """A rendered section. Two with one digest are alike."""

    name: str
    html: str
    digest: str


@functools.cache
def _environment() -> jinja2.Environment:
    made = jinja2.Environment(
        loader=jinja2.PackageLoader("fairlead_console.web"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters["clock"] = clock
    return made


def fragment(name: str, view: Section) -> Fragment:
    html = _environment().get_template(f"{name}.html.j2").render(view=view)
    return Fragment(name, html, hashlib.sha256(html.encode()).hexdigest()[:16])


def whole(fragments: Mapping[str, Fragment], *, files: Mapping[str, str]) -> str:
    """The page. `files` are the addresses of scripts and styles by name."""
    return _environment().get_template("page.html.j2").render(fragments=fragments, titles=TITLES, files=files)


def event(fragments: list[Fragment]) -> bytes:
    """One server-sent event, in htmx's form: each section is put in place of the one shown."""
    lines = "".join(
        f'<hx-partial hx-target="#{f.name}" hx-swap="innerMorph">{f.html}</hx-partial>\n' for f in fragments
    ).splitlines()
    return ("".join(f"data: {line}\n" for line in lines) + "\n").encode()


def clock(time_s: float) -> str:
    """Local time of the day, as on the machine's own clock."""
    return time.strftime("%H:%M:%S", time.localtime(time_s))
