"""Who is put aside for errors, and when repeating ends: from counts alone."""

from collections.abc import Mapping

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from fairlead_discovery.records import Traffic
from fairlead_lb.decisions.breaking import Moment
from fairlead_lb.decisions.judging import BACKEND, LONGEST, Count, Judgement, counts, judge, without_rows
from fairlead_lb.decisions.values import Admin, Backend, Key, Server, Shape, Slot

KEY = Key("o:p", 0)
RULES = Traffic(eject_after=3, eject_s=10)
CSV = """# pxname,svname,stot,econ,eresp,wretr,hrsp_1xx,hrsp_2xx,hrsp_3xx,hrsp_4xx,hrsp_5xx,
b,s1,12,1,2,7,0,5,1,1,3,
b,BACKEND,12,1,2,7,0,5,1,1,3,
t,s1,12,2,0,0,,,,,,
"""


def backend(tasks: int, traffic: Traffic = RULES) -> Backend:
    servers = tuple(Server(task=f"t{n}", host="127.0.0.1", port=1000 + n) for n in range(1, tasks + 1))
    return Backend(name="b", key=KEY, app="", shape=Shape(traffic=traffic), servers=servers)


def after(*seconds: Mapping[str, Count], tasks: int = 2, traffic: Traffic = RULES) -> Judgement:
    """What is judged when each second brought so much by task (`BACKEND` for the whole)."""
    one = backend(tasks, traffic)
    slots = {"b": {f"s{n}": Slot(task=f"t{n}", admin=Admin.READY, port=1000 + n) for n in range(1, tasks + 1)}}
    sums = {place: Count() for place in (BACKEND, *slots["b"])}
    last = Judgement()
    for now_s, news in enumerate(seconds):
        for place, old in tuple(sums.items()):
            new = news.get(place.replace("s", "t"), Count())
            sums[place] = Count(old.good + new.good, old.errors + new.errors, old.retries + new.retries)
        last = judge(
            last, {("b", place): count for place, count in sums.items()}, {"b": one}, slots, Moment(now_s, 1e9 + now_s)
        )
    return last


def aside(judged: Judgement) -> list[str]:
    return sorted(task for _, task in judged.aside)


def test_a_breaker_looks_at_what_is_new_alone():
    """What a worker counted before anybody looked, or looked again after a while, is an old story."""
    rules, slots = (
        Traffic(break_at_percent=50, break_least=5),
        {"b": {"s1": Slot(task="t1", admin=Admin.READY, port=1001)}},
    )

    def looked(last: Judgement, errors: int, now_s: float) -> Judgement:
        counted = {("b", BACKEND): Count(), ("b", "s1"): Count(errors=errors)}
        return judge(last, counted, {"b": backend(1, rules)}, slots, Moment(now_s, now_s))

    first = looked(Judgement(), 1000, 1)
    assert "closed" == first.breakers[KEY].state
    assert "closed" == looked(without_rows(first), 1500, 9).breakers[KEY].state
    assert "open" == looked(first, 1005, 2).breakers[KEY].state


def test_counts_are_read_from_haproxys_table():
    """Errors are 5xx and servers that did not answer; a TCP connection that came about is good."""
    assert counts(CSV) == {
        ("b", "s1"): Count(good=7, errors=6, retries=7),
        ("b", BACKEND): Count(good=7, errors=6, retries=7),
        ("t", "s1"): Count(good=10, errors=2, retries=0),
    }
    assert {} == counts("")


def test_errors_in_a_row_put_a_server_aside():
    """Over several seconds too; one good answer between, and they count anew."""
    bad, good = {"t1": Count(errors=2)}, {"t1": Count(good=1, errors=2)}

    assert [] == aside(after(bad))
    assert ["t1"] == aside(after(bad, bad))
    assert [] == aside(after(bad, good, bad))
    assert ["t1"] == aside(after(bad, {}, bad))
    assert [] == aside(after(bad, bad, tasks=1)), "the last one stays"


def test_a_server_that_fails_most_of_what_it_is_asked_is_put_aside():
    """By its share of the last seconds, however many good answers lie between; few answers say nothing."""
    partly, rarely, hardly = Count(good=1, errors=9), Count(good=6, errors=4), Count(good=1, errors=3)

    assert [] == aside(after({"t1": partly}))
    assert ["t1"] == aside(after(*[{"t1": partly}] * 3))
    assert [] == aside(after(*[{"t1": rarely}] * 40))
    assert ["t1"] == aside(after(*[{"t1": rarely}] * 3, traffic=replace(RULES, eject_share_percent=40)))
    assert [] == aside(after(*[{"t1": partly}] * 40, traffic=replace(RULES, eject_share_percent=0)))
    assert ["t1"] == aside(after(*[{"t1": hardly}] * 9))
    assert [] == aside(after(*[{"t1": hardly}] * 40, traffic=replace(RULES, eject_least=100)))


