"""The language of conditions: what is understood, what is refused and where, and what it gives."""

import pytest

from fairlead_daemon.errors import BadSettings
from fairlead_monitoring.decisions.evaluation import Ambiguous, Moment, judge_condition
from fairlead_monitoring.decisions.expression import BadExpression, parse
from fairlead_monitoring.decisions.ring import Ring
from fairlead_monitoring.decisions.rules import combine, read_rules
from fairlead_monitoring.decisions.samples import series

NOW_S = 1000.0


def moment() -> Moment:
    ring = Ring(keep_s=3600, forget_s=300, most_series=100)
    for second in range(61):
        at_s = NOW_S - 60 + second
        ring.add("s", at_s, {series("req", service="a"): 2.0 * second, series("req", service="b"): 10.0 * second})
    ring.add(
        "apps",
        NOW_S,
        {
            series("wanted", service="a"): 3.0,
            series("wanted", service="b"): 1.0,
            series("have", service="a", state="healthy"): 1.0,
            series("have", service="a", state="staged"): 2.0,
            series("have", service="b", state="healthy"): 1.0,
            series("limit"): 4.0,
            series("zero", service="a"): 0.0,
        },
    )
    return Moment(ring=ring, now_s=NOW_S, fresh_s=10)


A, B = (("service", "a"),), (("service", "b"),)


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ('wanted{service="a"} > 2', {(): True}),
        ("wanted > 2", {A: True, B: False}),
        ('wanted - have{state="healthy"} > 0', {A: True, B: False}),
        ("sum by (service) (have) == 3", {A: True, B: False}),
        ("rate(req[60s]) > 5", {A: False, B: True}),
        ("increase(req[30s]) >= 60", {A: True, B: True}),
        ("average(req[10s]) > highest(req[5s])", {A: False, B: False}),
        ("lowest(req[10s]) >= 100", {A: True, B: True}),
        ("sum(wanted) == limit", {(): True}),
        ("wanted * 2 + 1 > limit", {A: True, B: False}),
        ("limit < wanted", {A: False, B: False}),
        ('wanted{service=~"a|x"} > 0', {A: True}),
        ('wanted{service!~"a", service!="c"} > 0', {B: True}),
        ("count(wanted) != 2", {(): False}),
        ("wanted / zero > 0", {}),
        ("time() - limit == 996", {(): True}),
        ("wanted - time() < -998", {A: False, B: True}),
        ("nothing > 0", {}),
        ("-1 < max(wanted)", {(): True}),
        ("(wanted + 1) * 2 <= 4", {A: False, B: True}),
    ],
)
def test_a_condition_holds_for_sets_of_labels(text: str, holds: dict):
    """Sides are joined on the labels both have; labels compared by `=` are left out; what has no data is absent."""
    assert holds == {labels: v.holds for labels, v in judge_condition(parse(text), moment()).items()}


def test_the_left_sides_value_is_told():
    """It stands in the summary of the alert."""
    assert 2.0 == judge_condition(parse('wanted - have{state="healthy"} > 0'), moment())[A].value


def test_an_ambiguous_join_is_an_error():
    """`have` has two series for service a, and so has the other side: nobody can say which belong together."""
    with pytest.raises(Ambiguous, match="service"):
        judge_condition(parse('have{state!="x"} + have{state=~"h.*|s.*"} * wanted > req + have'), moment_of_two())


def moment_of_two() -> Moment:
    at = moment()
    at.ring.add("more", NOW_S, {series("other", service="a", zone=z): 1.0 for z in "xy"})
    at.ring.add("have2", NOW_S, {series("req", service="a", zone=z): 1.0 for z in "xy"})
    return at


@pytest.mark.parametrize(
    ("text", "column", "why"),
    [
        ("a", 2, "expected one of"),
        ("a >", 4, "expected a metric"),
        ("> 1", 1, "expected a metric"),
        ("rate(a) > 1", 7, "span"),
        ("a[5s] > 1", 2, "needs a function"),
        ("foo(a) > 1", 1, "no such function: foo"),
        ("time(a) > 1", 6, "expected '"),
        ("a{b=1} > 2", 5, "double quotes"),
        ('a{b="c} > 1', 5, "closing quote"),
        ('a{b=~"("} > 1', 6, "regular expression"),
        ("(a > 1", 4, r"expected '\)'"),
        ("a & b > 1", 3, "unexpected"),
        ("rate(a[2h]) > 1", 8, "at most 1h"),
        ("rate(a[5 parsecs]) > 1", 8, "expected a span"),
        ("a > 1 > 2", 7, "expected the end"),
        ("sum by (1) (a) > 1", 9, "expected a label"),
        ("(" * 50 + "a" + ")" * 50 + " > 1", 21, "nested deeper"),
    ],
)
def test_a_mistake_is_named_with_its_column(text: str, column: int, why: str):
    """People find it at once."""
    with pytest.raises(BadExpression, match=f"column {column}: .*{why}"):
        parse(text)


def rule(**keys: object) -> dict:
    return {"rule": [{"name": "r", "when": "a > 1", **keys}]}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (rule(when="a >"), "my.toml: rule r: when: column 4"),
        (rule(until="a"), "my.toml: rule r: until: column 2"),
        (rule(**{"for": "5 minutes"}), "my.toml: rule r: for: '5 minutes' is no time"),
        (rule(severity="bad"), "my.toml: rule r: severity"),
        (rule(colour="red"), "my.toml: rule r: .*colour"),
        (rule(name="no/slash"), "name: letters"),
        ({"rule": [{"name": "x"}]}, "rule x: when: missing"),
        ({"rule": [rule()["rule"][0], rule()["rule"][0]]}, "two of this name"),
        ({"rules": []}, r"my.toml: .*rule"),
        (rule(hold="25h"), "not between 0 and a day"),
    ],
)
def test_a_bad_rule_is_refused_with_file_rule_and_key(values: dict, message: str):
    """The file, the rule, the key, and in a condition the column."""
    with pytest.raises(BadSettings, match=message):
        read_rules(values, place="my.toml")


def test_a_rule_of_the_same_name_replaces_or_switches_off():
    """A person's file wins over fairlead's own."""
    own = read_rules({"rule": [{"name": "x", "when": "a > 1"}, {"name": "y", "when": "a > 1"}]}, place="own")
    mine = read_rules({"rule": [{"name": "x", "when": "a > 9"}, {"name": "y", "enabled": False}]}, place="mine")
    found = combine([own, mine])

    assert ["x"] == list(found)
    assert "a > 9" == found["x"].when_text
