"""The `mesos-dns` command: what an old unit file starts is this server, on the file that it names."""

import sys
from collections.abc import Sequence
from importlib.metadata import version

from fairlead_daemon.decisions.go_flags import UsageError
from fairlead_daemon.main import main as run
from fairlead_dns.daemon import DAEMON
from fairlead_dns.decisions.mesosdns_flags import USAGE, read


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit code, as `fairlead dns`: 2 for a wrong command line or file."""
    try:
        asked = read(sys.argv[1:] if argv is None else argv)
    except UsageError as error:
        print(f"mesos-dns: {error}\n{USAGE}", file=sys.stderr)  # noqa: T201  # its output
        return 2
    if asked.version:
        print(version("fairlead"))  # noqa: T201  # its output
        return 0
    for flag in asked.passed_over:
        print(f"mesos-dns: -{flag}: not used, the log goes to standard error", file=sys.stderr)  # noqa: T201  # no log yet
    return run(DAEMON, asked.arguments())


if __name__ == "__main__":
    sys.exit(main())
