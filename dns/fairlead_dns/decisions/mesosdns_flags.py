"""Mesos-DNS' command line: `-config=FILE -v=1 -version`, with one dash or two, as Go's flag package reads it."""

from collections.abc import Sequence
from dataclasses import dataclass, field

DEFAULT_FILE = "config.json"
"""In the current folder, as Mesos-DNS looks for it."""
TRUE = frozenset({"1", "t", "T", "TRUE", "true", "True"})
FALSE = frozenset({"0", "f", "F", "FALSE", "false", "False"})
SWITCHES = frozenset({"version", "logtostderr", "alsologtostderr"})
VALUES = frozenset({"config", "v", "stderrthreshold", "log_dir", "log_backtrace_at", "vmodule"})
QUIET = frozenset({"logtostderr", "alsologtostderr", "stderrthreshold", "log_dir", "log_backtrace_at", "vmodule"})
"""Of Go's logger. We log to standard error, whatever they say."""
VERY_VERBOSE = 2
USAGE = "usage: mesos-dns [-config=FILE] [-v=1|2] [-version]"


class UsageError(Exception):
    """No command line of Mesos-DNS; says why."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What a command line wants. `passed_over`: flags that mean nothing here."""

    file: str = DEFAULT_FILE
    version: bool = False
    verbose: int = 0
    passed_over: tuple[str, ...] = field(default=())

    def arguments(self) -> list[str]:
        """Of `fairlead dns`. Mesos-DNS at its most talkative is our `debug`; its other levels are our `info`."""
        level = ["--set", "log_level=debug"] if self.verbose >= VERY_VERBOSE else []
        return ["--mesos-dns-config", self.file, *level]


def read(arguments: Sequence[str]) -> Asked:
    """Raises UsageError."""
    given: dict[str, str] = {}
    left = list(arguments)
    while left:
        word = left.pop(0)
        name, sign, value = word.removeprefix("-").removeprefix("-").partition("=")
        if not word.startswith("-") or not name:
            raise UsageError(f"{word!r} is no flag")
        if name not in SWITCHES | VALUES:
            raise UsageError(f"flag provided but not defined: -{name}")
        if not sign and name in VALUES:
            if not left:
                raise UsageError(f"flag needs an argument: -{name}")
            value = left.pop(0)
        given[name] = value if sign or name in VALUES else "true"
    return Asked(
        file=given.get("config", DEFAULT_FILE),
        version=_switch(given, "version"),
        verbose=_level(given.get("v", "0")),
        passed_over=tuple(sorted(QUIET & given.keys())),
    )


def _switch(given: dict[str, str], name: str) -> bool:
    value = given.get(name, "false")
    if value not in TRUE | FALSE:
        raise UsageError(f"invalid boolean value {value!r} for -{name}")
    return value in TRUE


def _level(text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise UsageError(f"invalid value {text!r} for flag -v")
    return int(text[:9])
