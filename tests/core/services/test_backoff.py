"""How long an app that fails waits before its next launch."""

import msgspec
import pytest

from fairlead_core.services.decisions.app import App
from fairlead_core.services.decisions.backoff import Delay, after_failure

APP = App(id="/a", cmd="x", backoff_seconds=1, backoff_factor=2, max_launch_delay_seconds=10, version="v1")


def test_the_wait_grows_to_its_limit():
    """1, 2, 4, 8, 10, 10: one failure after the other."""
    delay, now_s, waits = Delay(), 0.0, []
    for _ in range(6):
        delay = after_failure(delay, APP, now_s=now_s, ran_s=0.0)
        waits.append(delay.left_s(APP, now_s=now_s))
        now_s = delay.until_s

    assert [1, 2, 4, 8, 10, 10] == waits


@pytest.mark.parametrize(
    ("app", "now_s", "ran_s", "wait_s"),
    [
        (APP, 14.5, 0.0, 8.0),
        (APP, 14.5, 11.0, 1.0),
        (APP, 40.0, 0.0, 1.0),
        (msgspec.structs.replace(APP, version="v2"), 14.5, 0.0, 1.0),
    ],
    ids=["goes on", "ran long enough", "quiet long enough", "another version"],
)
def test_what_begins_the_wait_anew(app: App, now_s: float, ran_s: float, wait_s: float):
    """After a long run, a quiet time, or with a new version, a failure is the first again."""
    delay = Delay(version="v1", delay_s=4.0, until_s=14.0)

    assert wait_s == after_failure(delay, app, now_s=now_s, ran_s=ran_s).left_s(app, now_s=now_s)


def test_instances_that_fail_together_are_one_failure():
    """Ten of one launch do not make the wait a thousand times longer."""
    one = after_failure(Delay(), APP, now_s=0.0, ran_s=0.0)

    assert one == after_failure(one, APP, now_s=0.1, ran_s=0.0)
