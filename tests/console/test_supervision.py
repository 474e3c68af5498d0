"""What `up` does about processes, as decisions: replace, end, start afresh, wait."""

from hypothesis import given
from hypothesis import strategies as st

from fairlead_console.decisions.supervision import CALM_S, RESTARTS, Deaths, Takeover, takeover

NAMES = ("registry", "master", "agent-1", "agent-2", "lb")


def test_on_an_empty_machine_everything_is_started():
    """Nothing is replaced, nothing is ended."""
    assert Takeover(fresh=NAMES) == takeover(NAMES, [])


def test_after_a_killed_up_every_daemon_is_replaced_in_order():
    """One at a time, those first that others need."""
    assert Takeover(replace=NAMES) == takeover(NAMES, reversed(NAMES))


def test_an_agent_that_is_wanted_no_more_is_ended():
    """`up --agents 1` after two."""
    assert ("agent-2",) == takeover(NAMES[:3], ["agent-1", "agent-2"]).end


@given(st.sets(st.sampled_from(NAMES)), st.sets(st.sampled_from(NAMES)))
def test_every_daemon_gets_exactly_one_treatment(wanted: set[str], alive: set[str]):
    """What is wanted is replaced or started, what is not is ended, and nothing else is touched."""
    done = takeover(sorted(wanted), alive)

    assert sorted(wanted | alive) == sorted([*done.replace, *done.end, *done.fresh])
    assert wanted == {*done.replace, *done.fresh}


def waits(*, ran_s: float, times: int, code: int = 1) -> list[float]:
    deaths, out = Deaths(), []
    for _ in range(times):
        deaths = deaths.after(ran_s=ran_s)
        out.append(deaths.wait_s(code=code, chance=1.0))
    return out


def test_the_first_restart_is_at_once_and_later_ones_wait_longer():
    """Up to the longest wait, so that a broken daemon costs next to nothing."""
    found = waits(ran_s=1, times=12)

    assert 0.0 == found[0]
    assert [0.5, 1.0, 2.0, 4.0] == found[1:5]
    assert RESTARTS.most_s == found[-1]


def test_a_daemon_that_ran_calmly_is_restarted_at_once_each_time():
    """A death a day is no reason to wait."""
    assert [0.0] * 5 == waits(ran_s=CALM_S, times=5)


def test_bad_settings_are_not_tried_again_at_once():
    """They do not mend themselves."""
    assert [RESTARTS.most_s] * 3 == waits(ran_s=0.1, times=3, code=2)
