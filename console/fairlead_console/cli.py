"""The verbs of `fairlead`: each module of `verbs/` is loaded only when one of its verbs is asked for."""

import logging
import sys
from collections.abc import Mapping, Sequence
from importlib import import_module

import click

from fairlead_console.decisions.visible import visible
from fairlead_console.main import DAEMONS
from fairlead_daemon.errors import BadSettings, FairleadError, Unavailable

VERBS: Mapping[str, tuple[str, str]] = {
    "up": ("up", "Run everything on this machine; Ctrl-C ends it."),
    "status": ("status", "Every daemon, agent and app on one screen."),
    "app": ("app", "Deploy, list, scale, restart and remove apps."),
    "explain": ("explain", "Why an app does not run, or not as asked."),
    "explain-name": ("explain_name", "Why a DNS name is answered as it is, or what it answered at a time."),
    "lookup": ("lookup", "Ask fairlead's DNS for a name."),
    "check-zone": ("check_zone", "What fairlead's DNS would say of a zone file."),
    "node": ("node", "List, drain and undrain agents."),
    "registry": ("registry", "Look into the registry; save, restore, check, move it; confirm a held reading."),
    "route": ("route", "Hosts, paths and ports that lead to services."),
    "intention": ("intention", "Who may call whom, by identity, method and path."),
    "ca": ("ca", "Identities of services: certificates from the authority, its roots."),
    "mesh": ("mesh", "Programs that cannot do TLS call services as who they are."),
    "lb": ("lb", "List registered balancers; forget one that is gone for good."),
    "announce": ("announce", "Register a service that fairlead does not schedule, while it is healthy."),
    "lock": ("lock", "Run a command while a lock is held."),
    "elect": ("elect", "Run a command on whoever is elected."),
    "barrier": ("barrier", "Wait until so many have come."),
    "group": ("group", "Who is there; be there while a command runs."),
    "resolve": ("resolve", "The endpoints of a service, without DNS."),
    "ring": ("ring", "Owners of keys, and members of services that hold data."),
    "render": ("render", "Keep a file what a template makes of endpoints: check, swap, reload."),
    "broker": ("broker", "Exchanges, queues and federation of RabbitMQ brokers."),
    "alert": ("alert", "Alerts, rules and silences of the monitor."),
    "top": ("top", "Services, daemons and agents with their rates, live."),
    "bus": ("bus", "Publish and consume messages."),
    "logs": ("logs", "The log of a daemon started by `fairlead up`."),
    "version": ("version", "The version of fairlead."),
}
"""Module and summary by verb; the module has a command of the verb's name."""
DAEMON_HELP: Mapping[str, str] = {
    "registry": "the local registry's process",
    "discovery": "endpoints over HTTP, watched: for programs the registry is closed to",
    "master": "offers, operator API, publishing of endpoints",
    "agent": "runs tasks on one machine",
    "services": "long-running services, Marathon's REST API",
    "dns": "names from endpoints, Mesos-DNS' HTTP API",
    "lb": "HAProxy from endpoints and routes",
    "messaging": "RabbitMQ brokers as declared, their federation links",
    "monitor": "measures, alerts, exports to Prometheus and Graphite",
    "console": "the web console",
    "ca": "short-lived certificates for services",
}


class Verbs(click.Group):
    """Knows the verbs' names and summaries without importing them."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  # click's signature
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002  # click's signature
        if cmd_name not in VERBS:
            return None
        command = getattr(import_module(f"fairlead_console.verbs.{VERBS[cmd_name][0]}"), cmd_name.replace("-", "_"))
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002  # see above
        with formatter.section("Verbs"):
            formatter.write_dl([(name, summary) for name, (_, summary) in VERBS.items()])
        with formatter.section("Daemons (each takes --config FILE, --set KEY=VALUE, --check)"):
            formatter.write_dl([(name, DAEMON_HELP[name]) for name in DAEMONS])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args[0] not in VERBS:
            from fairlead_console.decisions.names import nearest  # noqa: PLC0415  # only for a typing error

            near = nearest(args[0], [*VERBS, *DAEMONS])
            hint = f"; did you mean {' or '.join(near)}?" if near else "; see fairlead --help"
            raise click.UsageError(f"no such verb: {args[0]}{hint}", ctx)
        return super().resolve_command(ctx, args)


@click.command(
    cls=Verbs,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Example: fairlead up --demo",
)
def cli() -> None:
    """Run services on your own machines: schedule, name, balance them."""


def run_verb(arguments: Sequence[str]) -> int:
    """Exit code; errors are one line on stderr."""
    logging.getLogger("kazoo").addHandler(logging.NullHandler())  # each of its retries would be a line
    logging.getLogger("kazoo").propagate = False
    try:
        result = cli.main(list(arguments) or ["--help"], prog_name="fairlead", standalone_mode=False)
        sys.stdout.flush()
    except click.UsageError as error:
        where = f" (see {error.ctx.command_path} --help)" if error.ctx else ""
        return _fail(error.format_message() + where, 2)
    except click.ClickException as error:
        return _fail(error.format_message(), 1)
    except (click.Abort, KeyboardInterrupt):
        return _fail("interrupted", 130)
    except BadSettings as error:
        return _fail(str(error), 2)
    except Unavailable as error:
        return _fail(str(error), 3)
    except FairleadError as error:
        return _fail(str(error), 1)
    return result if isinstance(result, int) else 0


def _fail(message: str, code: int) -> int:
    print(visible("fairlead: " + " ".join(message.split())), file=sys.stderr)  # noqa: T201  # a command's error
    return code
