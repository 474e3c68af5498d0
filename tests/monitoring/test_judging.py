"""States of an alert: by table, and what must hold whatever happens."""

from itertools import pairwise

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead_monitoring.decisions.alerts import Alert, Scene, advance, fact_of, merge, new_alert, taken, tell
from fairlead_monitoring.decisions.evaluation import Verdict
from fairlead_monitoring.decisions.expression import parse
from fairlead_monitoring.decisions.judging import FORGET_S, Fact, History, Standing, State, judge
from fairlead_monitoring.decisions.rules import Rule
from fairlead_monitoring.decisions.silences import Silence, silenced

B, W, M, N = Fact.BAD, Fact.WELL, Fact.BETWEEN, Fact.NONE
RULE = Rule(name="r", when=parse("a > 1"), for_s=10, hold_s=0, no_data_s=20, summary="{service} has {value}")
AT_ONCE = Rule(name="r", when=parse("a > 1"), no_data_s=20)
HELD = Rule(name="r", when=parse("a > 1"), hold_s=10, no_data_s=20)


def run(rule: Rule, *looks: tuple[float, Fact]) -> State:
    """The state after looks at (seconds, fact)."""
    standing: Standing | None = None
    for at_s, seen in looks:
        standing = judge(rule, History(before=standing, seen=seen), now_s=at_s)
    assert standing is not None
    return standing.state


@pytest.mark.parametrize(
    ("rule", "looks", "state"),
    [
        (AT_ONCE, [(0, B)], State.FIRING),
        (AT_ONCE, [(0, W)], State.OK),
        (AT_ONCE, [(0, N)], State.OK),
        (RULE, [(0, B)], State.PENDING),
        (RULE, [(0, B), (9, B)], State.PENDING),
        (RULE, [(0, B), (10, B)], State.FIRING),
        (RULE, [(0, B), (5, W), (10, B)], State.PENDING),
        (RULE, [(0, B), (5, M), (10, B)], State.PENDING),
        (RULE, [(0, B), (9, N)], State.PENDING),
        (RULE, [(0, B), (30, N), (31, B)], State.PENDING),  # silence is not counted for it
        (RULE, [(0, B), (5, B), (30, N), (31, B), (36, B)], State.FIRING),
        (AT_ONCE, [(0, B), (5, W)], State.RESOLVED),
        (AT_ONCE, [(0, B), (5, M)], State.FIRING),  # hysteresis: not well before `until` says so
        (AT_ONCE, [(0, B), (19, N)], State.FIRING),
        (AT_ONCE, [(0, B), (20, N)], State.NO_DATA),
        (AT_ONCE, [(0, B), (20, N), (21, W)], State.RESOLVED),
        (AT_ONCE, [(0, B), (20, N), (21, B)], State.FIRING),
        (AT_ONCE, [(0, B), (20, N), (21, M)], State.FIRING),
        (AT_ONCE, [(0, B), (20, N), (FORGET_S + 20, N)], State.GONE),
        (AT_ONCE, [(0, B), (20, N), (FORGET_S + 20, N), (FORGET_S + 21, B)], State.FIRING),
        (HELD, [(0, B), (5, W)], State.FIRING),
        (HELD, [(0, B), (5, W), (15, W)], State.RESOLVED),
        (HELD, [(0, B), (5, W), (10, B), (15, W)], State.FIRING),
        (HELD, [(0, B), (5, W), (10, N), (15, W)], State.FIRING),  # what was not seen was not well
        (HELD, [(0, B), (20, N), (21, W)], State.NO_DATA),
        (HELD, [(0, B), (20, N), (21, W), (31, W)], State.RESOLVED),
        (AT_ONCE, [(0, B), (5, W), (6, B)], State.FIRING),
        (AT_ONCE, [(0, B), (5, W), (500, N)], State.RESOLVED),
        (RULE, [(0, B), (FORGET_S, N)], State.OK),
    ],
)
def test_states_by_table(rule: Rule, looks: list, state: State):
    """The automaton, step by step."""
    assert state == run(rule, *looks)


LOOKS = st.lists(
    st.tuples(st.sampled_from([0.0, 1.0, 10.0, 20.0, FORGET_S]), st.sampled_from([B, W, M, N])), max_size=30
)
RULES = st.sampled_from([RULE, AT_ONCE, HELD, Rule(name="r", when=parse("a > 1"), for_s=10, hold_s=10, no_data_s=0)])


@given(RULES, LOOKS)
def test_no_data_is_never_resolved(rule: Rule, looks: list):
    """Whatever happens, resolved is entered at a look that says well; firing at one that says bad."""
    standing, at_s = None, 0.0
    for gap_s, seen in looks:
        at_s += gap_s
        before = standing.state if standing else State.OK
        standing = judge(rule, History(before=standing, seen=seen), now_s=at_s)
        if standing.state is State.RESOLVED and before is not State.RESOLVED:
            assert W == seen
        if standing.state is State.FIRING and before in {State.OK, State.PENDING, State.RESOLVED, State.GONE}:
            assert B == seen
        if standing.state is State.NO_DATA and before is not State.NO_DATA:
            assert (N, State.FIRING) == (seen, before)


