"""Whose fragment HAProxy refuses is found with few checks, and what it has judged once is not judged again."""

from collections.abc import Sequence

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from fairlead_discovery.records import Delay, Rate, Traffic
from fairlead_lb.decisions.fragments import Verdicts, culprits, text_of
from fairlead_lb.decisions.values import Key, Picture, Shape, Slot, Structure
from harness.haproxy_model import FRAME


def searched(names: Sequence[str], bad: set[str]) -> tuple[set[str], int]:
    """Who was found, with how many checks."""
    search, checks = culprits(names), 0
    try:
        group = next(search)
        while True:
            checks += 1
            group = search.send(bool(bad & set(group)))
    except StopIteration as found:
        return set(found.value), checks


names = st.lists(st.integers(0, 300).map(str), unique=True, max_size=120)


@given(names, st.data())
def test_all_culprits_are_found_and_nobody_else(all_names: list[str], data: st.DataObject):
    """Each costs about two checks a halving."""
    bad = set(data.draw(st.lists(st.sampled_from(all_names), max_size=4))) if all_names else set()
    found, checks = searched(all_names, bad)

    assert bad == found
    assert checks <= 1 + 2 * max(1, len(bad)) * max(1, len(all_names).bit_length())


def test_one_new_fragment_is_one_check():
    """Two hundred others are known."""
    assert ({"new"}, 1) == searched(["new"], {"new"})


def structure(**shapes: Shape) -> Structure:
    owners = {name: Key(f"marathon:/{name}", 0) for name in shapes}
    return Structure(frame=FRAME, shapes=shapes, owners=owners)


def test_only_what_haproxy_has_not_taken_is_suspect():
    """Another name or generation makes no fragment another; another shape does; when all are known, all are suspect."""
    verdicts = Verdicts()
    served = structure(a=Shape(), b=Shape(sticky=True))
    verdicts.learn(served)
    more = structure(a=Shape(), c=Shape(), d=Shape(balance="leastconn"))

    assert ("d",) == verdicts.suspects(more)
    assert ("a", "c") == verdicts.suspects(structure(a=Shape(), c=Shape()))
    assert verdicts.knows_head(msgspec.structs.replace(served, generation=7))
    assert not verdicts.knows_head(msgspec.structs.replace(served, binds=((1, 2),)))


def test_what_a_tenant_causes_in_the_head_is_judged_with_it():
    """Lua, tables: a head is known whatever the tenants ask for, and a group of them has the lines of its own alone."""
    verdicts = Verdicts()
    verdicts.learn(structure(a=Shape()))
    delay = Shape(traffic=Traffic(delay=Delay(percent=5, delay_s=1), rate=Rate(count=1, per_s=1)))
    asked = structure(a=Shape(), d=delay)
    picture = Picture(structure=asked, slots={name: {"s1": Slot()} for name in asked.shapes})

    assert verdicts.knows_head(asked)
    assert [False, True] == ["lua-load" in text_of(picture, [name]) for name in ("a", "d")]
    assert [False, True] == ["backend fairlead_rates" in text_of(picture, [name]) for name in ("a", "d")]
