"""Sections and the page as HTML. Everything from outside is escaped; nothing is inline that a policy would have to allow."""

import functools
import hashlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import jinja2

from fairlead_console.web.decisions.page import Section, Services
from fairlead_console.web.decisions.services import Service

TITLES: Mapping[str, str] = {
    "graph": "Requests per second",
    "alerts": "Alerts",
    "services": "Services",
    "nodes": "Nodes",
    "links": "Links",
}


@dataclass(frozen=True, slots=True)
class Fragment:
    """A rendered section, or a service of one. Two with one digest are alike, but for their parts."""

    name: str
    html: str
    digest: str
    parts: frozenset[str] = frozenset()
    """Names of fragments that are contained in this one."""


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


def fragment(name: str, view: Section | Service, *, template: str = "") -> Fragment:
    """`template` is named as the section unless given."""
    html = _environment().get_template(f"{template or name}.html.j2").render(view=view)
    return Fragment(name, html, _digest(html))


def service(view: Service) -> Fragment:
    """Each service is a fragment of its own, for in a large house one of them changes at a time."""
    return fragment(f"service-{_digest(view.key)}", view, template="service")


def services(view: Services, articles: Sequence[Fragment]) -> Fragment:
    """The section with all services in it. It counts as changed when its head or the list of services is."""
    head = fragment("services", view)
    names = "".join(article.name for article in articles)
    body = "".join(f'<article id="{article.name}">\n{article.html}\n</article>\n' for article in articles)
    return Fragment("services", head.html + body, _digest(head.html + names), parts=frozenset(a.name for a in articles))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


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
