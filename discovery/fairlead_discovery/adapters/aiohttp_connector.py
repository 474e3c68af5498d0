"""aiohttp by service names: `ClientSession(connector=ServiceConnector(resolver))`, then `session.get("http://web-shop.marathon.mesos/")`.

Each request goes to an endpoint picked for it. Connections are kept for each endpoint, so that none is used again once
its endpoint has left. Other hosts are resolved as ever.
"""

import socket
from collections.abc import Callable
from functools import partial
from typing import Any

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from fairlead_daemon.errors import FairleadError
from fairlead_discovery.decisions.picking import Endpoint
from fairlead_discovery.resolver import Resolver

TRIES = 3
"""Endpoints tried for a connection. Nothing was sent to one that did not take it, so this is safe for POSTs too."""
Pick = Callable[[Resolver, str], Endpoint]


def _pick(resolver: Resolver, name: str) -> Endpoint:
    return resolver.pick(name)


class ServiceConnector(aiohttp.TCPConnector):
    """`picked` chooses: `lambda resolver, name: resolver.pick(name, client_zone="eu-1")`. Options are TCPConnector's."""

    def __init__(self, resolver: Resolver, *, picked: Pick = _pick, domain: str = "mesos", **options: Any) -> None:
        super().__init__(**options)
        self._services = resolver
        self._picked = picked
        self._suffix = f".{domain}"

    async def connect(
        self,
        req: aiohttp.ClientRequest,
        traces: list[Any],
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109  # aiohttp's signature
    ) -> Any:
        """A connection to an endpoint of the service that the URL's host names."""
        name = (req.url.raw_host or "").rstrip(".")
        if not name.endswith(self._suffix) or req.proxy:
            return await super().connect(req, traces, timeout)
        tried: list[Endpoint] = []
        while True:
            endpoint = self._choose(req, name, tried)
            self._services.begin(endpoint)
            try:
                connection = await super().connect(_Directed(req, endpoint), traces, timeout)  # type: ignore[arg-type]  # stands in for the request
            except (aiohttp.ClientConnectorError, aiohttp.ServerTimeoutError):
                self._services.end(endpoint)
                tried.append(endpoint)
                if len(tried) >= min(TRIES, len(self._services.endpoints(name)) or 1):
                    raise
            except BaseException:
                self._services.end(endpoint)
                raise
            else:
                connection.add_callback(partial(self._services.end, endpoint))
                return connection

    def _choose(self, req: aiohttp.ClientRequest, name: str, tried: list[Endpoint]) -> Endpoint:
        try:
            return self._services.pick_other(name, tried) if tried else self._picked(self._services, name)
        except FairleadError as error:
            raise aiohttp.ClientConnectorDNSError(req.connection_key, OSError(None, str(error))) from error


class _Directed:
    """A request as the connector sees it: to the endpoint's address. What is sent stays the request's own."""

    def __init__(self, request: aiohttp.ClientRequest, endpoint: Endpoint) -> None:
        self._request = request
        self.url: URL = request.url.with_host(endpoint.host).with_port(endpoint.port)
        self.host = endpoint.host
        self.port = endpoint.port
        self.server_hostname = request.server_hostname or request.url.raw_host
        self.connection_key = request.connection_key._replace(
            host=endpoint.host, port=endpoint.port, server_hostname=self.server_hostname
        )

    def __getattr__(self, name: str) -> Any:
        return getattr(self._request, name)


class ServiceResolver(AbstractResolver):
    """For a connector of your own: `TCPConnector(resolver=ServiceResolver(resolver), use_dns_cache=False, force_close=True)`.

    Kept connections are aiohttp's by name, and would outlive their endpoints: hence `force_close`.
    """

    def __init__(self, resolver: Resolver, *, picked: Pick = _pick) -> None:
        self._services = resolver
        self._picked = picked

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """The picked endpoint first, then the others, for when it takes no connection. Raises OSError."""
        del port  # the service's own ports
        try:
            chosen = self._picked(self._services, host)
            others = [e for e in self._services.endpoints(host) if e != chosen]
        except FairleadError as error:
            raise OSError(None, str(error)) from error
        return [_result(host, endpoint, family) for endpoint in (chosen, *others[: TRIES - 1])]

    async def close(self) -> None:
        """The Resolver is whoever's that made it."""


def _result(name: str, endpoint: Endpoint, family: int) -> ResolveResult:
    kind = socket.AF_INET6 if ":" in endpoint.host else socket.AF_INET
    if family not in {socket.AF_UNSPEC, kind}:
        raise OSError(None, f"{name}: {endpoint.name} is of another address family")
    return ResolveResult(
        hostname=name,
        host=endpoint.host,
        port=endpoint.port,
        family=kind,
        proto=0,
        flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
    )
