"""The `bamboo` command: what an old unit file starts is this balancer, on the file that it names."""

import os
import sys
from collections.abc import Sequence

from fairlead_daemon.decisions.go_flags import UsageError
from fairlead_daemon.main import main as run
from fairlead_lb.daemon import DAEMON
from fairlead_lb.decisions.bamboo_flags import USAGE, read


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit code, as `fairlead lb`: 2 for a wrong command line or file."""
    try:
        asked = read(sys.argv[1:] if argv is None else argv)
        if asked.log:
            _log_to(asked.log)
    except (UsageError, OSError) as error:
        print(f"bamboo: {error}\n{USAGE}", file=sys.stderr)  # noqa: T201  # its output
        return 2
    return run(DAEMON, asked.arguments())


def _log_to(path: str) -> None:
    """Appended to; a file that was moved away is written on, so rotate it by copying."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o640)
    for stream in (1, 2):
        os.dup2(handle, stream)
    os.close(handle)


if __name__ == "__main__":
    sys.exit(main())
