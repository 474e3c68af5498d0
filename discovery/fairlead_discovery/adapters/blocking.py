"""The Resolver for scripts: no asyncio in sight. Its event loop runs in a thread that ends with it."""

import asyncio
import threading
from collections.abc import Coroutine
from pathlib import Path
from typing import Self, TypeVar

from fairlead_daemon.errors import Unavailable
from fairlead_discovery.decisions.picking import Endpoint, Strategy
from fairlead_discovery.decisions.service_names import Naming
from fairlead_discovery.resolver import Resolver

T = TypeVar("T")
WAIT_S = 15.0


class BlockingResolver:
    """`with BlockingResolver("zk://h1:2181") as resolver: resolver.pick("/shop/web")`. Any thread may call it.

    The URL may be `http://…`, as Resolver's.
    """

    def __init__(self, url: str, *, naming: Naming = Naming(), token_file: Path | None = None) -> None:  # noqa: B008  # frozen
        self._url = url
        self._naming = naming
        self._token_file = token_file
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="fairlead-resolver", daemon=True)

    def __enter__(self) -> Self:
        """Raises BadSettings for a bad URL, Unavailable when the registry is not seen."""
        self._thread.start()
        try:
            self._resolver = self._run(self._open())
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._run(self._close())
        finally:
            self._stop()

    def pick(self, name: str, *, key: str = "", client_zone: str = "", strategy: Strategy | None = None) -> Endpoint:
        """As Resolver.pick."""

        async def pick() -> Endpoint:
            return self._resolver.pick(name, key=key, client_zone=client_zone, strategy=strategy)

        return self._run(pick())

    def endpoints(self, name: str) -> tuple[Endpoint, ...]:
        """As Resolver.endpoints."""

        async def endpoints() -> tuple[Endpoint, ...]:
            return self._resolver.endpoints(name)

        return self._run(endpoints())

    def _run(self, body: Coroutine[None, None, T]) -> T:
        future = asyncio.run_coroutine_threadsafe(body, self._loop)
        try:
            return future.result(WAIT_S)
        except TimeoutError as error:
            future.cancel()
            raise Unavailable(f"{self._url}: no answer within {WAIT_S:.0f} s") from error

    async def _open(self) -> Resolver:
        resolver = await Resolver(self._url, naming=self._naming, token_file=self._token_file).__aenter__()
        if resolver.snapshot.revision < 0:
            await resolver.__aexit__(None, None, None)
            raise Unavailable(f"{self._url}: {resolver.snapshot.why}")
        return resolver

    async def _close(self) -> None:
        await self._resolver.__aexit__(None, None, None)

    def _stop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(WAIT_S)
        self._loop.close()
