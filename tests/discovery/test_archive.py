"""A registry as a file; what makes one like another; what is not as it should be."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead_daemon.errors import Refused
from fairlead_discovery import paths
from fairlead_discovery.decisions.archive import CHUNK_OPS, Image, from_lines, plan, to_lines
from fairlead_discovery.decisions.checking import OVERDUE_S, problems
from fairlead_discovery.decisions.ops import Drop, Set
from fairlead_discovery.records import Cluster, Leaving, Reason, Route, encode
from fairlead_discovery.registry import Create, Delete

from .records_of import member, path

NOW_S = 1_000_000.0


def image(
    nodes: dict[str, bytes], *, uuid: str = "u", revision: int = 5, epoch: int = 7, passing: tuple[str, ...] = ()
):
    return Image(cluster=Cluster(uuid=uuid), revision=revision, epoch=epoch, nodes=nodes, passing=frozenset(passing))


def endpoints(count: int, *, service: str = "s:a") -> dict[str, bytes]:
    return {paths.member(service, f"member_{service}-{n}_00000000"): b"{}" for n in range(count)}


paths_drawn = st.text(st.sampled_from("ab%:é "), min_size=1, max_size=3).map(lambda t: f"/fairlead/{paths.escape(t)}")


@given(st.dictionaries(paths_drawn, st.binary(max_size=4), max_size=4), st.integers(0, 9))
def test_a_file_holds_every_byte(nodes: dict[str, bytes], revision: int):
    """Also what is no text."""
    written = image(nodes, revision=revision)
    read = from_lines(to_lines(written, taken_s=1.0))

    assert (written.nodes, written.revision, written.epoch) == (read.nodes, read.revision, read.epoch)
    assert written.cluster.uuid == read.cluster.uuid


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        (lambda lines: lines[:-1], "not whole: 1 nodes, expected 2"),
        (lambda lines: [], "expected a header"),
        (lambda lines: lines[1:], "line 1"),
        (lambda lines: [lines[0], b"{", lines[2]], "line 2"),
        (lambda lines: [lines[0].replace(b'registry":1', b'registry":2'), *lines[1:]], "format 2"),
        (lambda lines: [lines[0], b'{"path":"/a//b"}', lines[2]], "line 2: '/a//b' is no path"),
        (lambda lines: [lines[0], b'{"path":"/a","base64":"?"}', lines[2]], "line 2"),
    ],
)
def test_a_damaged_file_is_refused_by_its_line(damage, why: str):
    """Nothing of it is used."""
    lines = list(to_lines(image({"/fairlead/a": b"1", "/fairlead/b": b"2"}), taken_s=1.0))

    with pytest.raises(Refused, match=why):
        from_lines(damage(lines))


nodes_drawn = st.dictionaries(
    st.sampled_from(["/fairlead/a", "/fairlead/a/b", "/fairlead/c"]), st.sampled_from([b"1", b"2"])
)


@given(nodes_drawn, nodes_drawn)
def test_a_plan_done_makes_them_alike(present: dict[str, bytes], wanted: dict[str, bytes]):
    """Whatever was there."""
    state = dict(present)
    for chunk in plan(image(present), image(wanted)).chunks():
        for op in chunk:
            match op:
                case Set(path=path, data=data):
                    state[path] = data
                case Drop(path=path):
                    del state[path]

    assert wanted == state


def test_revision_and_epochs_never_go_back():
    """In one cluster; another one brings its own revision, but leaderships stay above both."""
    again = plan(image({}, revision=9, epoch=3), image({}, revision=5, epoch=8))
    other = plan(image({}, uuid="v", revision=9, epoch=8), image({}, revision=5, epoch=3))

    assert (10, 9) == (again.revision, again.cluster.epoch_base)
    assert (5, 9, "u") == (other.revision, other.cluster.epoch_base, other.cluster.uuid)


@pytest.mark.parametrize(
    ("present", "wanted", "danger"),
    [
        (image(endpoints(1)), image({}), "empty a registry with 1 endpoints"),
        (image(endpoints(5)), image(endpoints(2)), "remove 3 of 5"),
        (image(endpoints(5)), image(endpoints(3)), ""),
        (image({}), image(endpoints(3)), ""),
        (image({}, uuid="v"), image(endpoints(3)), ""),
        (image(endpoints(1), uuid="v"), image(endpoints(3)), "another cluster"),
        (image({"/fairlead/services/apps/a": b"1", "/fairlead/services/apps/b": b"1"}), image({}), "all of 2 apps"),
        (image({"/fairlead/services/apps/a/1": b"1"}), image({"/fairlead/services/apps/b/1": b"1"}), ""),
        (image({"/fairlead/rings/orders": b"1"}), image(endpoints(3)), "all of 1 rings"),
        (image({"/fairlead/routes/a": b"1"}), image({}), "all of 1 routes"),
    ],
)
def test_what_nobody_should_do_unasked_is_named(present: Image, wanted: Image, danger: str):
    """A smaller change, or a registry that has nothing to lose, is no danger."""
    found = "; ".join(plan(present, wanted).dangers)

    assert (bool(danger), True) == (bool(found), danger in found)


def test_what_ends_with_a_session_is_left_alone():
    """Whoever announced it holds it."""
    todo = plan(image({}, passing=("/fairlead/agents/a",)), image({"/fairlead/agents/a": b"old"}))

    assert {} == todo.created


def test_chunks_stay_small():
    """So that others' transactions come in between."""
    sizes = [len(chunk) for chunk in plan(image({}), image(endpoints(CHUNK_OPS * 2 + 1))).chunks()]

    assert [CHUNK_OPS, CHUNK_OPS, 1] == sizes


