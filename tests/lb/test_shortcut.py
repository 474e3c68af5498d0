"""A change of endpoints alone is decided without a look at the rest, and decided as the whole would be."""

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from fairlead_discovery.records import Leaving, Member, Reason
from fairlead_discovery.snapshots import Snapshot, Trust
from fairlead_lb.decisions import change as changes
from fairlead_lb.decisions import routes, shortcut
from fairlead_lb.decisions.change import Nothing, Reload, RuntimeCommands, Steady
from fairlead_lb.decisions.commands import Command
from fairlead_lb.decisions.derived import route_from_labels
from fairlead_lb.decisions.routes import Rules, Wanted
from fairlead_lb.decisions.shortcut import Decided
from harness.balancer import member, route
from harness.haproxy_model import AROUND, Model

APPS = ("/a", "/b", "/c")
ROUTES = {
    "marathon:/a": route("/a", vhosts=("a.example",), service_port=10100),
    "marathon:/b": route("/b", vhosts=("b.example", "*.b.example"), sticky=True),
}
RULES = Rules()


def sight(tasks: dict[str, list[str]], dead: list[str], *, routed: bool = True) -> Snapshot:
    members: dict[str, dict[str, Member]] = {}
    for app, names in tasks.items():
        here = {f"m{n}": member(f"{app}{n}", 31000 + ord(n), app=app) for n in names}
        if here:
            members[f"marathon:{app}"] = here
    leaving = {t: Leaving(task=t, service="s", member="m", reason=Reason.DEAD, deadline_s=0) for t in dead}
    return Snapshot(revision=1, trust=Trust.LIVE, members=members, routes=ROUTES if routed else {}, leaving=leaving)


some = st.lists(st.sampled_from("tuvw"), unique=True, max_size=3)
sights = st.builds(sight, st.fixed_dictionaries(dict.fromkeys(APPS, some)), st.lists(st.sampled_from(["/at", "/bu"])))


def whole(snapshot: Snapshot, last: Wanted) -> Wanted:
    return routes.wanted(snapshot, last, RULES, route_from_labels)


@settings(max_examples=30, deadline=None)
@given(st.lists(sights, min_size=2, max_size=6))
def test_the_shortcut_says_what_the_whole_says(steps: list[Snapshot]):
    """Whatever members come and go, also of a service that nothing routes to; HAProxy's model comes to serve it."""
    model, wanted = Model(), whole(steps[0], Wanted())
    wanted = model.follow(wanted)
    last = Decided.whole(steps[0], RULES, wanted)
    for snapshot in steps[1:]:
        found = shortcut.moved(last, snapshot, RULES, route_from_labels)
        expected = whole(snapshot, last.wanted)
        assert found is not None
        wanted, names = found
        for field in ("revision", "backends", "maps", "refused", "dead", "parts", "rules"):
            assert getattr(expected, field) == getattr(wanted, field)
        assert {n for n, b in wanted.backends.items() if b is not last.wanted.backends[n]} == names
        assert wanted.maps is last.wanted.maps
        last = replace(last, snapshot=snapshot, wanted=wanted)
        model.follow(wanted)
        assert {n: {s.task for s in b.servers} for n, b in wanted.backends.items()} == {
            n: set(model.ready(n)) for n in wanted.backends
        }


def test_whatever_may_touch_more_is_decided_whole():
    """Another route, a route that is gone, a node that cannot be read, other rules, a first task of labels."""
    first = sight({"/a": ["t"]}, [])
    last = Decided.whole(first, RULES, whole(first, Wanted()))
    others = (
        replace(first, routes={**ROUTES, "marathon:/a": route("/a", vhosts=("other.example",))}),
        sight({"/a": ["t"]}, [], routed=False),
        replace(first, bad={"/fairlead/routes/x": "no"}),
    )

    assert [None, None, None] == [shortcut.moved(last, s, RULES, route_from_labels) for s in others]
    more = replace(first, members={**first.members, "marathon:/a": {}})
    assert shortcut.moved(last, more, RULES, route_from_labels) is not None
    assert (
        shortcut.moved(
            last, more, replace(RULES, spent=frozenset(b.key for b in last.wanted.backends.values())), route_from_labels
        )
        is None
    )


def told(found: Nothing | RuntimeCommands | Reload) -> tuple[set[Command], set[Command]]:
    """In no order: another backend's commands may come first."""
    assert not isinstance(found, Reload)
    return (set(), set()) if isinstance(found, Nothing) else (set(found.routing_commands), set(found.tidies))


@settings(max_examples=30, deadline=None)
@given(sights, sights)
def test_what_does_not_hang_on_servers_is_kept(first: Snapshot, second: Snapshot):
    """The same change with it and without it."""
    model, steady = Model(), Steady()
    wanted = model.follow(whole(first, Wanted()))
    last = Decided.whole(first, RULES, wanted)
    changes.change(model.serving, wanted, AROUND, {}, steady)
    found = shortcut.moved(last, second, RULES, route_from_labels)
    assert found is not None
    plans = changes.plans(model.serving, found[0], found[1])
    all_plans = changes.plans(model.serving, found[0])

    kept = changes.change(model.serving, found[0], AROUND, plans, steady)
    assert told(changes.change(model.serving, found[0], AROUND, all_plans)) == told(kept)
    assert changes.unsettled(plans) == changes.unsettled(all_plans)