def test_who_gets_no_requests_is_nobody_to_lean_on():
    """Beside servers of weight 0 the last one stays, as it would alone."""
    one = backend(2)
    one = replace(one, servers=(one.servers[0], replace(one.servers[1], weight=0)))
    slots = {"b": {f"s{n}": Slot(task=f"t{n}", admin=Admin.READY, port=1000 + n) for n in (1, 2)}}
    seen = {("b", BACKEND): Count(), ("b", "s1"): Count(errors=100), ("b", "s2"): Count()}
    judged = judge(Judgement(), seen, {"b": one}, slots, Moment(0.0, 1e9))

    assert (frozenset(), {(KEY, "t1")}) == (judged.aside, judged.capped)


def test_a_share_begins_anew_when_a_server_comes_back():
    """What it answered before it was put aside does not count again."""
    partly, well = {"t1": Count(good=1, errors=24)}, {"t1": Count(good=1)}
    quiet: list[Mapping[str, Count]] = [{}] * 9

    assert ["t1"] == aside(after(partly, *quiet))
    assert [] == aside(after(partly, *quiet, *[well] * 5))
    assert {} == after(partly, *quiet, *[well] * 5).shares


def test_who_fails_more_goes_first():
    """The cap leaves no room for both: those in a row before shares, a larger share before a smaller one."""
    worse, bad, worst = Count(good=2, errors=23), Count(good=9, errors=16), Count(errors=3)

    assert ["t2"] == aside(after({"t1": bad, "t2": worse}))
    assert ["t2"] == aside(after({"t1": worse, "t2": worst}))


def test_it_comes_back_and_stays_away_longer_when_it_fails_again():
    """Ten seconds, then twenty, at most ten times as long; whoever stayed well that long begins anew."""
    bad = {"t1": Count(errors=3)}
    quiet: list[Mapping[str, Count]] = [{}] * 40

    assert ["t1"] == aside(after(bad, *quiet[:9]))
    assert [] == aside(after(bad, *quiet[:10]))
    assert ["t1"] == aside(after(bad, *quiet[:10], bad, *quiet[:19]))
    assert [] == aside(after(bad, *quiet[:10], bad, *quiet[:20]))
    assert 1 == after(bad, *quiet[:30], bad).away[KEY, "t1"].times
    often: list[Mapping[str, Count]] = []
    for times in range(1, LONGEST + 3):
        often += [bad, *[{}] * (10 * min(times, LONGEST) - 1)]
    assert LONGEST == after(*often, bad).away[KEY, "t1"].times


@given(st.integers(1, 12), st.integers(0, 100), st.lists(st.sets(st.integers(1, 12)), min_size=1, max_size=20))
def test_never_all_and_never_more_than_the_rule_allows(tasks: int, percent: int, seconds: list[set[int]]):
    """Whoever fails whenever: one is always left, and those who would have gone are named."""
    rules = Traffic(eject_after=1, eject_s=3, eject_at_most_percent=percent)
    told = [{f"t{n}": Count(errors=1) for n in failing} for failing in seconds]
    judged = after(*told, tasks=tasks, traffic=rules)
    failing = {n for n in seconds[-1] if n <= tasks}

    assert len(judged.aside) <= min(tasks - 1, max(1, tasks * percent // 100))
    assert not judged.aside & judged.capped
    assert {f"t{n}" for n in failing} <= {task for _, task in judged.aside | judged.capped}


def test_a_new_worker_counts_from_nothing():
    """Its smaller numbers are all new."""
    assert Count(2, 3, 4) == Count(2, 3, 4).since(Count(10, 3, 4))
    assert Count(0, 1, 0) == Count(10, 4, 4).since(Count(10, 3, 4))


def test_a_budget_is_a_share_of_requests():
    """Few may always be repeated; more than the share ends it, until others outweigh them."""
    rules = Traffic(retry_budget_percent=20)

    def spent(*seconds: Count) -> bool:
        return KEY in after(*({BACKEND: one} for one in seconds), traffic=rules).spent

    assert not spent(Count(errors=1, retries=3))
    assert spent(Count(errors=2, retries=6))
    assert not spent(Count(good=100, retries=20))
    assert spent(Count(good=100, retries=21))
    assert not spent(Count(good=100, retries=21), Count(good=10))


def test_whoever_is_not_watched_is_not_judged():
    """Without rules there is nothing to remember."""
    judged = after({"t1": Count(errors=100), BACKEND: Count(retries=100)}, traffic=Traffic())

    assert (frozenset(), frozenset(), {}, {}) == (judged.aside, judged.spent, judged.away, judged.repeats)
