"""`fairlead registry`: the `local` backend's process. It alone opens the database, and serves all daemons of a machine."""

import asyncio
from pathlib import Path

from fairlead_daemon.errors import BadSettings
from fairlead_daemon.main import Context, Daemon, until_stopped
from fairlead_daemon.settings import DaemonSettings
from fairlead_daemon.web import make_app, serve
from fairlead_discovery.adapters.database import Database
from fairlead_discovery.adapters.local import Server, checked_path
from fairlead_discovery.backends import check_url
from fairlead_discovery.hub import Hub


class RegistrySettings(DaemonSettings, frozen=True, kw_only=True):
    """Settings of `fairlead registry`. `registry` names the socket it serves; the file is `<data_dir>/registry.db`."""

    socket_group: str = ""
    """Members of this group may use the registry too (socket mode 0660). Empty: only our own user (0600)."""


async def run(settings: RegistrySettings, context: Context) -> None:
    """Serves until stopped. Sessions outlive it: they are stored, and get fresh 10 s at the next start."""
    scheme, place = check_url(settings.registry)
    if scheme != "local":
        raise BadSettings(f"registry: {settings.registry!r}: this process serves `local:<socket>` only")
    database = Database(Path(settings.data_dir) / "registry.db")
    try:
        hub = Hub(database.nodes, store=database.store, reload=database.reload)
        server = Server(checked_path(place), hub, settings.socket_group)
        runner, port = await serve(make_app(settings, context.health), settings)
        try:
            await server.start()
            context.log.info("serving", socket=place, revision=hub.nodes.revision, http=f"{settings.host}:{port}")
            await until_stopped(context, hub.crash())
        finally:
            await server.close()
            await hub.close()
            await runner.cleanup()
    finally:
        await asyncio.to_thread(database.close)


DAEMON = Daemon(
    name="registry",
    summary="The local registry: sessions, watches and transactions for the daemons of one machine.",
    settings=RegistrySettings,
    run=run,
)
