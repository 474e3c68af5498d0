"""Mesos-DNS' command line: `-config=FILE -v=1 -version`."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from fairlead_daemon.decisions import go_flags
from fairlead_daemon.decisions.go_flags import UsageError

DEFAULT_FILE = "config.json"
"""In the current folder, as Mesos-DNS looks for it."""
SWITCHES = frozenset({"version", "logtostderr", "alsologtostderr"})
VALUES = frozenset({"config", "v", "stderrthreshold", "log_dir", "log_backtrace_at", "vmodule"})
QUIET = frozenset({"logtostderr", "alsologtostderr", "stderrthreshold", "log_dir", "log_backtrace_at", "vmodule"})
"""Of Go's logger. We log to standard error, whatever they say."""
VERY_VERBOSE = 2
USAGE = "usage: mesos-dns [-config=FILE] [-v=1|2] [-version]"


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
    given = go_flags.read(arguments, values=VALUES, switches=SWITCHES)
    return Asked(
        file=given.get("config", [DEFAULT_FILE])[-1],
        version=go_flags.switch(given, "version"),
        verbose=_level(given.get("v", ["0"])[-1]),
        passed_over=tuple(sorted(QUIET & given.keys())),
    )


def _level(text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise UsageError(f"invalid value {text!r} for flag -v")
    return int(text[:9])
