"""`[[intention]]` in route files: read, planned, told, written out again."""

import pytest

from fairlead_daemon.errors import Refused
from fairlead_discovery.policies import AnyPolicy, Intentions, Source, Split
from fairlead_lb.decisions import intention_files, route_files, split_files

FILE = """
[[intention]]
to = "marathon:/shop/cart"
from = "marathon:/shop/web"
action = "allow"
methods = ["get"]
paths = ["/items"]

[[intention]]
to = "marathon:/shop/cart"
default = "deny"

[[intention]]
to = "*"
from = "anonymous"
action = "deny"

[[route]]
service = "erp:db"
port = 10150
"""
WEB = Source(name="marathon:/shop/web", methods=("GET",), paths=("/items",))
CART = Intentions(service="marathon:/shop/cart", default="deny", sources=(WEB,))
ALL = Intentions(service="*", sources=(Source(name="anonymous", action="deny"),))


def test_a_file_is_one_record_a_service_and_back():
    """Beside routes, which others read."""
    found = split_files.parse(FILE, "f.toml")
    entries = [e for _, e in split_files.entries_of([CART]) if isinstance(e, intention_files.IntentionEntry)]

    assert {"intentions~marathon:/shop/cart": CART, "intentions~*": ALL} == found
    assert [CART] == intention_files.intentions_of((e, "again") for e in entries)
    assert ["erp:db"] == list(route_files.parse(FILE, "f.toml"))


def test_it_is_told_in_words():
    """As `route plan` shows it."""
    expected = "marathon:/shop/web may GET below /items, others may not"

    assert expected == intention_files.told(CART)
    assert "anonymous may not call" == intention_files.told(ALL)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('[[intention]]\nto = "e:a"', "f: intention 1: needs `from` with `action`, or `default`"),
        ('[[intention]]\nto = "e:a"\nfrom = "e:b"', "f: intention 1: source e:b: action '': allow or deny"),
        ('[[intention]]\nto = "e:a"\nfrom = "e:b"\naction = "maybe"', "f: intention 1: source e:b: action 'maybe'"),
        ('[[intention]]\nto = "e:a"\nfrom = "e:b"\naction = "deny"\n' * 2, "f: intention 2: e:b to e:a is there twice"),
        ('[[intention]]\nto = "e:a"\ndefault = "deny"\n' * 2, "f: intention 2: the default of e:a is there twice"),
        ('[[intention]]\nto = "e:a"\ndefault = "deny"\npaths = ["/x"]', "f: intention 1: `default` stands alone"),
        ('[[intention]]\nto = "e:a"\nsource = "e:b"', "f: intention 1: Object contains unknown field `source`"),
        ('[[intention]]\nto = "nobody"\ndefault = "deny"', "f: intention 1: "),
    ],
)
def test_mistakes_are_told_with_their_place(text: str, told: str):
    """The file, the entry, the field."""
    with pytest.raises(Refused) as caught:
        split_files.parse(text, "f")

    assert str(caught.value).startswith(told)


def test_the_order_of_sources_changes_nothing():
    """What `fairlead intention` wrote in another order is what the file says."""
    others = (Source(name="e:a"), Source(name="e:b", action="deny"))
    now = Intentions(service="e:c", sources=others)
    wanted: AnyPolicy = Intentions(service="e:c", sources=others[::-1])

    assert split_files.plan([now], {"intentions~e:c": wanted}, prune=True).empty


def test_a_file_of_routes_alone_prunes_no_intention():
    """It would let everybody in. One that has some is the whole of them."""
    now: list[AnyPolicy] = [CART, ALL, Split(service="e:a")]
    without = split_files.plan(now, {}, prune=True)
    with_one = split_files.plan(now, {"intentions~*": ALL}, prune=True)

    assert ["split~e:a"] == list(without.removed)
    assert ["intentions~marathon:/shop/cart", "split~e:a"] == sorted(with_one.removed)
