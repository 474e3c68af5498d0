"""The index of names: incremental or afresh, the same."""

from collections.abc import Mapping

from hypothesis import given, settings
from hypothesis import strategies as st

from fairlead_discovery.records import Agent, Discovery, Framework, Ips, Member
from fairlead_discovery.snapshots import Snapshot, Trust
from fairlead_dns.decisions import wire
from fairlead_dns.decisions.naming import Dialect, Record, Rules, of_task
from fairlead_dns.decisions.queries import read_query
from fairlead_dns.decisions.zone import Zone
from fairlead_dns.names import Names
from harness.names import ask, authority, member, names, snapshot

APEX = b"\5mesos\0"
few_members = st.lists(
    st.builds(
        lambda number, name, found, ip: member(
            number, name=name, discovery=Discovery(name=found), ips=Ips(host=(f"10.0.0.{number}",), netinfo=ip)
        ),
        st.integers(0, 2),
        st.sampled_from(["web", "web.shop", "db"]),
        st.sampled_from(["", "web", "web.shop"]),
        st.sampled_from([(), ("172.16.0.1",), ("172.16.0.1", "fd00::1")]),
    ),
    max_size=4,
)


def state(made: Names) -> tuple[Mapping[bytes, object], Mapping[bytes, int]]:
    sets = {name: {kind: dict(data) for kind, data in kinds.items()} for name, kinds in made.zone.names.items()}
    return sets, made.zone.below


def copied(each: Snapshot) -> Snapshot:
    """The same services as other objects, as after a re-read."""
    return Snapshot(
        revision=each.revision, trust=each.trust, members={key: dict(ms) for key, ms in each.members.items()}
    )


@settings(max_examples=150, deadline=None)
@given(st.lists(few_members, min_size=1, max_size=5))
def test_incremental_equals_afresh(history: list[list[Member]]) -> None:
    """After any history of snapshots the zone is what the last snapshot alone gives."""
    grown = Names(Rules(), authority())
    for revision, members in enumerate(history):
        grown.take_snapshot(copied(snapshot(*members, revision=revision)))

    fresh = Names(Rules(), authority())
    fresh.take_snapshot(snapshot(*history[-1]))
    assert state(fresh) == state(grown)


EVERY_WAY = Rules(
    dialects=tuple(Dialect(kind=kind) for kind in ("consul", "kubernetes", "dcos", "numbered_ports", "svcb", "dns_sd"))
)
APEXES = (APEX, b"\6consul\0", b"\7cluster\5local\0", b"\4dcos\x0bthisdcos\x09directory\0")


def with_queries() -> Names:
    made = Names(EVERY_WAY, authority(apexes=APEXES))
    texts = (b'{"Name": "q", "Service": {"Service": "web"}}', b'{"Name": "r", "Service": {"Service": "web-shop"}}')
    made.take_queries((query, EVERY_WAY.dialects[0]) for text in texts for query in read_query(text))
    return made


@settings(max_examples=80, deadline=None)
@given(st.lists(few_members, min_size=1, max_size=4))
def test_incremental_equals_afresh_in_every_dialect(history: list[list[Member]]) -> None:
    """With all dialects and prepared queries too, and the collisions they know."""
    grown, fresh = with_queries(), with_queries()
    for revision, members in enumerate(history):
        grown.take_snapshot(copied(snapshot(*members, revision=revision)))

    fresh.take_snapshot(snapshot(*history[-1]))
    assert state(fresh) == state(grown)
    assert fresh.sources.claims.collisions() == grown.sources.claims.collisions()
    assert (fresh.sources.rivals, fresh.zone.points) == (grown.sources.rivals, grown.zone.points)


@settings(max_examples=100, deadline=None)
@given(few_members, few_members)
def test_touched_names_are_all_that_changed(before: list[Member], after: list[Member]) -> None:
    """Every name whose records or existence changed is reported, so that no cached answer outlives its truth."""
    made = names(*before)
    old = {name: (made.zone.exists(name), sorted(map(sorted, made.zone.sets(name).values()))) for name in _all(made)}

    touched = made.sources.take_snapshot(snapshot(*after, revision=2))

    known = set(old) | _all(made)
    new = {name: (made.zone.exists(name), sorted(map(sorted, made.zone.sets(name).values()))) for name in known}
    assert {name for name in known if old.get(name, (False, [])) != new[name]} <= touched


def _all(made: Names) -> set[bytes]:
    return set(made.zone.names) | set(made.zone.below)


def test_one_changed_service_costs_only_its_own_names() -> None:
    """With 50 services, a new instance of one touches names of that one and no other."""
    services = [member(n, name=f"web{n}") for n in range(50)]
    made = names(*services)

    touched = made.sources.take_snapshot(snapshot(*services, member(60, name="web7")))

    assert touched
    assert {True} == {b"web7" in name for name in touched}


