"""What agent and keeper say to each other over the unix socket: one JSON object a line.

Each request has an `id` and gets one `Answer` with it. `Ended` comes unasked to every connection, once the exit
status is on disk. All requests are idempotent by `key`: asked twice, nothing is done twice.
"""

from collections.abc import Mapping

import msgspec

TASK_VARIABLE = "FAIRLEAD_TASK_KEY"
LINE_LIMIT_BYTES = 4 * 1024 * 1024
AS_KEEPER = -1
"""`uid`: do not switch users."""


class Launch(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One process to start. `key` names it for good; `env` is its whole environment."""

    key: str
    argv: tuple[str, ...]
    env: Mapping[str, str]
    folder: str
    """Working directory; must be reachable by the user."""
    stdout: str
    stderr: str
    uid: int = AS_KEEPER
    gid: int = AS_KEEPER
    resolv_conf: str = ""
    """A file to mount over /etc/resolv.conf, for this process and its children alone; "" leaves it alone."""


class Held(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A task as the keeper's disk knows it. `ended_s` 0: it runs. `status` is the wait status of an ended one."""

    key: str
    pid: int
    start_ticks: int
    boot_id: str
    started_s: float
    ended_s: float = 0.0
    status: int = 0
    lost: str = ""
    """Why there is no exit status: nobody was there to wait for it."""


class Request(msgspec.Struct, frozen=True, kw_only=True, tag_field="do"):
    id: int


class Spawn(Request, frozen=True, kw_only=True, tag="spawn"):
    """Answered when the program runs (`held` has it), or with the error that kept it from running."""

    launch: Launch


class End(Request, frozen=True, kw_only=True, tag="end"):
    """TERM to the process group now, KILL after `grace_s`. A second one may bring the KILL forward, not put it off."""

    key: str
    grace_s: float


class List(Request, frozen=True, kw_only=True, tag="list"):
    pass


class Forget(Request, frozen=True, kw_only=True, tag="forget"):
    """Drops the record of an ended task; one that runs is refused."""

    key: str


AnyRequest = Spawn | End | List | Forget


class Answer(msgspec.Struct, frozen=True, kw_only=True, tag_field="is", tag="answer", omit_defaults=True):
    id: int
    error: str = ""
    again: bool = False
    """With an error: ask again in a moment, the task itself is not at fault."""
    held: tuple[Held, ...] = ()


class Ended(msgspec.Struct, frozen=True, kw_only=True, tag_field="is", tag="ended"):
    held: Held


AnyReply = Answer | Ended
