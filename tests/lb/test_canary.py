"""How far a canary goes: the table of what is seen and what is decided, and the counters it is decided by."""

import re

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead_daemon.errors import Refused
from fairlead_discovery.policies import Canary, CanaryStage, Target
from fairlead_lb.decisions import windows
from fairlead_lb.decisions.canary import Go, Hold, Seen, checked, judge, look_of
from fairlead_lb.decisions.windows import Counts

CANARY = Canary(
    service="o:a",
    id="1",
    to=Target(service="o:b"),
    steps=(5, 50, 100),
    every_s=60,
    max_5xx_percent=1,
    max_p99_ratio=1.5,
    min_requests=100,
)


def stage(step: int, *, state: str = "running", id_: str = "1", percent: float = 0) -> CanaryStage:
    return CanaryStage(service="o:a", id=id_, state=state, step=step, percent=percent or CANARY.steps[step])


def counts(requests: int, errors: int = 0, *, p99: str = "") -> Counts:
    return Counts(requests=requests, errors=errors, times={p99: requests} if p99 else {})


def seen(canary: Counts, own: Counts | None = None, *, watched_s: float = 60, silent: tuple[str, ...] = ()) -> Seen:
    return Seen(watched_s=watched_s, own=own or counts(1000), canary=canary, silent=silent)


FINE, WELL = counts(100), counts(1000)


@pytest.mark.parametrize(
    ("at", "what", "decided"),
    [
        (None, seen(counts(0)), ("running", 0, 5)),
        (stage(1, id_="0"), seen(counts(0)), ("running", 0, 5)),
        (stage(0), seen(FINE, watched_s=59.9), "watched for 60 of 60 s"),
        (stage(0), seen(counts(99)), "99 of 100 answers"),
        (stage(0), seen(FINE), ("running", 1, 50)),
        (stage(1), seen(FINE), ("running", 2, 100)),
        (stage(2), seen(FINE), ("promoted", 2, 100)),
        (stage(0), seen(counts(100, 1)), ("running", 1, 50)),
        (stage(0), seen(counts(100, 2)), ("aborted", 0, 0)),
        (stage(1), seen(counts(5000, 51), watched_s=3), ("aborted", 1, 0)),
        (stage(0), seen(counts(2, 2), watched_s=1), ("aborted", 0, 0)),
        (stage(0), seen(counts(1, 1), watched_s=1), "watched for 1 of 60 s"),
        (stage(0), seen(counts(2, 2), watched_s=1, silent=("lb-2",)), ("aborted", 0, 0)),
        (stage(0), seen(FINE, silent=("lb-2",)), "balancers do not tell what they see: lb-2"),
        (stage(0), seen(counts(100, p99="5:15"), counts(100, p99="5:10")), ("running", 1, 50)),
        (stage(0), seen(counts(100, p99="5:20"), counts(100, p99="5:10")), ("aborted", 0, 0)),
        (
            stage(0),
            seen(counts(100, p99="5:20"), counts(99, p99="5:10")),
            "99 of 100 answer times of the service itself",
        ),
        (stage(0), seen(counts(100, p99="5:20"), counts(100, p99="5:10"), watched_s=3), "watched for 3 of 60 s"),
        (stage(2), seen(counts(100, p99="5:20"), counts(0)), ("promoted", 2, 100)),
        (stage(1, state="aborted"), seen(FINE), "it is aborted: "),
        (stage(2, state="promoted"), seen(counts(100, 100)), "it is promoted: "),
    ],
)
def test_what_is_seen_decides(at: CanaryStage | None, what: Seen, decided: object):
    """Errors abort at once, all else waits for the step's time, its answers, and every balancer's word."""
    found = judge(CANARY, at, what)

    if isinstance(found, Hold):
        assert decided == found.why
    else:
        assert decided == (found.stage.state, found.stage.step, found.stage.percent)
        assert found.stage.id == CANARY.id


@pytest.mark.parametrize(
    ("order", "at", "decided"),
    [
        ("abort", None, ("aborted", 0)),
        ("abort", stage(1), ("aborted", 0)),
        ("abort", stage(2, state="promoted"), ("aborted", 0)),
        ("abort", stage(1, state="aborted"), None),
        ("promote", stage(0), ("promoted", 100)),
        ("promote", stage(0, state="aborted"), ("promoted", 100)),
        ("promote", stage(2, state="promoted"), None),
    ],
)
def test_an_operators_word_decides_over_all_else(order: str, at: CanaryStage | None, decided: object):
    """Whatever was seen, and whatever had been decided before; once."""
    found = judge(msgspec.structs.replace(CANARY, order=order), at, seen(counts(9, 9)))

    assert decided == (None if isinstance(found, Hold) else (found.stage.state, found.stage.percent))


def test_an_abort_says_why():
    """In numbers, beside the service's own."""
    found = judge(CANARY, stage(0), seen(counts(200, 40), counts(1000, 5)))
    slow = judge(CANARY, stage(0), seen(counts(100, p99="6:20"), counts(1000, p99="5:10")))

    expected = "40 of 200 answers were 5xx, more than 1 % (the service itself: 0.5 %)"
    assert isinstance(found, Go)
    assert expected == found.stage.reason
    assert isinstance(slow, Go)
    assert "its 99th percentile is 210 ms, more than 1.5 times 11 ms of the service itself" == slow.stage.reason


