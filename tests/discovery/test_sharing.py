"""The shared mapping is a dict to whoever reads it, never changes, and costs what has changed."""

import pickle
from collections.abc import Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairlead_discovery.decisions.delta import differing
from fairlead_discovery.decisions.sharing import NOTHING, Shared

FEW = tuple(f"k{n}" for n in range(6))
MANY = tuple(f"service-{n}" for n in range(300))
KEYS = st.sampled_from(FEW) | st.sampled_from(MANY)
VALUES = (object(), object(), object())
STEPS = st.tuples(st.dictionaries(KEYS, st.sampled_from(VALUES), max_size=40), st.sets(KEYS, max_size=40))


def described(mapping: Mapping[str, object]) -> tuple[object, ...]:
    """All that one can ask of a mapping, in one order."""
    return (
        len(mapping),
        bool(mapping),
        sorted(mapping),
        sorted(mapping.keys()),
        sorted(mapping.items(), key=lambda item: item[0]),
        sorted(map(id, mapping.values())),
        [(key in mapping, mapping.get(key), mapping.get(key, 7), key in mapping.keys()) for key in (*FEW, *MANY)],  # noqa: SIM118  # the view is asked
        sorted(mapping.keys() - set(FEW)),
        (FEW[0], VALUES[0]) in mapping.items(),
    )


@settings(max_examples=60)  # of few keys, so that the same ones come and go, and of enough to be laid out anew
@given(st.lists(STEPS, max_size=8))
def test_changed_is_what_a_changed_dict_is(steps: list[tuple[dict[str, object], set[str]]]):
    """Step by step; and no step changes what was there before it."""
    plain: dict[str, object] = {}
    shared: Shared[object] = NOTHING
    history = [(plain, shared)]
    for put, gone in steps:
        plain = {key: value for key, value in plain.items() if key not in gone} | put
        shared = shared.changed(put, gone)
        history.append((plain, shared))

    for expected, actual in history:
        assert described(expected) == described(actual)
        assert actual == expected
        assert Shared.of(expected) == actual
        assert pickle.loads(pickle.dumps(Shared.of(dict.fromkeys(expected, 1)))) == dict.fromkeys(expected, 1)


@settings(max_examples=60)  # see above
@given(st.lists(STEPS, min_size=1, max_size=6), st.integers(0, 5))
def test_differing_names_what_is_not_the_same_object(steps: list[tuple[dict[str, object], set[str]]], skip: int):
    """Between any two of a history, however they are laid out."""
    history: list[Shared[object]] = [NOTHING]
    for put, gone in steps:
        history.append(history[-1].changed(put, gone))
    before, after = history[min(skip, len(history) - 1)], history[-1]

    expected = {key for key in (*FEW, *MANY) if before.get(key) is not after.get(key)}
    assert expected == set(differing(before, after, None))
    assert expected == set(differing(dict(before), after, None))


def test_nothing_changed_is_the_very_same():
    """Identity says that nothing is new: readers go by it."""
    shared = Shared.of(dict.fromkeys(MANY, 1))

    assert shared.changed({}, ()) is shared
    assert shared.changed({}, ("not there",)) is shared
    assert Shared.of(shared) is shared


@pytest.mark.parametrize("count", [100, 10_000])
def test_one_change_copies_little(count: int):
    """Of 10,000 keys one in fifty, in a dict of its own; all others stand where they stood."""
    before = Shared.of({f"s{n}": n for n in range(count)})
    after = before.changed({"s7": -1})
    one, other = (vars_of(each) for each in (before, after))
    fresh = [new for old, new in zip(one, other, strict=True) if old is not new]

    assert len(fresh) == 1
    assert len(fresh[0]) + len(one) <= 4 * count**0.5 + 20


def vars_of(shared: Shared[int]) -> tuple[dict[str, int], ...]:
    return shared._dicts


def test_it_fits_however_many_come_and_go():
    """Grown one by one from nothing to 3,000 and back, no lookup goes through a long list of anything."""
    keys = [f"s{n}" for n in range(3000)]
    shared: Shared[int] = NOTHING
    for at in range(0, len(keys), 10):
        shared = shared.changed(dict.fromkeys(keys[at : at + 10], 1))
        assert len(vars_of(shared)) + len(shared) / len(vars_of(shared)) <= 8 * (len(shared) + 1) ** 0.5
    for at in range(0, len(keys), 10):
        shared = shared.changed({}, keys[at : at + 10])
        assert len(vars_of(shared)) <= 8 * (len(shared) + 1) ** 0.5

    assert not shared
