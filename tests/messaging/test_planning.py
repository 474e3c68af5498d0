"""From what is declared and what stands there to steps: by table and as properties, no broker needed."""

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead_messaging.decisions.declared import Topology, read
from fairlead_messaging.decisions.gates import parse_version
from fairlead_messaging.decisions.planned import Actual, Delete, Plan, Put, rounds
from fairlead_messaging.decisions.planning import plan, standing
from fairlead_messaging.decisions.policies import target_of, winner
from fairlead_messaging.decisions.things import ORDER, Key, Kind, Thing, same
from fairlead_messaging.decisions.wanted import Place, Wanted, topology

PLACES = {n: Place(management=f"http://{n}", amqp=(f"amqp://{n}",), user="u", password="p/w") for n in ("east", "west")}
BROKERS = {n: {"management": f"http://{n}", "amqp": [f"amqp://{n}"]} for n in ("east", "west")}
ROOT = Thing(kind=Kind.VHOST, vhost="", name="/")
FEDERATED = {
    "exchanges": [{"name": "orders", "type": "topic"}],
    "queues": [{"name": "jobs"}],
    "federated_exchanges": [{"name": "orders", "from": ["east"], "to": ["west"]}],
    "federated_queues": [{"name": "jobs", "from": ["east"], "to": ["west"]}],
}
NEWEST = parse_version("3.13.7")


def declared(**tables: object) -> Topology:
    return read({"brokers": BROKERS, **tables}, where="t")


def wanted(broker: str = "west", places: Mapping[str, Place] = PLACES, **tables: object) -> Wanted:
    return topology(declared(**tables), places)[broker]


def actual(*things: Thing, made: frozenset[Key] = frozenset(), version: str = "3.10.8", **more: object) -> Actual:
    return Actual(
        things={t.key: t for t in (ROOT, *things)},
        made=made,
        version=parse_version(version),
        version_text=version,
        **more,  # type: ignore[arg-type]  # as given
    )


def done(before: Actual, planned: Plan) -> Actual:
    """What stands there once the plan was carried out."""
    things = dict(before.things)
    for step in planned.steps:
        if isinstance(step, Put):
            things[step.thing.key] = step.thing
        else:
            del things[step.thing.key]
    return Actual(things=things, made=planned.made, version=before.version, version_text=before.version_text)


def policy(name: str, pattern: str, priority: int = 0, apply_to: str = "all", **definition: object) -> Thing:
    body = {
        "pattern": pattern,
        "priority": priority,
        "apply-to": apply_to,
        "definition": definition or {"max-length": 1},
    }
    return Thing(kind=Kind.POLICY, vhost="/", name=name, body=body)


def queue(name: str, **arguments: object) -> Thing:
    body = {"durable": True, "auto_delete": False, "arguments": arguments}
    return Thing(kind=Kind.QUEUE, vhost="/", name=name, body=body)


def made_policy(planned: Plan, name: str = "fairlead.default.queue.jobs") -> Thing:
    return next(s.thing for s in planned.steps if s.thing.name == name and s.thing.kind is Kind.POLICY)


def test_an_empty_broker_gets_everything_in_an_order_that_works():
    """Queues before what binds and federates them; the second plan is empty."""
    first = plan(wanted(**FEDERATED), actual())

    kinds = [ORDER[step.thing.kind] for step in first.steps]
    assert sorted(kinds) == kinds
    assert () == plan(wanted(**FEDERATED), done(actual(), first)).steps


def test_what_links_need_comes_first_on_all_brokers():
    """The exchange stands on the upstream before a link looks for it."""
    needed, links = rounds(plan(wanted(**FEDERATED), actual()).steps)

    assert {Kind.EXCHANGE, Kind.QUEUE} == {step.thing.kind for step in needed}
    assert {Kind.UPSTREAM, Kind.UPSTREAM_SET, Kind.POLICY} == {step.thing.kind for step in links}


def test_only_the_downstream_gets_federation():
    """Upstreams stand where messages are drawn to."""
    assert {Kind.EXCHANGE, Kind.QUEUE} == {s.thing.kind for s in plan(wanted("east", **FEDERATED), actual()).steps}


def test_credentials_go_into_uris_escaped_and_out_of_sight():
    """A password with a slash is one; no plan shows it."""
    planned = plan(wanted(**FEDERATED), actual())
    upstream = next(step for step in planned.steps if step.thing.kind is Kind.UPSTREAM)
    changed = Put(
        thing=upstream.thing, before=Thing(kind=Kind.UPSTREAM, vhost="/", name="x", body={"uri": ["amqp://u:q@east"]})
    )

    assert {"uri": ["amqp://u:p%2Fw@east/%2F"]} == upstream.thing.body
    assert "p%2Fw" not in changed.why


