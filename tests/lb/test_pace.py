"""How often draining servers are looked at."""

import pytest

from fairlead_lb.decisions import pace


@pytest.mark.parametrize(("moving", "expected_s"), [(True, 0.1), (False, 0.5)])
def test_drains_are_looked_at_often_for_as_long_as_some_get_further(moving: bool, expected_s: float):
    """A minute of changes without end, and a minute of one long download."""
    now_s, since_s = 0.0, 0.0
    while now_s < 60:
        if moving:
            since_s = pace.since_s(since_s, now_s=now_s)
        now_s += pace.poll_s(now_s - since_s)

    assert expected_s == pytest.approx(pace.poll_s(now_s - since_s), rel=0.2)
