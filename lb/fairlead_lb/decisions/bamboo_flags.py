"""Bamboo's command line: `-config FILE -bind :8000 -log FILE`, with one dash or two, as Go's flag package reads it."""

from collections.abc import Sequence
from dataclasses import dataclass

USAGE = "usage: bamboo -config FILE [-bind [address]:port] [-log FILE] [-set KEY=VALUE of fairlead lb] …"
DEFAULT_BIND = ":8000"
FLAGS = frozenset({"config", "bind", "log", "set"})


class UsageError(Exception):
    """No command line of Bamboo; says why."""


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
    given: dict[str, list[str]] = {}
    left = list(arguments)
    while left:
        word = left.pop(0)
        name, sign, value = word.removeprefix("-").removeprefix("-").partition("=")
        if not word.startswith("-") or not name:
            raise UsageError(f"{word!r} is no flag")
        if name not in FLAGS:
            raise UsageError(f"flag provided but not defined: -{name}")
        if not sign and not left:
            raise UsageError(f"flag needs an argument: -{name}")
        given.setdefault(name, []).append(value if sign else left.pop(0))
    if "config" not in given:
        raise UsageError("-config is needed")
    return Asked(
        config=given["config"][-1],
        bind=given.get("bind", [DEFAULT_BIND])[-1],
        log=given.get("log", [""])[-1],
        sets=tuple(given.get("set", ())),
    )