def test_a_broker_that_hides_credentials_is_not_written_for_ever():
    """Newer ones answer with bare URIs: they count as equal."""
    one = Thing(kind=Kind.UPSTREAM, vhost="/", name="x", body={"uri": ["amqp://u:p@east/%2F"]})
    bare = Thing(kind=Kind.UPSTREAM, vhost="/", name="x", body={"uri": "amqp://east/%2F"})
    other = Thing(kind=Kind.UPSTREAM, vhost="/", name="x", body={"uri": "amqp://north/%2F"})

    assert (True, True, False) == (same(one, bare), same(bare, one), same(one, other))


def test_an_upstream_whose_broker_is_not_found_stays():
    """A broker that is away for a minute must not end its federation."""
    before = done(actual(), plan(wanted(**FEDERATED), actual()))
    lost = wanted(places={**PLACES, "east": Place(why="nowhere")}, **FEDERATED)

    assert () == plan(lost, before, prune=True).steps
    assert any("stays as it is" in note for note in plan(lost, before).notes)


def test_federation_joins_a_declared_policy():
    """Its keys, and a priority above it."""
    limit = {"name": "limit", "pattern": "^j", "priority": 3, "apply_to": "queues", "definition": {"max-length": 9}}
    body = made_policy(plan(wanted(**FEDERATED, policies=[limit]), actual())).body

    assert {"max-length": 9, "federation-upstream-set": "fairlead.default.queue.jobs"} == body["definition"]
    assert (4, "^jobs$", "queues") == (body["priority"], body["pattern"], body["apply-to"])


def test_federation_joins_a_foreign_policy_and_follows_it():
    """Somebody changes their limit later: ours changes with it."""
    first = actual(policy("theirs", "jobs", 5, **{"max-length": 1}))
    stands = done(first, plan(wanted(**FEDERATED), first))
    later = {**stands.things, (Kind.POLICY, "/", "theirs"): policy("theirs", "jobs", 8, **{"max-length": 2})}
    again = plan(wanted(**FEDERATED), actual(*later.values(), made=stands.made))

    assert ["fairlead.default.queue.jobs"] == [step.thing.name for step in again.steps]
    assert (9, 2) == (made_policy(again).body["priority"], made_policy(again).body["definition"]["max-length"])


@given(
    policies=st.lists(
        st.builds(
            policy,
            st.sampled_from("abcd"),
            st.sampled_from(["jobs", "^o", "", "x", "("]),
            st.integers(0, 2),
            st.sampled_from(["all", "queues", "exchanges"]),
            **{"max-length": st.integers(0, 2)},
        ),
        max_size=4,
        unique_by=lambda p: p.name,
    )
)
def test_whatever_policies_stand_there_ours_wins_and_keeps_their_keys(policies: list[Thing]):
    """The policy that applies to a federated object is ours; but for federation it says what would apply without it."""
    before = actual(*policies)
    after = done(before, plan(wanted(**FEDERATED), before))
    for key in ((Kind.QUEUE, "/", "jobs"), (Kind.EXCHANGE, "/", "orders")):
        target = target_of(after.things[key])
        now = winner([t for k, t in after.things.items() if k[0] is Kind.POLICY], target)
        without = winner(policies, target)
        assert now is not None
        assert now.name.startswith("fairlead.default.")
        rest = {k: v for k, v in now.body["definition"].items() if k != "federation-upstream-set"}
        assert (without.body["definition"] if without is not None else {}) == rest


NAMES = st.sampled_from(["a", "b", "jobs"])


@given(
    there=st.lists(NAMES, unique=True),
    made=st.sets(NAMES),
    wishes=st.lists(NAMES, unique=True),
    prune=st.booleans(),
)
def test_plans_are_idempotent_and_delete_only_what_was_made(
    there: list[str], made: set[str], wishes: list[str], prune: bool
):
    """Done once, nothing is left to do; nobody else's queue is ever deleted, and none at all without prune."""
    before = actual(*map(queue, there), made=frozenset((Kind.QUEUE, "/", name) for name in made))
    wish = wanted(queues=[{"name": name} for name in wishes])
    planned = plan(wish, before, prune=prune)
    deleted = {step.thing.name for step in planned.steps if isinstance(step, Delete)}

    assert ((set(there) & made) - set(wishes) if prune else set()) == deleted
    assert () == plan(wish, done(before, planned), prune=prune).steps
    assert set(wishes) - set(there) <= {key[2] for key in planned.made}


@given(count=st.integers(0, 20))
def test_a_plan_that_is_cut_short_is_finished_by_the_next(count: int):
    """The ledger is written before anything is made, so that all of it can be deleted again, and nothing else."""
    foreign = queue("foreign")
    whole = plan(wanted(**FEDERATED), actual(foreign))
    cut = Plan(broker="west", steps=whole.steps[:count], made=whole.made)
    after = done(actual(foreign), cut)
    finished = done(after, plan(wanted(**FEDERATED), after))
    emptied = done(finished, plan(wanted(), finished, prune=True))

    assert done(actual(foreign), whole).things == finished.things
    assert {ROOT.key, foreign.key} == emptied.things.keys()


OLD = frozenset((Kind.QUEUE, "/", name) for name in ("a", "b", "c", "d", "e"))


