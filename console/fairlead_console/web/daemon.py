"""`fairlead console`: the page on port 8000."""

from pathlib import Path

from fairlead_console.web.board import Board
from fairlead_console.web.live import Live
from fairlead_console.web.pages import add_routes
from fairlead_console.web.settings import ConsoleSettings
from fairlead_daemon.client import make_session
from fairlead_daemon.main import Context, Daemon, until_stopped
from fairlead_daemon.web import make_app, serve
from fairlead_discovery.backends import open_registry
from fairlead_discovery.snapshots import Snapshot

NOTHING_READ = "nothing known of the registry yet"


async def run(settings: ConsoleSettings, context: Context) -> None:
    """The page is served at once; what is not known yet it says."""
    context.health.wait("snapshot", NOTHING_READ)
    app = make_app(settings, context.health)
    async with make_session() as session:
        live = Live(settings, session)
        board = Board(live.facts)
        add_routes(app, live, board, viewers=settings.viewers)
        runner, port = await serve(app, settings)
        registry = await open_registry(settings.registry)
        context.log.info("serving", page=f"http://{settings.host}:{port}/")

        def seen(snapshot: Snapshot) -> None:
            if snapshot.revision >= 0:
                context.health.ready("snapshot")

        keep = Path(settings.data_dir) / "console.snapshot"
        try:
            await until_stopped(
                context,
                live.follow(registry, keep=keep, seen=seen),
                board.run(live.changed, watched=live.audience.present),
                *live.bodies(),
            )
        finally:
            await runner.cleanup()
            await registry.close()


DAEMON = Daemon(
    name="console", summary="The web console: one page that keeps itself true.", settings=ConsoleSettings, run=run
)
