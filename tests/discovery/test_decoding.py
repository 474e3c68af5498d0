"""One change costs no look at the rest: what is worked out step by step is what a look at everything gives."""

from collections.abc import Mapping, Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from fairlead_discovery import paths
from fairlead_discovery.decisions.belief import Belief, Now
from fairlead_discovery.decisions.decoding import Contents, Decoder, Hider, leaving_members, unleased
from fairlead_discovery.decisions.delta import Delta, differing
from fairlead_discovery.records import Leaving, Reason, decode, encode
from fairlead_discovery.registry import Folder, Sight

from .records_of import member

WEB, DB = "marathon:/web", "etl:db"
AGENTS = ("a1", "a2")
DATA = (*(encode(member(0, agent=agent)) for agent in AGENTS), b"{")
NODES = st.tuples(st.sampled_from(("t1", "t2", "t_3")), st.sampled_from("ab"))
FOLDERS = (
    *(paths.endpoint_folder(service) for service in (WEB, DB)),
    f"{paths.PORTLESS}/{paths.escape(WEB)}",
    paths.LEAVING,
    paths.ROUTES,
)


def leaving(task: str, service: str) -> bytes:
    return encode(Leaving(task=task, service=service, member="", reason=Reason.KILL, deadline_s=0.0))


def _node_name(folder: str, task: str, digest: str) -> str:
    return task if folder in {paths.LEAVING, paths.ROUTES} else f"member_{task}_{digest * 8}"


@st.composite
def changed_folder(draw: st.DrawFn) -> tuple[str, Folder]:
    folder = draw(st.sampled_from(FOLDERS))
    data = st.sampled_from((*DATA, *(leaving(task, WEB) for task in ("t1", "t2"))))
    nodes = draw(st.dictionaries(NODES, data, max_size=4))
    return folder, {_node_name(folder, *key): value for key, value in nodes.items()}


def sights(steps: Sequence[tuple[str, Folder]]) -> list[tuple[Mapping[str, Folder], Delta]]:
    """Each step changes one folder."""
    out: list[tuple[Mapping[str, Folder], Delta]] = []
    folders: Mapping[str, Folder] = {}
    for folder, nodes in steps:
        after = {**folders, folder: nodes} if nodes else {k: v for k, v in folders.items() if k != folder}
        out.append((after, Delta(folders, frozenset({folder}))))
        folders = after
    return out


def plain(contents: Contents) -> tuple[object, ...]:
    return (
        contents.members,
        contents.portless,
        contents.leaving,
        contents.routes,
        contents.bad,
        {service: set(tasks) for service, tasks in contents.tasks.items()},
        contents.count,
    )


def agents(contents: Contents, folders: Mapping[str, Folder]) -> bool:
    """Each task's agent is that of one of its nodes: it may have two for a moment, but only one agent."""
    return all(
        agent
        in {
            members[name].task.agent if name in (members := contents.members.get(service, {})) else ""
            for name in folders[paths.endpoint_folder(service)]
            if paths.task_of(name) == task
        }
        for service, tasks in contents.tasks.items()
        for task, agent in tasks.items()
    )


@settings(max_examples=40)  # of small sights, changed step by step
@given(st.lists(st.tuples(changed_folder(), st.booleans()), max_size=8))
def test_step_by_step_is_as_good_as_at_once(steps: list[tuple[tuple[str, Folder], bool]]):
    """Also when some steps were missed; and what the contents say has changed is all that has."""
    decoder, last = Decoder(), Contents()
    for (folders, delta), (_, seen) in zip(sights([step for step, _ in steps]), steps, strict=True):
        if not seen:
            continue
        contents = decoder.contents(folders, delta)

        assert plain(Decoder().contents(folders)) == plain(contents)
        assert agents(contents, folders)
        assert contents.count == sum(map(len, contents.tasks.values()))
        told = differing(last.members, contents.members, contents.delta)
        assert {s for s in (WEB, DB) if last.members.get(s) is not contents.members.get(s)} <= set(told)
        last = contents


@settings(max_examples=40)  # of small sights, changed step by step
@given(st.lists(st.tuples(changed_folder(), st.sampled_from((None, *AGENTS, "none"))), max_size=8))
def test_hiding_step_by_step_is_as_good_as_at_once(steps: list[tuple[tuple[str, Folder], str | None]]):
    """What is leaving, and what sits on agents that are not announced, whenever that begins and ends."""
    decoder, hider = Decoder(), Hider()
    before: Mapping[str, object] = {}
    for (folders, delta), (_, agent) in zip(sights([step for step, _ in steps]), steps, strict=True):
        contents = decoder.contents(folders, delta)
        alive = None if agent is None else frozenset({agent})
        shown, told = hider.visible(contents, alive)

        gone = leaving_members(contents)
        expected = {}
        for service, members in contents.members.items():
            hidden = gone.get(service, frozenset())
            hidden |= unleased(members, hidden, alive) if alive is not None else frozenset()
            expected[service] = {name: one for name, one in members.items() if name not in hidden}
        assert {service: members for service, members in expected.items() if members} == shown
        changed = {s for s in (WEB, DB) if before.get(s) is not shown.get(s)}
        assert changed <= set(differing(before, shown, told))
        before = shown


class ThoroughBelief(Belief):
    """Looks at all services, not only at those that lost a task, and however few were lost."""

    def _losses_since(self, _good: object) -> None:
        return None

    def _lost_since(self, step: int) -> tuple[str, ...]:
        return tuple({service for good in (self.good, *(g for _, g in self._anchors)) for service in _services(good)})


def _services(good: object) -> tuple[str, ...]:
    return tuple(good.reading.tasks) if good is not None else ()  # type: ignore[attr-defined]  # a Good


@settings(max_examples=40)  # of small sights, changed step by step
@given(st.lists(st.tuples(changed_folder(), st.sampled_from((0.1, 2.0, 10.0))), max_size=10))
def test_doubt_needs_no_look_at_services_that_lost_nothing(steps: list[tuple[tuple[str, Folder], float]]):
    """The same doubts at the same steps as from a look at all of them."""
    quick, thorough = Belief(), ThoroughBelief()
    steady_s = 0.0
    for revision, ((folders, delta), (_, pause_s)) in enumerate(zip(sights([s for s, _ in steps]), steps, strict=True)):
        steady_s += pause_s
        sight = Sight(in_sight=True, cluster="c", revision=revision, folders=folders, delta=delta)
        for belief in (quick, thorough):
            belief.see(sight, now=Now(steady_s=steady_s, wall_s=steady_s))

        assert thorough.doubt == quick.doubt


def test_what_many_have_in_common_is_kept_once():
    """Hosts, agents, frameworks, labels: 100,000 endpoints have few of them."""
    folder = paths.endpoint_folder(WEB)
    nodes = {f"member_t{n}_{n:08d}": encode(member(n)) for n in range(2)}
    one, other = Decoder().contents({folder: nodes}).members[WEB].values()

    assert one == decode(type(one), nodes["member_t0_00000000"], place="")
    assert one.serviceEndpoint.host is other.serviceEndpoint.host
    assert one.task.framework_id is other.task.framework_id
    assert one.discovery is other.discovery
    assert one.additionalEndpoints is other.additionalEndpoints
