"""Mesos-DNS' label algorithm, by its own vectors."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead_discovery.decisions import dns_labels as labels

DASHES = "hello" + "-" * 56 + "f"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("4abc123", "abc123"),
        ("89fdgsf---gs7-fgs--d7fddg-123", "fdgsf---gs7-fgs--d7fddg1"),
        ("chronos with a space AND MIXED CASE-2.0.1", "chronoswithaspaceandmixe"),
        (DASHES, "hellof"),
        ("a" * 22 + "--b-", "a" * 22 + "b"),
        ("", ""),
        ("-", ""),
        ("123", ""),
    ],
)
def test_rfc952_vectors(name: str, expected: str) -> None:
    """`enforceRFC952` gives what Mesos-DNS gave, but for a refill that ends in `-`: that is no legal label."""
    assert expected == labels.rfc952(name)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("4abc123", "4abc123"),
        (DASHES, DASHES),
        (
            "%%fdgsf---gs7-fgs--d7fddg123456789012345678901234567890123456789---123",
            "fdgsf---gs7-fgs--d7fddg1234567890123456789012345678901234567891",
        ),
        ("Web_Shop.2", "web-shop-2"),
        ("--web--", "web"),
        ("shöp", "shp"),
        ("%%%", ""),
    ],
)
def test_rfc1123_vectors(name: str, expected: str) -> None:
    """By default labels are what Mesos-DNS made of them."""
    assert expected == labels.rfc1123(name)


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        (labels.rfc952, "pod-123abc.marathon-0.dev.mesos"),
        (labels.rfc1123, "pod-123abc.marathon-0.6.0-dev.mesos"),
    ],
)
def test_dots_of_a_framework_stay_dots(spec: labels.Spec, expected: str) -> None:
    """A framework's name is mangled label by label, empty ones dropped."""
    assert expected == labels.domain_fragment("pod_123$abc.marathon-0.6.0-dev.mesos", spec)


@pytest.mark.parametrize(
    ("task_id", "expected"),
    [
        ("test", "iffe9"),
        ("nginx.48dccce7-90bc-11e6-ae70-70b3d5800001", "jhy6r"),
        ("liquor-store.b8db9f73-562f-11e4-a088-c20493233aa5", "4dfjd"),
        ("liquor-store.b71166c1-562f-11e4-a088-c20493233aa5", "zasmd"),
        ("car-store.43758382-562f-11e4-a088-c20493233aa5", "zinaz"),
    ],
)
def test_task_hash_vectors(task_id: str, expected: str) -> None:
    """The five characters that tell instances apart are Mesos-DNS' own."""
    assert expected == labels.task_hash(task_id)


@pytest.mark.parametrize(("agent_id", "expected"), [("20140803-125133-3041283216-5050-2410-0", "0"), ("a-S1", "s1")])
def test_agent_tail_is_the_last_field(agent_id: str, expected: str) -> None:
    """The agent's part of an instance name is the last field of its id, lower case."""
    assert expected == labels.agent_tail(agent_id)


@given(st.text(alphabet="aZ9-._ %é", max_size=80))
def test_labels_are_legal(name: str) -> None:
    """Whatever the name, a label has at most 63 legal characters."""
    label = labels.rfc1123(name)

    assert re.fullmatch(r"[a-z0-9-]{0,63}", label)


def test_long_labels_are_cut_and_stay_apart() -> None:
    """Two instance labels over 63 characters that differ only at the end stay two legal labels."""
    first, second = labels.fit("a" * 63 + "-1"), labels.fit("a" * 63 + "-2")

    assert (63, 63, True) == (len(first), len(second), first != second)


def test_short_labels_are_not_touched() -> None:
    """A label of 63 bytes is legal as it is."""
    assert "a" * 63 == labels.fit("a" * 63)
