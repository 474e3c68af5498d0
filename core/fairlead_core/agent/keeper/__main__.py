"""Leaves its starter first of all, so that the starter's death is none of ours."""

import fcntl
import os
import sys
from pathlib import Path

HELD_BY_ANOTHER = 4


def leave() -> None:
    """A session of our own, no parent but init (or the nearest subreaper)."""
    if os.fork():
        os._exit(0)
    os.setsid()
    os.chdir("/")


def main() -> int:
    folder, instance = Path(sys.argv[1]).absolute(), sys.argv[2]
    leave()
    from fairlead_core.agent.keeper.loop import Keeper, say  # noqa: PLC0415  # the starter waits for none of this
    from fairlead_core.agent.keeper.records import Folder  # noqa: PLC0415  # see above
    from fairlead_core.agent.keeper.spawning import become_subreaper  # noqa: PLC0415  # see above

    Folder(folder).prepare()
    with (folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("another keeper is there")
            return HELD_BY_ANOTHER
        become_subreaper()
        keeper = Keeper(folder, instance)
        keeper.watch_signals()
        keeper.recover()
        keeper.listen()
        say(f"keeps {folder} as {os.getpid()}")
        keeper.run()
        say("stopped")
    return 0


if __name__ == "__main__":
    sys.exit(main())
