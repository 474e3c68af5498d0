"""The `fairlead` command. A daemon's name starts that daemon at once; everything else is a verb of `cli.py`."""

import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from types import MappingProxyType

DAEMONS: Mapping[str, str] = MappingProxyType(
    {
        "registry": "fairlead_discovery.registryd",
        "discovery": "fairlead_discovery.discoveryd",
        "master": "fairlead_core.master.daemon",
        "agent": "fairlead_core.agent.daemon",
        "services": "fairlead_core.services.daemon",
        "dns": "fairlead_dns.daemon",
        "lb": "fairlead_lb.daemon",
        "messaging": "fairlead_messaging.daemon",
        "monitor": "fairlead_monitoring.daemon",
        "console": "fairlead_console.web.daemon",
        "ca": "fairlead_discovery.authorityd",
    }
)
"""Module by command; each has a `DAEMON`. Imported only when it is the one to run."""
SHARED: Mapping[str, frozenset[str]] = MappingProxyType(
    {
        "registry": frozenset({"tree", "get", "watch", "export", "import", "check", "copy", "confirm", "-h", "--help"}),
        "ca": frozenset({"init", "status", "issue", "rotate", "bundle", "-h", "--help"}),
        "lb": frozenset({"list", "forget", "template", "certificate", "-h", "--help"}),
    }
)
"""By name that is a daemon's and a verb's: what makes `fairlead registry …` a verb instead of its process."""


def daemon_asked_for(arguments: Sequence[str]) -> str:
    """The daemon that `arguments` start, "" when they are a verb."""
    first = arguments[0] if arguments else ""
    if len(arguments) > 1 and arguments[1] in SHARED.get(first, ()):
        return ""
    return first if first in DAEMONS else ""


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit code: 0, 1 it failed, 2 usage or settings, 3 a daemon could not be reached."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    name = daemon_asked_for(arguments)
    if name:
        from fairlead_daemon.main import main as run  # noqa: PLC0415  # verbs start faster without it

        code: int = run(import_module(DAEMONS[name]).DAEMON, arguments[1:])
        return code
    from fairlead_console.cli import run_verb  # noqa: PLC0415  # daemons start faster without click

    return run_verb(arguments)
