"""How soon a reader looks again."""

import pytest

from fairlead_discovery.decisions.pace import REST_S, Answers, of_registry_s, rest_s


@pytest.mark.parametrize(
    ("look_ms", "rest_ms"), [(0, 0), (1, 0.1), (5, 2.5), (10, 10), (20, 40), (23, 50), (10_000, 50)]
)
def test_a_slow_registry_is_left_alone_for_longer(look_ms: float, rest_ms: float):
    """A swift one is asked again at once."""
    assert rest_ms / 1000 == pytest.approx(rest_s(look_ms / 1000, look_ms / 1000))


def test_one_slow_look_among_swift_ones_costs_no_rest():
    """It was the machine, or ourselves: a registry that is short of breath is slow twice."""
    assert rest_s(0.001, 0.001) == rest_s(10.0, 0.001) == rest_s(0.001, 10.0)


def test_readers_alone_never_fill_a_registry():
    """Two hundred that share a server of 30,000 reads a second, four reads a look: below two thirds of it, always."""
    capacity, readers, reads = 30_000, 200, 4
    look_s = readers * reads / capacity  # all of them at once

    assert readers * reads / (look_s + rest_s(look_s, look_s)) < capacity * 2 / 3
    assert pytest.approx(0.05) == REST_S


@pytest.mark.parametrize(
    ("look_ms", "count", "took_ms", "of_registry_ms"),
    [
        (20, 4, 4, 3),  # we were busy
        (3, 2, 2, 3),  # it was the registry
        (20, 2, 40, 20),  # never more than there was
        (5, 0, 0, 5),  # nobody knows
    ],
)
def test_only_the_registrys_part_of_a_look_is_rested_for(
    look_ms: float, count: int, took_ms: float, of_registry_ms: float
):
    """A reader whose own loop is busy does not wait longer still."""
    assert of_registry_ms / 1000 == pytest.approx(of_registry_s(look_ms / 1000, Answers(count, took_ms / 1000)))