@pytest.mark.parametrize(
    ("before", "said", "forcible"),
    [
        (actual(queue("jobs", **{"x-max-length": 3})), "x-max-length: 3 -> nothing", False),
        (actual(queue("old"), made=frozenset({(Kind.QUEUE, "/", "old")}), messages={(Kind.QUEUE, "/", "old"): 7}), "holds 7 messages", True),
        (actual(queue("old"), made=frozenset({(Kind.QUEUE, "/", "old")}), consumers={(Kind.QUEUE, "/", "old"): 1}), "has 1 consumers", True),
        (actual(*(queue(k[2]) for k in OLD), made=OLD), "deletes 5 of the 5 things", True),
        (actual(policy("limit", "other")), "not made by this topology", True),
        (actual(policy("theirs", "jobs", **{"federation-upstream": "x"})), "is federated by policy theirs already", True),
        (actual(federation=False), "rabbitmq-plugins enable", False),
        (Actual(things={}), "there is no virtual host /", False),
        (actual(Thing(kind=Kind.CLUSTER_NAME, vhost="", name="cluster", body={"name": "x"}), links=2), "drop what they buffer", True),
    ],
)  # fmt: skip
def test_what_stands_in_the_way_is_told(before: Actual, said: str, forcible: bool):
    """What cannot be done, apart from what a person may force."""
    limit = {"name": "limit", "pattern": "^j", "definition": {"max-length": 9}}
    named = {"brokers": {**BROKERS, "west": {**BROKERS["west"], "cluster_name": "west"}}}
    planned = plan(
        topology(read({**named, **FEDERATED, "policies": [limit]}, where="t"), PLACES)["west"], before, prune=True
    )

    assert [forcible] == list({o.forcible for o in planned.obstacles if said in str(o)})


def test_two_topologies_do_not_outbid_each_other():
    """Both federate one queue: whoever comes second is told, and its daemon leaves the first one's policy alone."""
    mine = wanted(**FEDERATED)
    theirs = topology(declared(name="other", **FEDERATED), PLACES)["west"]
    stands = done(actual(), plan(mine, actual()))
    second = plan(theirs, Actual(things=stands.things))
    policies = [step for step in second.harmless() if step.thing.kind is Kind.POLICY]

    assert ([], 2) == (policies, len(second.unsafe))
    assert () == plan(mine, done(stands, plan(mine, stands))).steps


def test_a_daemon_does_only_what_nobody_needs_to_look_at():
    """No deletion, nothing that changes what others made."""
    before = actual(queue("old"), policy("limit", "x"), made=frozenset({(Kind.QUEUE, "/", "old")}))
    limit = {"name": "limit", "pattern": "^j", "definition": {"max-length": 9}}
    planned = plan(wanted(queues=[{"name": "jobs"}], policies=[limit]), before, prune=True)

    assert ["jobs"] == [step.thing.name for step in planned.harmless()]


@pytest.mark.parametrize(
    ("version", "tables", "refused"),
    [
        ("3.10.8", {"policies": [{"name": "p", "pattern": "", "apply_to": "quorum_queues", "definition": {"max-length": 1}}]}, True),
        ("3.12.0", {"policies": [{"name": "p", "pattern": "", "apply_to": "quorum_queues", "definition": {"max-length": 1}}]}, False),
        ("3.13.7", {"policies": [{"name": "p", "pattern": "", "definition": {"ha-mode": "all"}}]}, False),
        ("4.0.1", {"policies": [{"name": "p", "pattern": "", "definition": {"ha-mode": "all"}}]}, True),
        ("3.10.8", {"policies": [{"name": "p", "pattern": "", "definition": {"shards-per-node": 3}}]}, True),
        ("3.7.0", {"queues": [{"name": "q", "type": "quorum"}]}, True),
        ("3.10.8", {"queues": [{"name": "q", "type": "stream"}]}, False),
    ],
)  # fmt: skip
def test_a_version_that_lacks_it_is_told_before_the_broker_refuses(version: str, tables: dict, refused: bool):
    """With the version it needs and the one that runs."""
    planned = plan(wanted(**tables), actual(version=version))

    assert refused == any(version in str(o) for o in planned.blocked)


def test_bindings_need_both_ends():
    """Declared, or there already; the broker's own exchanges are."""
    known = Thing(kind=Kind.EXCHANGE, vhost="/", name="amq.topic", body={})
    good = wanted(queues=[{"name": "q"}], bindings=[{"from": "amq.topic", "to": "q"}])
    bad = wanted(queues=[{"name": "q"}], bindings=[{"from": "nope", "to": "q"}])

    assert () == plan(good, actual(known)).blocked
    assert ["there is no exchange nope in virtual host /"] == [o.why for o in plan(bad, actual()).blocked]


def test_standing_has_everything_of_the_topology():
    """What the watchdog expects links from."""
    assert {"orders", "jobs"} < {key[2] for key in standing(wanted(**FEDERATED), actual())}
