"""Bamboo's command line: `-config FILE -bind :8000 -log FILE`."""

from collections.abc import Sequence
from dataclasses import dataclass

from fairlead_daemon.decisions import go_flags
from fairlead_daemon.decisions.go_flags import UsageError

USAGE = "usage: bamboo -config FILE [-bind [address]:port] [-log FILE] [-set KEY=VALUE of fairlead lb] …"
DEFAULT_BIND = ":8000"
FLAGS = frozenset({"config", "bind", "log", "set"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """`log` "" is standard error. `sets` is ours: what Bamboo had no flag for."""

    config: str
    bind: str = DEFAULT_BIND
    log: str = ""
    sets: tuple[str, ...] = ()

    def arguments(self) -> list[str]:
        """Of `fairlead lb`."""
        sets = (f'bamboo_bind="{self.bind}"', *self.sets)
        return ["--bamboo-config", self.config, *(word for one in sets for word in ("--set", one))]


def read(arguments: Sequence[str]) -> Asked:
    """Raises UsageError."""
    given = go_flags.read(arguments, values=FLAGS)
    if "config" not in given:
        raise UsageError("-config is needed")
    return Asked(
        config=given["config"][-1],
        bind=given.get("bind", [DEFAULT_BIND])[-1],
        log=given.get("log", [""])[-1],
        sets=tuple(given.get("set", ())),
    )