@given(
    st.integers(0, 300),
    st.integers(0, 300),
    st.floats(0, 100),
    st.sampled_from(((), ("x",))),
    st.sampled_from((None, stage(0), stage(1), stage(2), stage(1, state="aborted"), stage(2, state="promoted"))),
)
def test_a_canary_never_skips_a_step_nor_rises_from_an_abort(
    requests: int, errors: int, watched_s: float, silent: tuple[str, ...], at: CanaryStage | None
):
    """Whatever is seen: the share stays, goes one step on, or to nothing; and what was decided holds when seen again."""
    what = seen(counts(requests, min(errors, requests)), watched_s=watched_s, silent=silent)
    found = judge(CANARY, at, what)
    if isinstance(found, Hold):
        return
    nexts = {0: 5, 5: 50, 50: 100, 100: 100}
    before = at.percent if at is not None and at.state == "running" else 0

    assert at is None or at.state == "running"
    assert found.stage.percent in {0, nexts[int(before)]}
    assert found.stage.percent or found.stage.state == "aborted"


@pytest.mark.parametrize(
    ("field", "value", "told"),
    [
        ("steps", (), "0 steps; between 1 and 50"),
        ("steps", (5, 5), "steps 5,5: each must be more than the one before"),
        ("steps", (0, 5), "steps 0,5: not all between 0 and 100"),
        ("steps", (5, 101), "steps 5,101: not all between 0 and 100"),
        ("every_s", 0.5, "every 0.5 s: not between 1 and 2.592e+06 s"),
        ("every_s", float("inf"), "every inf s: not between 1 and 2.592e+06 s"),
        ("min_requests", 0, "min_requests 0: not between 1 and 1000000000"),
        ("max_5xx_percent", 101, "max_5xx 101 %: not between 0 and 100"),
        ("max_p99_ratio", 0.5, "max_p99_ratio 0.5: at least 1, or 0 for none"),
        ("order", "up", "order 'up': run, abort or promote"),
    ],
)
def test_an_order_that_makes_no_sense_moves_nobody(field: str, value: object, told: str):
    """It holds, and says what is wrong with it."""
    bad = msgspec.structs.replace(CANARY, **{field: value})

    assert Hold(told) == judge(bad, None, seen(FINE))
    with pytest.raises(Refused, match=re.escape(told)):
        checked(bad)


def test_people_are_told_what_is_seen():
    """Both sides, with percentiles where there are any."""
    look = look_of(CANARY, seen(counts(200, 1, p99="5:20"), counts(0)), "watched")

    assert (200, 0.5, 21.0) == (look.canary_requests, look.canary_5xx_percent, look.canary_p99_ms)
    assert (0, 0.0, None) == (look.own_requests, look.own_5xx_percent, look.own_p99_ms)


STAT = """# pxname,svname,scur,stot,econ,eresp,act,bck,mode,hrsp_5xx,req_tot,
a_1,BACKEND,0,70,1,2,2,1,http,7,60,

# pxname,svname,scur,stot,econ,eresp,act,bck,mode,hrsp_5xx,req_tot,
b_1,BACKEND,0,70,1,2,0,0,tcp,,,
"""
TABLE = """# table: fairlead_times, type: string, size:102400, used:2
0x1: key=a_1:5:12 use=0 exp=0 gpc0=3
0x2: key=a_1:1:7 use=0 exp=0 gpc0=1
"""


def test_haproxys_words_are_counts():
    """Of a TCP service connections count, and those that reached nobody are its errors."""
    found = windows.backend_counts(STAT)

    assert {"a_1": (Counts(requests=60, errors=7), 2), "b_1": (Counts(requests=70, errors=3), 0)} == found
    assert {"a_1": {"5:12": 3, "1:7": 1}} == windows.backend_times(TABLE)


def test_counters_that_begin_anew_lose_nothing():
    """A reload's worker counts from nothing; so does a daemon that was started again."""
    total = windows.grown(Counts(), Counts(requests=5), Counts(requests=9, errors=1))
    after = windows.grown(total, Counts(requests=9, errors=1), Counts(requests=2))

    assert (4, 1) == (total.requests, total.errors)
    assert (6, 1) == (after.requests, after.errors)


@given(st.lists(st.integers(1, 9_999_999), min_size=1, max_size=200))
def test_the_percentile_is_within_a_tenth(times_us: list[int]):
    """From two digits and how many there are."""
    found: dict[str, int] = {}
    for time_us in times_us:
        bucket = f"{len(str(time_us))}:{str(time_us)[:2]}"
        found[bucket] = found.get(bucket, 0) + 1
    exact_ms = sorted(times_us)[-(-99 * len(times_us) // 100) - 1] / 1000
    said_ms = windows.percentile_ms(found, 0.99)

    assert said_ms is not None
    assert exact_ms <= said_ms <= exact_ms * 1.1 + 0.002


@pytest.mark.parametrize("step", [-1, -100, 99])
def test_a_stage_that_cannot_be_begins_anew(step: int):
    """Whoever wrote it: at the first step."""
    stage = CanaryStage(service=CANARY.service, id=CANARY.id, step=step, percent=50)
    seen = Seen(watched_s=1e9, own=Counts(), canary=Counts())
    found = judge(CANARY, stage, seen)

    assert isinstance(found, Go)
    assert (0, CANARY.steps[0]) == (found.stage.step, found.stage.percent)
