"""VIPs: labels of ports to names, names to addresses that everybody works out alike."""

from ipaddress import IPv4Address, IPv4Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead_discovery.decisions import vips
from fairlead_discovery.decisions.vips import BadVip, Vip, VipNames
from fairlead_discovery.records import Address, Member, Port, TaskRef

SMALL = IPv4Network("127.200.0.0/28")
NAMES = st.sets(st.sampled_from([f"n{i}.marathon" for i in range(14)]))


def port(*labels: str, protocols: tuple[str, ...] = ("tcp",)) -> Port:
    given = {f"VIP_{number}": label for number, label in enumerate(labels)}
    return Port(index=0, number=80, host_port=31000, protocols=protocols, labels=given)


def member(*labels: str) -> Member:
    return Member(
        serviceEndpoint=Address(host="10.0.0.1", port=31000),
        task=TaskRef(id="t", name="web", framework="marathon", framework_id="f", agent="a"),
        ports=(port(*labels),),
    )


@pytest.mark.parametrize(
    ("label", "expected"),
    [
        ("/web:80", Vip("web.marathon", 80)),
        ("web:80", Vip("web.marathon", 80)),
        ("/shop/Web_1:5432", Vip("shopweb-1.marathon", 5432)),
        ("10.99.0.1:80", Vip("10.99.0.1", 80, literal=True)),
    ],
)
def test_labels_are_read_as_dcos_did(label: str, expected: Vip):
    """A name, with or without a slash, or an address, and a port."""
    assert (expected,) == vips.of_port(port(label), "marathon")


@pytest.mark.parametrize(
    "label", ["web", "/web:", ":80", "/web:0", "/web:65536", "/$$:80", "web:80:tcp", "", "a" * 300]
)
def test_what_is_no_vip_is_told_and_takes_nothing(label: str):
    """The problem names the label."""
    [problem] = vips.problems(port(label), "marathon")

    assert () == vips.of_port(port(label), "marathon")
    assert problem.startswith("VIP_0: ")


def test_a_udp_port_has_no_vip():
    """HAProxy passes no UDP."""
    udp = port("/dns:53", protocols=("udp",))

    assert () == vips.of_port(udp, "marathon")
    assert ("VIP_0: UDP has no VIP here",) == vips.problems(udp, "marathon")


def test_other_labels_ask_for_nothing():
    """Only VIP_<number> does."""
    assert vips.asked({"VIP_0": "/web:80"})
    assert not vips.asked({"VIP": "/web:80", "VIP_X": "/web:80", "MY_VIP_0": "/web:80"})


def test_an_address_is_the_same_for_good():
    """Written down: a release that gave another one would part name servers from balancers."""
    found = vips.addresses({"web.marathon", "db.marathon"}, IPv4Network(vips.RANGE))

    assert {"web.marathon": "127.230.155.221", "db.marathon": "127.153.104.40"} == found


@given(NAMES)
def test_no_two_names_share_an_address(names: set[str]):
    """In a range that has just room for all of them: each has one, inside."""
    found = vips.addresses(names, SMALL)

    assert names == found.keys()
    assert len(names) == len(set(found.values()))
    assert all(IPv4Address(address) in SMALL.hosts() for address in found.values()) or not found


@given(NAMES, st.randoms())
def test_every_machine_works_out_the_same_addresses(names: set[str], random):
    """In whatever order it heard of the names."""
    order = list(names)
    random.shuffle(order)

    assert vips.addresses(names, SMALL) == vips.addresses(order, SMALL)


@given(NAMES, st.sampled_from(["a.x", "z.x"]))
def test_a_new_name_moves_only_names_that_come_after_it(names: set[str], new: str):
    """And none at all when its own choice is free."""
    before = vips.addresses(names, SMALL)
    after = vips.addresses({*names, new}, SMALL)

    moved = {name for name in names if before[name] != after.get(name)}
    assert all(name > new for name in moved)
    assert moved == set() or after[new] in before.values()


@given(st.lists(st.tuples(st.sampled_from("ab"), st.sets(st.sampled_from(["/x:80", "/y:80", "/x:81", "10.0.0.1:80"])))))
def test_names_are_those_of_all_services_whatever_happened_before(changes):
    """Taken one change at a time, as if read at once."""
    book, members = VipNames(), {}
    for service, labels in changes:
        before = set(book.counts)
        members = {**members, service: {"m": member(*sorted(labels))}}
        changed = book.take([service], members)
        assert changed or before == set(book.counts)

    assert set(book.counts) == {n for m in members.values() for n in vips.names_of(m.values())}


@pytest.mark.parametrize("text", ["127.128.0.0", "127.128.0.1/9", "10.0.0.0/29", "::1/64", "x"])
def test_a_range_that_is_none_is_refused(text: str):
    """Single addresses, host bits, and what is too small."""
    with pytest.raises(BadVip):
        vips.parse_range(text)
