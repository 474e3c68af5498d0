"""The protocol between agent and master: ours, versioned, over HTTP with JSON.

The agent POSTs a `Register` to `/agent/v1/stream` of the leader; the answer is a RecordIO stream of `Command`s for as
long as both live, a `Ping` every second at least. The agent POSTs `Report` batches (a `Beat` every second at least)
to `/agent/v1/reports`. A newer stream of the same agent closes the older one. Every command carries the leader's
epoch; an agent refuses one that is older than the highest it has seen. `Run` and `Kill` are idempotent by task id.

Answers: 200 a stream; 307 not the leader (Location as in Mesos: `//host:port/…`); 503 no leader known, or not ready;
400 malformed; 409 the protocol version does not fit (the message says both); 410 this agent was marked gone.
`/agent/v1/reports` answers 202, or 409 when the stream is not the current one: register again.
`/agent/v1/identity` answers 200 with a certificate for one of the agent's tasks, 409 as reports do, 404 when no such
task runs there, 400 or 503 with the authority's word.

TaskInfo, TaskStatus, FrameworkInfo, ExecutorInfo are Mesos' v1 JSON objects, passed through whole.
"""

from collections.abc import Mapping
from typing import Any

import msgspec

VERSION = 1
STREAM_PATH = "/agent/v1/stream"
REPORTS_PATH = "/agent/v1/reports"
IDENTITY_PATH = "/agent/v1/identity"
BEAT_S = 1.0
SUSPECT_S = 4.0
"""Silence after which an agent's endpoints are withdrawn; its tasks' state waits for UNREACHABLE_S."""
RESTART_GRACE_S = 30.0
"""Instead of SUSPECT_S when its stream was closed by a machine that answers, or it said goodbye."""
UNREACHABLE_S = 75.0

Mesos = Mapping[str, Any]


class Message(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", omit_defaults=True):
    """Base of all; unknown keys are ignored, so neighbouring versions work together."""


# --- agent -> master ---------------------------------------------------------------------------------------------


class TaskState(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A task as the agent knows it. `status` is the latest TaskStatus made, `acknowledged` whether that one was.

    Terminal tasks are carried until their last update has been acknowledged.
    """

    framework_id: str
    task: Mesos
    status: Mesos
    acknowledged: bool = False
    executor_id: str = ""


class Register(Message, frozen=True, kw_only=True, tag="REGISTER"):
    """The whole state. `agent_id` is "" the first time. `boot_id` is the machine's, `process_id` this agent run's."""

    version: int = VERSION
    agent_id: str = ""
    boot_id: str
    process_id: str
    hostname: str
    ip: str
    port: int
    resources: tuple[Mesos, ...]
    attributes: tuple[Mesos, ...] = ()
    zone: str = ""
    region: str = ""
    frameworks: tuple[Mesos, ...] = ()
    tasks: tuple[TaskState, ...] = ()
    executors: tuple[Mesos, ...] = ()
    """ExecutorInfo objects with `framework_id`, of executors that run without tasks too."""
    epoch: int = 0
    """Highest epoch seen."""


class Beat(Message, frozen=True, kw_only=True, tag="BEAT"):
    pass


class Goodbye(Message, frozen=True, kw_only=True, tag="GOODBYE"):
    """The agent ends in order; its tasks run on under the keeper, it will be back within RESTART_GRACE_S."""


class Update(Message, frozen=True, kw_only=True, tag="UPDATE"):
    """A TaskStatus with a `uuid`: sent again until acknowledged, the next of the same task only then.

    `latest_state` travels with a queued update, so that the master frees resources early.
    """

    framework_id: str
    status: Mesos
    latest_state: str = ""


class ExecutorMessage(Message, frozen=True, kw_only=True, tag="MESSAGE"):
    """Both ways. `data` is Base64, as in Mesos' JSON."""

    framework_id: str
    executor_id: str
    data: str
    epoch: int = 0


class ExecutorEnded(Message, frozen=True, kw_only=True, tag="EXECUTOR_ENDED"):
    """`status` is the wait status (exit code << 8, or signal)."""

    framework_id: str
    executor_id: str
    status: int


Report = Beat | Goodbye | Update | ExecutorMessage | ExecutorEnded


class Reports(msgspec.Struct, frozen=True, kw_only=True):
    agent_id: str
    stream_id: str
    reports: tuple[Report, ...]


class IdentityRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A signing request (PEM) for a task of that agent; whose service it is, the master knows."""

    agent_id: str
    stream_id: str
    framework_id: str
    task_id: str
    csr: str


# --- master -> agent ---------------------------------------------------------------------------------------------


class Registered(Message, frozen=True, kw_only=True, tag="REGISTERED"):
    """First on every stream. The agent stores `agent_id` before it does anything else."""

    agent_id: str
    stream_id: str
    epoch: int
    master_id: str


class Ping(Message, frozen=True, kw_only=True, tag="PING"):
    epoch: int


class Run(Message, frozen=True, kw_only=True, tag="RUN"):
    """Start a task (with its executor, if `task.executor` is given). A known task id: nothing is done twice."""

    epoch: int
    framework: Mesos
    task: Mesos


class Kill(Message, frozen=True, kw_only=True, tag="KILL"):
    """TERM, then after `grace_s` KILL, to the process group. Unknown task: a TASK_DROPPED update without a change.

    `reason` is a records.Reason; for `unhealthy` nothing waits.
    """

    epoch: int
    framework_id: str
    task_id: str
    grace_s: float = 3.0
    reason: str = "kill"


class Acknowledge(Message, frozen=True, kw_only=True, tag="ACKNOWLEDGE"):
    epoch: int
    framework_id: str
    task_id: str
    uuid: str


class ShutdownExecutor(Message, frozen=True, kw_only=True, tag="SHUTDOWN_EXECUTOR"):
    epoch: int
    framework_id: str
    executor_id: str


class ShutdownFramework(Message, frozen=True, kw_only=True, tag="SHUTDOWN_FRAMEWORK"):
    """End all its tasks and executors; no updates are owed to it any more."""

    epoch: int
    framework_id: str


class Gone(Message, frozen=True, kw_only=True, tag="GONE"):
    """The agent was marked gone: end all tasks, forget the agent id, exit."""

    epoch: int


Command = Registered | Ping | Run | Kill | Acknowledge | ExecutorMessage | ShutdownExecutor | ShutdownFramework | Gone