def test_a_shared_record_stays_until_its_last_contributor_goes() -> None:
    """Two instances on one agent give one address; it goes with the second."""
    first, second = (member(n, ips=Ips(host=("10.0.0.1",))) for n in (0, 1))
    made = names(first, second)
    name = wire.parse_text("web.marathon.mesos")
    assert name is not None

    made.take_snapshot(snapshot(second, revision=2))
    one_left = dict(made.zone.sets(name)[wire.A])
    made.take_snapshot(snapshot(revision=3))

    assert ({b"\n\0\0\1": 1}, False) == (one_left, made.zone.exists(name))


def test_names_above_names_exist() -> None:
    """`_tcp.marathon.mesos` and `marathon.mesos` exist while something stands below, and no longer."""
    made = names(member())
    above = [b"\4_tcp\10marathon\5mesos\0", b"\10marathon\5mesos\0"]

    before = [made.zone.exists(name) for name in above]
    made.take_snapshot(snapshot(revision=2))

    assert ([True, True], [False, False], True) == (
        before,
        [made.zone.exists(n) for n in above],
        made.zone.exists(APEX),
    )


def test_records_that_come_back_leave_nothing_behind() -> None:
    """Adding and removing the same records empties the zone."""
    zone, records = Zone({APEX}), of_task(member(), Rules())

    zone.apply(added=records)
    zone.apply(removed=records)

    assert ({}, {}) == (zone.names, zone.below)


def test_a_framework_and_a_task_of_one_name_share_it() -> None:
    """The framework's address goes, the task's stays: they are counted apart."""
    made = names(member(task=member().task, name="web"))
    made.take_frameworks({"1": Framework(id="1", name="web.marathon", ip="10.0.0.1")})
    made.take_frameworks({})

    assert [Record(b"\3web\10marathon\5mesos\0", wire.A, b"\n\0\0\1")] == [
        r for r in made.zone.records() if r.owner == b"\3web\10marathon\5mesos\0"
    ]


def test_agents_come_and_go() -> None:
    """`slave.mesos` holds exactly the announced agents."""
    made = names()
    agents = {f"a{n}": Agent(id=f"a{n}", host=f"10.0.0.{n}", port=5051, boot_id="b") for n in (1, 2)}

    made.take_agents(agents)
    made.take_agents({"a2": agents["a2"]})

    assert {b"\n\0\0\2": 1} == made.zone.sets(b"\5slave\5mesos\0")[wire.A]


def test_a_snapshot_of_nothing_known_changes_nothing() -> None:
    """Revision -1 is what a reader gets before it has seen anything: no names are taken from it."""
    made = Names(Rules(), authority())

    made.take_snapshot(Snapshot(revision=-1, trust=Trust.STALE))

    assert made.answers.trust is None


def test_a_known_address_is_a_reverse_zone_of_its_own() -> None:
    """We answer for it while it has a name, and for none of its neighbours."""
    pod = member(ips=Ips(host=("10.0.0.1",), netinfo=("172.16.0.2",)))
    zone, records = Zone({APEX}), of_task(pod, Rules())
    zone.apply(added=records)
    owner = wire.reverse(bytes((172, 16, 0, 2)))
    with_it = (owner in zone.apexes, zone.exists(owner), zone.exists(wire.parent(owner)))
    touched = zone.apply(removed=records)

    assert (True, True, False) == with_it
    assert (True, {APEX}, {}, set()) == (owner in touched, zone.apexes, zone.below, zone.points)


def asking(number: int, ttl: str) -> Member:
    return member(number, discovery=Discovery(labels={"FAIRLEAD_DNS_TTL": ttl}))


def ttl_s(made: Names, name: str = "web.marathon.mesos") -> int:
    (found,) = {rr.ttl for rr in ask(made.answers, name).rr}
    return int(found)


def test_a_service_has_the_ttl_it_asks_for() -> None:
    """By a label, up to the longest that is allowed; what is no number is as none."""
    asked = [ttl_s(names(asking(0, text))) for text in ("9", "0", "600", "soon", "-1", "9" * 5000)]

    assert [9, 0, 25, 5, 5, 25] == asked


def test_a_set_has_one_ttl_the_least() -> None:
    """One name of several instances: every record has the least TTL of all (RFC 2181)."""
    assert [3, 5, 9] == [
        ttl_s(names(*members))
        for members in ([asking(0, "9"), asking(1, "3")], [asking(0, "9"), member(1)], [asking(0, "9"), asking(1, "9")])
    ]


def test_a_new_ttl_is_a_change() -> None:
    """The same address with another TTL: no prepared answer stays with the old one."""
    made = names(asking(0, "9"))
    before = ttl_s(made)
    made.take_snapshot(snapshot(asking(0, "4"), revision=2))

    assert (9, 4, 4) == (before, ttl_s(made), made.zone.largest_given_ttl_s)


def test_no_ttl_is_above_what_was_announced() -> None:
    """Kills wait for the largest TTL announced: until it is announced, nothing larger is given out."""
    made = names(asking(0, "20"))
    made.zone.longest_ttl_s = 7

    assert (7, 20) == (ttl_s(made), made.zone.largest_given_ttl_s)
