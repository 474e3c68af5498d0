"""The life of a task as a table and as properties."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead_core.agent.decisions.life import (
    Abandoned,
    CancelLaunch,
    Checked,
    CouldNotLaunch,
    EndProcess,
    Event,
    Exited,
    KillAsked,
    Killing,
    Launched,
    Life,
    MachineRestarted,
    Phase,
    Report,
    StartChecks,
    exit_words,
    resume,
    step,
)
from fairlead_core.agent.decisions.updates import TERMINAL

RUNNING = Life(phase=Phase.RUNNING, started_s=10.0)
KILLED = msgspec.structs.replace(RUNNING, killing=Killing(asked_s=20.0, grace_s=3.0))


def reports(life: Life, *events: Event) -> list[str]:
    out = []
    for event in events:
        life, actions = step(life, event)
        out += [a.state for a in actions if isinstance(a, Report)]
    return out


def test_started_it_runs_and_is_checked():
    """RUNNING is reported without a health: nobody knows it yet."""
    after, actions = step(Life(), Launched(at_s=10.0))

    assert RUNNING == after
    assert (Report(state="TASK_RUNNING"), StartChecks()) == actions


@pytest.mark.parametrize(
    ("life", "event", "state", "message"),
    [
        (RUNNING, Exited(status=0), "TASK_FINISHED", "Command exited with status 0"),
        (RUNNING, Exited(status=3 << 8), "TASK_FAILED", "Command exited with status 3"),
        (RUNNING, Exited(status=9), "TASK_FAILED", "Command terminated with signal Killed"),
        (RUNNING, Exited(lost="the keeper died"), "TASK_FAILED", "the keeper died; its tasks were ended"),
        (KILLED, Exited(status=15), "TASK_KILLED", "Command terminated with signal Terminated"),
        (KILLED, Exited(status=0), "TASK_KILLED", "Command exited with status 0"),
        (KILLED, Exited(lost="the keeper died"), "TASK_KILLED", "the keeper died"),
        (Life(), CouldNotLaunch(message="no such user"), "TASK_FAILED", "no such user"),
        (RUNNING, MachineRestarted(state="TASK_LOST"), "TASK_LOST", "the machine restarted"),
    ],
)
def test_the_end_is_told_in_words(life: Life, event: Event, state: str, message: str):
    """State and message say what happened, and whether it was wanted."""
    after, actions = step(life, event)
    report = next(a for a in actions if isinstance(a, Report))

    assert (Phase.ENDED, state, message) == (after.phase, report.state, report.message)


def test_killed_before_it_started_it_never_runs():
    """The launch is cancelled; what comes of it is TASK_KILLED."""
    dying, actions = step(Life(), KillAsked(at_s=1.0, grace_s=3.0))
    _, last = step(dying, CouldNotLaunch(message="killed"))

    assert (CancelLaunch(),) == actions
    assert ["TASK_KILLED"] == [a.state for a in last if isinstance(a, Report)]


def test_killed_while_the_keeper_starts_it_is_ended_without_running():
    """Too late to cancel: the process gets its TERM, and RUNNING is never told."""
    dying, _ = step(Life(), KillAsked(at_s=1.0, grace_s=3.0))
    _, actions = step(dying, Launched(at_s=1.1))

    assert (EndProcess(grace_s=3.0),) == actions


def test_a_second_kill_may_only_bring_the_end_forward():
    """Later or the same: nothing. Sooner: the process is told."""
    assert (KILLED, ()) == step(KILLED, KillAsked(at_s=21.0, grace_s=3.0))
    assert EndProcess(grace_s=0.5) in step(KILLED, KillAsked(at_s=21.0, grace_s=0.5))[1]


def test_unhealthy_it_is_told_then_killed_and_its_end_says_why():
    """RUNNING with healthy=false, then TASK_KILLED with healthy=false and the trouble."""
    well, _ = step(RUNNING, Checked(healthy=True))
    ill, first = step(well, Checked(healthy=False, message="answered 500", at_s=30.0, grace_s=2.0))
    _, last = step(ill, Exited(status=15))

    assert [("TASK_RUNNING", False)] == [(a.state, a.healthy) for a in first if isinstance(a, Report)]
    assert EndProcess(grace_s=2.0) in first
    assert [("TASK_KILLED", False, "answered 500; Command terminated with signal Terminated")] == [
        (a.state, a.healthy, a.message) for a in last if isinstance(a, Report)
    ]


def test_health_is_told_when_it_changes_only():
    """Healthy twice is one update; health of a task being killed is none."""
    assert ["TASK_RUNNING"] == reports(RUNNING, Checked(healthy=True), Checked(healthy=True))
    assert [] == reports(KILLED, Checked(healthy=True))


def test_an_abandoned_task_owes_nothing_and_ends():
    """Its framework was shut down."""
    after, actions = step(RUNNING, Abandoned(at_s=20.0))

    assert not after.owed
    assert EndProcess(grace_s=3.0) in actions


def test_a_kill_is_taken_up_where_it_was():
    """After a restart of the agent the rest of the grace is left, never less than nothing."""
    assert (EndProcess(grace_s=2.0),) == resume(KILLED, now_s=21.0)
    assert (EndProcess(grace_s=0.0),) == resume(KILLED, now_s=99.0)
    assert (StartChecks(),) == resume(RUNNING, now_s=99.0)
    assert () == resume(Life(), now_s=99.0)


def test_wait_statuses_in_mesos_words():
    """Exit status, signal, and a signal with a core dump."""
    assert "Command exited with status 127" == exit_words(127 << 8)
    assert "Command terminated with signal Segmentation fault" == exit_words(11 | 0x80)


EVENTS = st.sampled_from(
    [
        Launched(at_s=1.0),
        CouldNotLaunch(message="x"),
        KillAsked(at_s=2.0, grace_s=1.0),
        KillAsked(at_s=2.0, grace_s=0.0),
        Exited(status=0),
        Exited(status=9),
        Exited(lost="x"),
        Checked(healthy=True),
        Checked(healthy=False, message="x"),
        Abandoned(at_s=3.0),
        MachineRestarted(state="TASK_LOST"),
    ]
)


@given(st.lists(EVENTS, max_size=8))
def test_whatever_happens_one_end_is_told_and_nothing_after_it(events: list[Event]):
    """At most one terminal report, as the last; it is there exactly when the task has ended."""
    life, told = Life(), []
    for event in events:
        life, actions = step(life, event)
        told += [a.state for a in actions if isinstance(a, Report)]
    ends = [state for state in told if state in TERMINAL]

    assert len(ends) == (life.phase == Phase.ENDED)
    assert not ends or told[-1] == ends[0]
    assert all(state == "TASK_RUNNING" for state in told[: len(told) - len(ends)])


@given(st.lists(EVENTS, max_size=6), EVENTS)
def test_an_event_twice_does_nothing_twice(events: list[Event], event: Event):
    """Adoption and announcements repeat: the second time reports nothing."""
    life = Life()
    for each in events:
        life, _ = step(life, each)
    once, _ = step(life, event)
    _, again = step(once, event)

    assert [] == [a for a in again if isinstance(a, Report)]
