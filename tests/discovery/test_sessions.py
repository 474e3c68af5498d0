"""The table of what is done when the line to ZooKeeper or a session there changes."""

import enum
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead_discovery.decisions.sessions import TABLE, Action, Event, State, arrival, forgets_seen, turn


def played(events: Sequence[Event]) -> tuple[State, list[Action]]:
    state, done = State.FAR, []
    for event in events:
        step = turn(state, event)
        state = step.state
        done += step.actions
    return state, done


def test_every_state_knows_every_event():
    """No case is left to chance."""
    assert {state: set(Event) for state in State} == {state: set(row) for state, row in TABLE.items()}


@pytest.mark.parametrize(
    ("events", "state", "actions"),
    [
        ("opened checked", "live", "check show"),
        ("opened checked suspended", "suspended", "check show hide"),
        ("opened checked suspended resumed checked", "live", "check show hide check show"),
        ("opened checked suspended expired opened checked", "live", "check show hide forget check show"),
        ("opened checked suspended opened checked", "live", "check show hide forget check show"),
        ("opened checked expired", "far", "check show hide forget"),
        ("opened checked barred checked", "live", "check show hide check show"),
        ("opened suspended checked", "suspended", "check halt"),
        ("opened suspended resumed", "checking", "check halt check"),
        ("opened expired opened", "checking", "check halt forget check"),
        ("opened checked refused", "far", "check show hide forget again"),
        ("refused refused", "far", "again again"),
        ("opened checked ended opened checked", "live", "check show hide forget again check show"),
        ("opened checked closed suspended expired opened", "closed", "check show hide"),
    ],
)
def test_what_is_done(events: str, state: str, actions: str):
    """Told in the words of the table."""
    end, done = played([Event[word.upper()] for word in events.split()])

    assert (state, actions) == (end.name.lower(), " ".join(action.name.lower() for action in done))


OVER = {Event.EXPIRED, Event.REFUSED, Event.ENDED}
EVENTS = st.lists(st.sampled_from(Event), max_size=12)


@given(EVENTS)
def test_shown_is_only_what_was_read_on_this_very_line(events: list[Event]):
    """Between the last change of the line and SHOW the cluster's record was read."""
    state, fresh = State.FAR, False
    for event in events:
        step = turn(state, event)
        if Action.SHOW in step.actions:
            assert event is Event.CHECKED
            assert fresh
        fresh = (fresh or Action.CHECK in step.actions) and event not in OVER | {Event.SUSPENDED}
        state = step.state


@given(EVENTS)
def test_nothing_is_claimed_while_out_of_sight(events: list[Event]):
    """SHOW and HIDE take turns, and in sight is the state LIVE alone."""
    state, shown = State.FAR, False
    for event in events:
        step = turn(state, event)
        for action in step.actions:
            assert action is not Action.SHOW or not shown
            assert action is not Action.HIDE or shown
            shown = {Action.SHOW: True, Action.HIDE: False}.get(action, shown)
        state = step.state
        assert (state is State.LIVE) == shown


@given(EVENTS)
def test_a_session_is_forgotten_once(events: list[Event]):
    """Whatever was held in one that is over is made again, and no session that may live is given up."""
    state, alive = State.FAR, False
    for event in events:
        step = turn(state, event)
        over = event in OVER | {Event.OPENED} and state is not State.CLOSED
        assert (alive and over) == (Action.FORGET in step.actions)
        if over:
            alive = event is Event.OPENED
        elif event is Event.RESUMED and state in {State.FAR, State.SUSPENDED, State.CHECKING, State.LIVE}:
            alive = True
        state = step.state
        alive = alive and state is not State.CLOSED


@given(EVENTS)
def test_reading_the_record_ends_with_the_line(events: list[Event]):
    """One reader of it at a time, and none where there is no line."""
    state, reading = State.FAR, False
    for event in events:
        step = turn(state, event)
        for action in step.actions:
            assert action is not Action.HALT or reading
            assert action is not Action.CHECK or not reading
            reading = {Action.CHECK: True, Action.HALT: False}.get(action, reading)
        reading = reading and event is not Event.CHECKED
        state = step.state
        assert reading == (state is State.CHECKING)


def test_actions_stand_in_the_order_in_which_they_are_done():
    """First nothing is claimed any more, then the old is forgotten, then the new begins."""
    order: Sequence[enum.Enum] = list(Action)
    for row in TABLE.values():
        for step in row.values():
            assert sorted(step.actions, key=order.index) == list(step.actions)


def test_a_line_resumes_a_session_or_opens_one():
    """By its id; without one that may live it is a new one."""
    assert Event.RESUMED is arrival("a1", "a1")
    assert [Event.OPENED] * 2 == [arrival("a1", "b2"), arrival("", "b2")]


def test_what_was_seen_is_kept_from_servers_only_when_none_can_lag_so_far():
    """While the line is up, and for some time afterwards, a server that is behind us must refuse us."""
    assert [False, False, True, True] == [forgets_seen(away_s) for away_s in (0.0, 10.0, 20.0, 3600.0)]
