"""What every verb gets: addresses, the wish for JSON, and calls to the daemons that carry the token."""

import asyncio
import functools
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import click
import msgspec

from fairlead_console.addresses import Addresses, find
from fairlead_daemon.errors import BadSettings

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Use:
    """One run of a verb."""

    addresses: Addresses
    as_json: bool

    @property
    def registry(self) -> str:
        """Its URL. Raises BadSettings when none is known."""
        if not self.addresses.registry:
            raise BadSettings("no registry known; give --registry, set FAIRLEAD_REGISTRY, or name --data-dir")
        return self.addresses.registry

    def at(self, registry: str) -> "Use":
        """With another registry; "" is the same."""
        return replace(self, addresses=msgspec.structs.replace(self.addresses, registry=registry)) if registry else self

    def at_balancer(self, admin: str) -> "Use":
        """With the balancer whose pages are there."""
        return replace(self, addresses=msgspec.structs.replace(self.addresses, lb=admin))

    def run(self, body: "Callable[[Calls], Coroutine[Any, Any, T]]") -> T:
        """Runs an async body with HTTP calls at hand."""

        async def with_session() -> T:
            from fairlead_daemon.client import make_session  # noqa: PLC0415  # `--help` is fast without aiohttp

            async with make_session(self.addresses.token_path) as session:
                return await body(Calls(self.addresses, session))

        return asyncio.run(with_session())


@dataclass(frozen=True, slots=True)
class Calls:
    """`await calls.services("GET", "/v2/apps")`. Raises Conflict, Refused, Unavailable in the server's words."""

    addresses: Addresses
    session: Any

    async def url(self, method: str, url: str, body: object = None) -> Any:
        from fairlead_daemon.client import call  # noqa: PLC0415  # loaded by now

        return await call(self.session, method, url, body=body)

    async def services(self, method: str, path: str, body: object = None) -> Any:
        return await self.url(method, self.addresses.services + path, body)

    async def master(self, method: str, path: str, body: object = None) -> Any:
        return await self.url(method, self.addresses.master + path, body)


def verb(function: Callable[..., int | None]) -> Callable[..., int | None]:
    """Adds `--json` and `--data-dir`; the function gets a Use before its own arguments, and may return the exit code."""

    @click.option("--json", "as_json", is_flag=True, help="Print JSON.")
    @click.option(
        "--data-dir",
        default="",
        metavar="DIR",
        help="Data directory of the `fairlead up` to ask. Default: FAIRLEAD_DATA_DIR, ./.fairlead, /var/lib/fairlead.",
    )
    @functools.wraps(function)
    def wrapped(*, as_json: bool, data_dir: str, **arguments: Any) -> int | None:
        return function(Use(find(data_dir), as_json), **arguments)

    return wrapped


def registry_verb(function: Callable[..., int | None]) -> Callable[..., int | None]:
    """As `verb`, for what asks the registry itself: adds `--registry`, which `use.registry` goes by."""
    return _at("zk://… or local:…", function)


def resolver_verb(function: Callable[..., int | None]) -> Callable[..., int | None]:
    """As `registry_verb`, for what may ask the HTTP watch API instead."""
    return _at("zk://…, local:… or http://h1:8400,h2:8400", function)


def _at(urls: str, function: Callable[..., int | None]) -> Callable[..., int | None]:
    @click.option(
        "--registry",
        "url",
        default="",
        metavar="URL",
        help=f"{urls}; default: FAIRLEAD_REGISTRY, else that of --data-dir.",
    )
    @functools.wraps(function)
    def wrapped(use: Use, *, url: str, **arguments: Any) -> int | None:
        return function(use.at(url), **arguments)

    return verb(wrapped)
