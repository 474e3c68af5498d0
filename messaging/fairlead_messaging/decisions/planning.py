"""From what shall stand and what stands on a broker to what is to be done, and what stands in the way."""

from collections.abc import Iterable, Iterator

from fairlead_messaging.decisions.gates import shut
from fairlead_messaging.decisions.obstacles import contested, impossible, unsafe_change, unsafe_deletes
from fairlead_messaging.decisions.planned import Actual, Delete, Obstacle, Plan, Put
from fairlead_messaging.decisions.policies import Target, merged, rivals, target_of, winner
from fairlead_messaging.decisions.things import ORDER, Key, Kind, Thing, Things, same
from fairlead_messaging.decisions.wanted import Federation, Wanted, prefix

QUORUM_FEDERATION = (3, 12, 4)
"""From here on they do not get stuck (rabbitmq-server 9151)."""


def plan(wanted: Wanted, actual: Actual, *, prune: bool = False) -> Plan:
    """What makes `actual` what is `wanted`. Deletes only what this topology made, and only with `prune`."""
    ours = standing(wanted, actual, prune=prune)
    puts = _puts(ours, actual)
    leftover = _leftover(wanted, ours, actual)
    deletes = [Delete(thing=t) for t in reversed(_in_order(leftover))] if prune else []
    stuck = [
        Obstacle(thing=put.thing, why=why, forcible=False) for put in puts for why in impossible(put, ours, actual)
    ]
    blocked = {o.thing.key for o in stuck if o.thing is not None}
    doable = [put for put in puts if put.thing.key not in blocked]
    doubts = [o for put in doable for o in unsafe_change(put, actual)]
    gone = {delete.thing.key for delete in deletes}
    done = {put.thing.key for put in doable if put.thing.kind is not Kind.CLUSTER_NAME}
    return Plan(
        broker=wanted.broker,
        steps=(*doable, *deletes),
        obstacles=(*stuck, *doubts, *contested(wanted, doable, actual), *unsafe_deletes(deletes, actual)),
        notes=tuple(_notes(wanted, ours, actual, forgotten=0 if prune else len(leftover))),
        made=frozenset((actual.made & actual.things.keys() | done) - gone),
    )


def standing(wanted: Wanted, actual: Actual, *, prune: bool = False) -> dict[Key, Thing]:
    """Everything of this topology on this broker, the policies made for federation among it."""
    return {**wanted.things, **_federation_policies(wanted, actual, prune=prune)}


def _puts(ours: Things, actual: Actual) -> list[Put]:
    there = actual.things
    wishes = (Put(thing=thing, before=there.get(thing.key)) for thing in _in_order(ours.values()))
    return [put for put in wishes if put.before is None or not same(put.thing, put.before)]


def _leftover(wanted: Wanted, ours: Things, actual: Actual) -> list[Thing]:
    return [actual.things[key] for key in actual.made & actual.things.keys() if key not in ours.keys() | wanted.kept]


def _in_order(things: Iterable[Thing]) -> list[Thing]:
    return sorted(things, key=lambda thing: (ORDER[thing.kind], thing.vhost, thing.name))


# --- one policy an object


def _federation_policies(wanted: Wanted, actual: Actual, *, prune: bool) -> dict[Key, Thing]:
    """For each federated object the one policy that wins it, with the keys of the policy that would."""
    rest = _other_policies(wanted, actual, prune=prune)
    made = [merged(f, winner(rest, _target(wanted, f))) for f in wanted.federations]
    return {policy.key: policy for policy in made}


def _other_policies(wanted: Wanted, actual: Actual, *, prune: bool) -> list[Thing]:
    """Every policy that will stand on the broker, except those made for federation."""
    own = prefix(wanted.topology)
    there = [t for key, t in actual.things.items() if key[0] is Kind.POLICY and not (prune and key in actual.made)]
    declared = [t for key, t in wanted.things.items() if key[0] is Kind.POLICY]
    return list({t.key: t for t in (*there, *declared) if not t.name.startswith(own)}.values())


def _target(wanted: Wanted, federation: Federation) -> Target:
    return target_of(wanted.things[federation.kind, federation.vhost, federation.name])


# --- what a person should know


def _notes(wanted: Wanted, ours: Things, actual: Actual, *, forgotten: int) -> Iterator[str]:
    if forgotten:
        yield f"{forgotten} things made earlier are no longer declared and stay; --prune deletes them"
    for kind, vhost, name in sorted(wanted.kept):
        yield f"{kind} {name} in {vhost} stays as it is: its broker is not found in the registry now"
    for thing in ours.values():
        yield from (f"{thing}: {gate.why}" for gate in shut(thing, actual.version) if not gate.refuses)
    rest = _other_policies(wanted, actual, prune=False)
    for federation in wanted.federations:
        target = _target(wanted, federation)
        if equal := rivals(rest, target):
            yield f"{target.kind} {target.name}: policies {', '.join(equal)} have one priority; {equal[0]}'s keys are taken"
        if target.queue_type == "quorum" and actual.version < QUORUM_FEDERATION:
            yield f"queue {target.name}: federated quorum queues may get stuck before RabbitMQ 3.12.4; a classic one does not"
