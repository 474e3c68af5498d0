"""The life of a command task: events in, the next life and what to do out. Replayed from disk after any kill.

LAUNCHING --Launched--> RUNNING --Exited--> ENDED, and from LAUNCHING straight to ENDED when it could not start.
"""

import enum
import signal
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

DEFAULT_GRACE_S = 3.0


class Phase(enum.StrEnum):
    LAUNCHING = "launching"
    RUNNING = "running"
    ENDED = "ended"


class Killing(msgspec.Struct, frozen=True, kw_only=True):
    """Asked at `asked_s` (wall clock): TERM then, KILL `grace_s` later."""

    asked_s: float
    grace_s: float


class Life(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    phase: Phase = Phase.LAUNCHING
    started_s: float = 0.0
    killing: Killing | None = None
    healthy: bool | None = None
    trouble: str = ""
    """Why it is unhealthy; it comes back in the words of its end."""
    owed: bool = True
    """False: its framework was shut down, nobody waits for updates."""


# --- events ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Launched:
    at_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class CouldNotLaunch:
    message: str
    reason: str = "REASON_CONTAINER_LAUNCH_FAILED"


@dataclass(frozen=True, slots=True, kw_only=True)
class KillAsked:
    at_s: float
    grace_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Exited:
    """`status` is the wait status; `lost` says why there is none."""

    status: int = 0
    lost: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """The health changed. `fatal`: it is to be killed for it, `at_s`, with `grace_s`."""

    healthy: bool
    message: str = ""
    at_s: float = 0.0
    grace_s: float = DEFAULT_GRACE_S


@dataclass(frozen=True, slots=True, kw_only=True)
class Abandoned:
    """Its framework was shut down."""

    at_s: float
    grace_s: float = DEFAULT_GRACE_S


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineRestarted:
    """Nothing of before runs any more."""

    state: str


Event = Launched | CouldNotLaunch | KillAsked | Exited | Checked | Abandoned | MachineRestarted


# --- what to do --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """A status update to make."""

    state: str
    message: str = ""
    reason: str = ""
    healthy: bool | None = None
    source: str = "SOURCE_EXECUTOR"


@dataclass(frozen=True, slots=True)
class CancelLaunch:
    pass


@dataclass(frozen=True, slots=True, kw_only=True)
class EndProcess:
    grace_s: float


@dataclass(frozen=True, slots=True)
class StartChecks:
    pass


@dataclass(frozen=True, slots=True)
class StopChecks:
    pass


Action = Report | CancelLaunch | EndProcess | StartChecks | StopChecks
Step = tuple[Life, Sequence[Action]]


def step(life: Life, event: Event) -> Step:
    """Every event in every phase has an answer; after ENDED nothing happens any more."""
    if life.phase == Phase.ENDED:
        return life, ()
    match event:
        case Launched():
            return _launched(life, event)
        case CouldNotLaunch():
            return _ended(life, _not_launched(life, event))
        case KillAsked():
            return _kill(life, Killing(asked_s=event.at_s, grace_s=event.grace_s))
        case Exited():
            return _ended(life, _exit_report(life, event))
        case Checked():
            return _checked(life, event)
        case Abandoned():
            gone = msgspec.structs.replace(life, owed=False)
            return _kill(gone, Killing(asked_s=event.at_s, grace_s=event.grace_s))
        case MachineRestarted():
            message = "the machine restarted"
            return _ended(
                life, Report(state=event.state, message=message, reason="REASON_AGENT_RESTARTED", source=AGENT)
            )


AGENT = "SOURCE_AGENT"


def resume(life: Life, *, now_s: float) -> Sequence[Action]:
    """What to do for a task that runs when the agent comes back: what it had begun is done again."""
    if life.phase != Phase.RUNNING:
        return ()
    if life.killing is None:
        return (StartChecks(),)
    spent_s = max(0.0, now_s - life.killing.asked_s)
    return (EndProcess(grace_s=max(0.0, life.killing.grace_s - spent_s)),)


def _launched(life: Life, event: Launched) -> Step:
    if life.phase == Phase.RUNNING:
        return life, ()
    after = msgspec.structs.replace(life, phase=Phase.RUNNING, started_s=event.at_s)
    if life.killing is not None:
        return after, (EndProcess(grace_s=life.killing.grace_s),)
    return after, (Report(state="TASK_RUNNING"), StartChecks())


def _not_launched(life: Life, event: CouldNotLaunch) -> Report:
    if life.killing is not None:
        return Report(
            state="TASK_KILLED",
            message="killed before it started",
            reason="REASON_TASK_KILLED_DURING_LAUNCH",
            source=AGENT,
        )
    return Report(state="TASK_FAILED", message=event.message, reason=event.reason, source=AGENT)


def _kill(life: Life, killing: Killing) -> Step:
    """A second kill may only bring the end forward."""
    if life.killing is not None and _end_s(life.killing) <= _end_s(killing):
        return life, ()
    after = msgspec.structs.replace(life, killing=killing)
    if life.phase == Phase.LAUNCHING:
        return after, (CancelLaunch(),)
    return after, (StopChecks(), EndProcess(grace_s=killing.grace_s))


def _end_s(killing: Killing) -> float:
    return killing.asked_s + killing.grace_s


def _checked(life: Life, event: Checked) -> Step:
    if life.phase != Phase.RUNNING or life.killing is not None or life.healthy == event.healthy:
        return life, ()
    report = Report(
        state="TASK_RUNNING",
        message=event.message,
        reason="REASON_TASK_HEALTH_CHECK_STATUS_UPDATED",
        healthy=event.healthy,
    )
    after = msgspec.structs.replace(life, healthy=event.healthy, trouble=event.message)
    if event.healthy:
        return after, (report,)
    dying, actions = _kill(after, Killing(asked_s=event.at_s, grace_s=event.grace_s))
    return dying, (report, *actions)


def _ended(life: Life, report: Report) -> Step:
    return msgspec.structs.replace(life, phase=Phase.ENDED), (StopChecks(), report)


def _exit_report(life: Life, event: Exited) -> Report:
    if event.lost and life.killing is None:
        message = f"{event.lost}; its tasks were ended"
        return Report(state="TASK_FAILED", message=message, reason="REASON_EXECUTOR_TERMINATED", source=AGENT)
    words = event.lost or exit_words(event.status)
    if life.killing is not None:
        message = f"{life.trouble}; {words}" if life.trouble else words
        return Report(state="TASK_KILLED", message=message, healthy=False if life.healthy is False else None)
    if event.status == 0:
        return Report(state="TASK_FINISHED", message=words)
    return Report(state="TASK_FAILED", message=words, reason="REASON_COMMAND_EXECUTOR_FAILED")


def exit_words(status: int) -> str:
    """A wait status in Mesos' words: `Command exited with status 3`, `Command terminated with signal Killed`."""
    number = status & 0x7F
    if number:
        return f"Command terminated with signal {signal.strsignal(number) or number}"
    return f"Command exited with status {status >> 8}"