def member_of(number: int, *, service: str = "s:a", agent: str = "a1") -> tuple[str, bytes]:
    return path(number, service=service, agent=agent), encode(member(number, agent=agent))


MEMBER = member_of(1)
"""(path, data) of a member as it should be; its agent is a1."""


def leaving(task: str, *, deadline_s: float) -> bytes:
    return encode(Leaving(task=task, service="s:a", member="m", reason=Reason.KILL, deadline_s=deadline_s))


AGENT = f"{paths.AGENTS}/a1"
WRONG = paths.member("s:a", "member_t1_ffffffff")
TWICE = member_of(1, service="s:b")


@pytest.mark.parametrize(
    ("nodes", "path", "what", "repair"),
    [
        ({WRONG: MEMBER[1]}, WRONG, "would be called", (Create(*MEMBER), Delete(WRONG, missing_ok=True))),
        ({WRONG: b"{"}, WRONG, "truncated", (Delete(WRONG, missing_ok=True),)),
        (dict([MEMBER, TWICE]), TWICE[0], "published twice", ()),
        (
            {paths.leaving("t9"): leaving("t9", deadline_s=NOW_S - OVERDUE_S - 1)},
            paths.leaving("t9"),
            "to be gone 601 s ago",
            (Delete(paths.leaving("t9"), missing_ok=True),),
        ),
        (
            {paths.leaving("t1"): leaving("t1", deadline_s=NOW_S), MEMBER[0]: MEMBER[1]},
            MEMBER[0],
            "published, and leaving",
            (Delete(MEMBER[0], missing_ok=True),),
        ),
        (
            {paths.route("s:gone"): encode(Route(service="s:gone", app="/gone"))},
            paths.route("s:gone"),
            "no service s:gone",
            (Delete(paths.route("s:gone"), missing_ok=True),),
        ),
        ({paths.route("s:x"): b"{"}, paths.route("s:x"), "truncated", ()),
        (
            {f"{paths.PROGRESS}/b": b'{"applied_revision":1}'},
            f"{paths.PROGRESS}/b",
            "no registered balancer",
            (Delete(f"{paths.PROGRESS}/b", missing_ok=True),),
        ),
        ({f"{paths.BALANCERS}/b": b"{"}, f"{paths.BALANCERS}/b", "no JSON", ()),
    ],
)
def test_each_inconsistency_is_named_with_its_remedy(nodes: dict[str, bytes], path: str, what: str, repair):
    """One at a time."""
    found = {p.path: p for p in problems(image(nodes, passing=(AGENT,)), now_s=NOW_S) if what in p.what}

    assert (True, repair) == (path in found, tuple(found[path].repair))


def test_a_sound_registry_has_no_problems():
    """Members as their names say, routes of services and of apps, records in time."""
    nodes = {
        MEMBER[0]: MEMBER[1],
        paths.route("s:a"): encode(Route(service="s:a")),
        paths.route("s:idle"): encode(Route(service="s:idle", app="/idle")),
        paths.below(paths.APPS, "/idle@2026-01-01"): b"packed",
        paths.leaving("t5"): leaving("t5", deadline_s=NOW_S - 5),
    }

    assert [] == problems(image(nodes, passing=(AGENT,)), now_s=NOW_S)


def test_an_orphan_goes_unless_it_is_the_last():
    """A service is never repaired to zero: its agents may only be out of sight."""
    other = member_of(2, agent="gone")
    one = problems(image(dict([MEMBER, other]), passing=(AGENT,)), now_s=NOW_S)
    all_gone = problems(image(dict([MEMBER, other])), now_s=NOW_S)

    assert [(other[0], (Delete(other[0], missing_ok=True),))] == [(p.path, tuple(p.repair)) for p in one]
    assert [(), ()] == [tuple(p.repair) for p in all_gone]
