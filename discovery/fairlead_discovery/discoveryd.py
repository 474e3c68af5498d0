"""`fairlead discovery`: the HTTP watch API and the rings, for programs that the registry is closed to."""

from contextlib import aclosing
from pathlib import Path
from typing import Literal

from fairlead_daemon.errors import BadSettings
from fairlead_daemon.main import Context, Daemon, until_stopped
from fairlead_daemon.settings import DaemonSettings
from fairlead_daemon.tokens import ensure_token
from fairlead_daemon.web import make_app, serve
from fairlead_discovery.adapters.listing_http import Limits, add_routes
from fairlead_discovery.adapters.ring_http import add_ring_routes
from fairlead_discovery.backends import open_registry
from fairlead_discovery.decisions.service_names import Naming
from fairlead_discovery.listing import Listing
from fairlead_discovery.reading import snapshots, tell_confirmed
from fairlead_discovery.registry import Registry

API = "/v2"


class DiscoverySettings(DaemonSettings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of `fairlead discovery`."""

    port: int = 8400
    """Port of the HTTP watch API, /metrics and /health; 0 lets the kernel choose."""
    domain: str = "mesos"
    """What DNS names end with: as the name servers' `domain`."""
    enforce_rfc952: bool = False
    """As the name servers' `enforce_rfc952`."""
    reads: Literal["open", "token"] = "open"
    """`token`: the watch API's answers too are for those with the token, which must then be on."""
    watchers: int = 5000
    """Most long polls, streams and big answers under way at a time; more are refused with 503."""
    watchers_per_client: int = 1000
    """The same of one address."""
    write_s: float = 10.0
    """A client that reads nothing of a stream or a big answer for so long is cut off."""
    longest_wait_s: float = 300.0
    """A longer `wait` is cut to this."""


async def run(settings: DiscoverySettings, context: Context) -> None:
    """See Daemon. Serves the last good state while the registry is away, from data_dir after a restart too."""
    closed = (API,) if settings.reads == "token" else ()
    if closed and not ensure_token(settings):
        raise BadSettings("reads: `token` needs the token; set `token` to on")
    naming = Naming(domain=settings.domain.strip(".").lower(), rfc952=settings.enforce_rfc952)
    listing = Listing(naming)
    app = make_app(settings, context.health, closed=closed)
    add_routes(app, listing, limits(settings))
    context.health.wait("endpoints", listing.snapshot.why)
    registry = await open_registry(settings.registry)
    try:
        add_ring_routes(app, registry, naming)
        runner, port = await serve(app, settings)
    except BaseException:
        await registry.close()
        raise
    try:
        context.log.info("serving", http=f"{settings.host}:{port}", registry=settings.registry.partition("?")[0])
        await until_stopped(
            context,
            follow(registry, listing, context, keep=_file(settings)),
            tell_confirmed(registry, listing.confirm),
        )
    finally:
        await registry.close()
        await runner.cleanup()


async def follow(registry: Registry, listing: Listing, context: Context, *, keep: Path | None) -> None:
    """Gives the listing every snapshot; ready from the first that knows something."""
    async with aclosing(snapshots(registry, keep=keep)) as found:  # type: ignore[type-var]  # a generator
        async for snapshot in found:
            if snapshot.trust is not listing.snapshot.trust:
                context.log.info("trust", trust=snapshot.trust.value, revision=snapshot.revision, why=snapshot.why)
            listing.take(snapshot)
            if snapshot.revision >= 0:
                context.health.ready("endpoints")


def limits(settings: DiscoverySettings) -> Limits:
    """Raises BadSettings naming the key."""
    for key in ("watchers", "watchers_per_client", "write_s", "longest_wait_s"):
        if getattr(settings, key) <= 0:
            raise BadSettings(f"{key}: {getattr(settings, key)} is not above 0")
    return Limits(
        watchers=settings.watchers,
        per_client=settings.watchers_per_client,
        write_s=settings.write_s,
        longest_s=settings.longest_wait_s,
    )


def _file(settings: DiscoverySettings) -> Path:
    return Path(settings.data_dir) / "discovery.snapshot"


DAEMON = Daemon(
    name="discovery",
    summary="Endpoints over HTTP, watched: for programs that the registry is closed to.",
    settings=DiscoverySettings,
    run=run,
)
