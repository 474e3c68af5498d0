"""When a service's circuit breaker opens, lets a few pass, and closes: from counts and a clock alone."""

from hypothesis import given
from hypothesis import strategies as st

from fairlead_discovery.records import Traffic
from fairlead_lb.decisions import breaking, traffic
from fairlead_lb.decisions.breaking import CLOSED, Breaker, Moment
from fairlead_lb.decisions.values import Key

RULE = Traffic(break_at_percent=50, break_s=5, break_least=10)


def after(*looks: tuple[int, int], rule: Traffic = RULE, last: Breaker = CLOSED, begin_s: int = 100) -> Breaker:
    """One look a second: good answers, errors."""
    for second, (good, errors) in enumerate(looks):
        last = breaking.after(last, rule, good, errors, Moment(begin_s + second, 1_700_000_000 + begin_s + second))
    return last


def test_it_opens_when_enough_answers_are_errors():
    """Of the last ten seconds together; fewer answers than `break_least` say nothing."""
    assert "closed" == after((5, 4), (5, 5)).state
    assert "closed" == after((0, 9)).state
    assert "open" == after((5, 4), (0, 2)).state
    assert "open" == after(*[(0, 1)] * 10).state
    assert "closed" == after((0, 9), *[(0, 0)] * 10, (0, 1)).state


def test_it_opens_never_without_an_error():
    """Whatever the share that is asked for."""
    assert "closed" == after((100, 0), rule=Traffic(break_at_percent=0.01, break_least=1)).state


def test_it_stays_open_for_its_time_and_says_until_when():
    """What comes meanwhile was under way when it opened."""
    opened = after((0, 10))

    assert {Key("s", 0): 1_700_000_105} == breaking.tripped({Key("s", 0): opened, Key("t", 0): CLOSED})
    assert opened == after(*[(0, 3)] * 4, last=opened, begin_s=101)
    assert "half-open" == after((0, 3), last=opened, begin_s=105).state


def half() -> Breaker:
    return after((0, 0), last=after((0, 10)), begin_s=105)


def test_half_open_one_error_opens_it_again_and_good_answers_close_it():
    """They may come one by one, however slowly."""
    assert "open" == after((2, 1), last=half(), begin_s=106).state
    assert "half-open" == after((1, 0), (1, 0), *[(0, 0)] * 30, last=half(), begin_s=106).state
    assert CLOSED == after((1, 0), (1, 0), *[(0, 0)] * 30, (1, 0), last=half(), begin_s=106)


def test_half_open_without_any_answers_it_is_closed_after_a_minute():
    """As HAProxy forgets it; an answer begins the minute anew."""
    assert "half-open" == after(*[(0, 0)] * 60, last=half(), begin_s=106).state
    assert CLOSED == after(*[(0, 0)] * 61, last=half(), begin_s=106)
    assert "half-open" == after(*[(0, 0)] * 50, (1, 0), *[(0, 0)] * 50, last=half(), begin_s=106).state


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), max_size=40))
def test_what_haproxy_is_told_is_open_only_while_it_is(looks: list[tuple[int, int]]):
    """The time in the map is over when it is half-open, and there is none when it is closed."""
    now = CLOSED
    for second, (good, errors) in enumerate(looks):
        at = Moment(float(second), 1_000.0 + second)
        now = breaking.after(now, Traffic(break_at_percent=50, break_s=2, break_least=4), good, errors, at)

        assert (now.until_unix_s > at.unix_s) == (now.state == "open")
        assert (now.until_unix_s == 0) == (now.state == "closed")


def test_numbers_of_a_breaker_are_no_other_shape():
    """But having one is."""
    other = Traffic(break_at_percent=10, break_s=60, break_least=5, max_connections=7, max_pending=3)

    assert traffic.cast(Traffic(break_at_percent=50, max_connections=1, max_pending=9)) == traffic.cast(other)
    assert traffic.cast(RULE) != traffic.cast(Traffic())