@given(RULES, LOOKS)
def test_judging_twice_changes_nothing(rule: Rule, looks: list):
    """News that comes twice at the same moment is one piece of news."""
    once, twice, at_s = None, None, 0.0
    for gap_s, seen in looks:
        at_s += gap_s
        once = judge(rule, History(before=once, seen=seen), now_s=at_s)
        twice = judge(rule, History(before=twice, seen=seen), now_s=at_s)
        twice = judge(rule, History(before=twice, seen=seen), now_s=at_s)
        assert once == twice


def scene(at_s: float, *, quiet: bool = False) -> Scene:
    return Scene(now_s=at_s, receivers=("http://hook",), silenced=lambda _alert: quiet)


@given(
    RULES, st.lists(st.tuples(st.sampled_from([0.5, 10.0, 20.0, FORGET_S]), st.sampled_from([B, W, N]), st.booleans()))
)
def test_every_change_is_told_once(rule: Rule, looks: list):
    """Changes alternate, begin with firing, have ids of their own, and the last one is where the alert stands."""
    alert, at_s = new_alert(rule, (("service", "a"),), now_s=0), 0.0
    for gap_s, seen, quiet in looks:
        at_s += gap_s
        alert = advance(alert, rule, seen, 1.0, scene(at_s, quiet=quiet))
    alert = tell(alert, scene(at_s + 1))
    told = [c.state for c in alert.waiting]

    assert len({c.id for c in alert.waiting}) == len(told)
    assert all(one != other for one, other in pairwise(told))
    assert not told or told[0] in {State.FIRING, State.NO_DATA}
    assert all(
        one is State.FIRING or one is State.NO_DATA
        for one, other in pairwise(told)
        if other in {State.RESOLVED, State.GONE}
    )
    if alert.state in {State.FIRING, State.NO_DATA}:
        assert told[-1] == alert.state
    if alert.state in {State.OK, State.RESOLVED}:
        assert not told or told[-1] in {State.RESOLVED, State.GONE}


def fired(at_s: float = 100.0) -> Alert:
    return advance(new_alert(AT_ONCE, (("service", "a"),), now_s=at_s), AT_ONCE, B, 3.0, scene(at_s))


def test_the_summary_names_the_labels():
    """`{service}` and `{value}` are filled in; what is no label stays."""
    rule = Rule(name="r", when=parse("a > 1"), summary="{service} has {value}, {what}")

    assert "a has 3, {what}" == advance(new_alert(rule, (("service", "a"),), now_s=0), rule, B, 3.0, scene(0)).summary


def test_a_silence_that_ends_tells_what_still_fires():
    """During it nothing is told; afterwards the alert is told once, and its end as ever."""
    alert = advance(new_alert(AT_ONCE, (), now_s=0), AT_ONCE, B, 1.0, scene(0, quiet=True))
    assert () == alert.waiting

    alert = advance(alert, AT_ONCE, B, 1.0, scene(10))
    assert [State.FIRING] == [c.state for c in alert.waiting]


def test_what_began_before_a_silence_and_ended_within_is_resolved_after_it():
    """Nobody is left with an open incident."""
    alert = advance(fired(), AT_ONCE, W, 0.0, scene(101, quiet=True))
    alert = advance(alert, AT_ONCE, W, 0.0, scene(102))

    assert [State.FIRING, State.RESOLVED] == [c.state for c in alert.waiting]


@pytest.mark.parametrize(
    ("silence", "covers"),
    [
        (Silence(id="s", until_s=200, rule="r"), True),
        (Silence(id="s", until_s=200, rule="other"), False),
        (Silence(id="s", until_s=200, labels={"service": "a"}), True),
        (Silence(id="s", until_s=200, labels={"service": "b"}), False),
        (Silence(id="s", until_s=100), False),
    ],
)
def test_a_silence_covers_its_rule_and_labels_until_its_end(silence: Silence, covers: bool):
    """All that it names must agree."""
    assert covers is silenced(fired(), [silence], now_s=100)


def test_what_was_taken_is_told_no_more():
    """The change leaves with its last receiver."""
    alert = fired()

    assert () == taken(alert, alert.waiting[0].id, "http://hook").waiting
    assert alert == taken(alert, "another", "http://hook")


def test_two_places_make_one_alert():
    """The later sequence wins; of the same change only what neither place knows as delivered is left."""
    first = fired()
    second = advance(first, AT_ONCE, W, 0.0, scene(200))
    delivered = taken(first, first.waiting[0].id, "http://hook")

    assert second == merge(first, second) == merge(second, None)
    assert () == merge(first, delivered).waiting == merge(delivered, first).waiting


def test_an_alert_survives_being_written_down():
    """JSON and back is the same value."""
    alert = fired()

    assert alert == msgspec.json.decode(msgspec.json.encode(alert), type=Alert)


@pytest.mark.parametrize(
    ("when", "until", "with_until", "fact"),
    [
        (None, None, False, N),
        (Verdict(1, True), None, False, B),
        (Verdict(1, False), None, False, W),
        (Verdict(1, False), None, True, M),
        (Verdict(1, False), Verdict(1, False), True, M),
        (Verdict(1, False), Verdict(1, True), True, W),
        (Verdict(1, True), Verdict(1, True), True, B),
    ],
)
def test_a_look_is_a_fact(when: Verdict | None, until: Verdict | None, with_until: bool, fact: Fact):
    """With `until` there is a between; without data there is nothing."""
    assert fact is fact_of(when, until, with_until=with_until)
