"""Splits and failovers that operators write: read, planned, written out again."""

import pytest

from fairlead_daemon.errors import Refused
from fairlead_discovery.policies import Canary, Failover, Share, Split, Target
from fairlead_lb.decisions import split_files

FILE = """
[[split]]
service = "erp:db"
to = { "erp:db2" = 5, "erp:db3#1" = 0.25 }
sticky = "cookie"

[[failover]]
service = "erp:db"
to = ["erp:db2", "erp:db3#1"]
min_ready = 2
back_after = "1m"

[[route]]
service = "erp:db"
port = 10150
"""
SPLIT = Split(
    service="erp:db",
    shares=(Share(service="erp:db2", percent=5), Share(service="erp:db3", percent=0.25, index=1)),
    sticky="cookie",
)
FAILOVER = Failover(
    service="erp:db", to=(Target(service="erp:db2"), Target(service="erp:db3", index=1)), min_ready=2, back_after_s=60
)


def test_a_file_is_policies_and_back():
    """Beside routes, which others read."""
    found = split_files.parse(FILE, "f.toml")
    [(_, split), (_, failover)] = split_files.entries_of(list(found.values()))

    assert {"split~erp:db": SPLIT, "failover~erp:db": FAILOVER} == found
    assert isinstance(split, split_files.SplitEntry)
    assert isinstance(failover, split_files.FailoverEntry)
    assert SPLIT == split_files.split_of(split, "again")
    assert FAILOVER == split_files.failover_of(failover, "again")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('[[split]]\nservice = "erp:db"\nto = { "erp:b" = 101 }', "f: split 1: share to erp:b: 101 %: not between"),
        ('[[split]]\nservice = "erp:db"\nto = { "b" = 1 }', "f: split 1: b: no service key"),
        ('[[split]]\nservice = "erp:db"', "f: split 1: needs somebody to share with"),
        ('[[split]]\nservice = "erp:db"\nfrom = 1', "f: split 1: Object contains unknown field `from`"),
        ('[[failover]]\nservice = "erp:db"\nto = ["erp:b"]\nback_after = "soon"', "f: failover 1: back_after: "),
        ('[[failover]]\nservice = "erp:db"\nto = ["erp:db"]', "f: failover 1: a service cannot stand in for itself"),
        ('[[split]]\nservice = "e:a"\nto = { "e:b" = 1 }\n' * 2, "f: split 2: e:a is there twice"),
        ("[[split", "f: "),
    ],
)
def test_mistakes_are_told_with_their_place(text: str, told: str):
    """File, table, field."""
    with pytest.raises(Refused) as caught:
        split_files.parse(text, "f")

    assert str(caught.value).startswith(told)


def test_a_plan_says_what_changes_and_leaves_canaries_alone():
    """Only with `prune` something goes."""
    other = Split(service="o:x", shares=(Share(service="o:y", percent=1),))
    wanted = split_files.parse(FILE, "f")
    first = split_files.plan([other], wanted, prune=False)
    second = split_files.plan([SPLIT, FAILOVER, other], wanted, prune=True)
    canary = Canary(service="erp:db", id="1", to=Target(service="erp:db2"))

    assert (wanted, {}, {}) == (first.added, first.changed, first.removed)
    assert ({}, {}, {"split~o:x": other}) == (second.added, second.changed, second.removed)
    assert split_files.plan([SPLIT, FAILOVER], wanted, prune=True).empty
    with pytest.raises(Refused, match="erp:db: its canary decides"):
        split_files.plan([canary], wanted, prune=False)


@pytest.mark.parametrize(("text", "value"), [("5", 5.0), ("0.25%", 0.25), (" 12.5 % ", 12.5), ("100", 100.0)])
def test_a_percentage_is_written_with_or_without_its_sign(text: str, value: float):
    """Hundredths count."""
    assert value == split_files.percent(text, "x")


@pytest.mark.parametrize("text", ["", "-1", "1.234", "five", "1e1", "%"])
def test_what_is_no_percentage_is_refused(text: str):
    """With the place."""
    with pytest.raises(Refused, match=r"--to x: .* is no percentage"):
        split_files.percent(text, "--to x")
