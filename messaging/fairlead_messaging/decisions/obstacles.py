"""What cannot be done, and what is not done without a person's --force."""

from collections.abc import Iterator, Sequence

from fairlead_messaging.decisions.gates import shut
from fairlead_messaging.decisions.planned import Actual, Delete, Obstacle, Put
from fairlead_messaging.decisions.policies import federates, matches, target_of
from fairlead_messaging.decisions.things import Kind, Thing, Things, binding_parts, differences
from fairlead_messaging.decisions.wanted import Wanted, prefix

FEW_DELETES = 3
"""So many deletes are never too many."""
MOST_DELETED = 0.5
"""Share of what a topology made that one plan deletes without --force."""
IMMUTABLE = frozenset({Kind.EXCHANGE, Kind.QUEUE})
"""What AMQP never changes in place."""
FEDERATION = frozenset({Kind.UPSTREAM, Kind.UPSTREAM_SET})


def impossible(put: Put, ours: Things, actual: Actual) -> Iterator[str]:
    """Why no --force helps."""
    thing = put.thing
    if put.before is not None and thing.kind in IMMUTABLE:
        found = "; ".join(differences(put.before.body, thing.body))
        yield f"stands there otherwise and cannot be changed in place ({found}); delete it yourself or declare it as it is"
    if thing.vhost and not _has(ours, actual, Kind.VHOST, "", thing.vhost):
        yield f"there is no virtual host {thing.vhost}; declare it in [[vhosts]]"
    if thing.kind is Kind.BINDING:
        yield from _loose_ends(thing, ours, actual)
    if thing.kind in FEDERATION and not actual.federation:
        yield "the broker has no federation; rabbitmq-plugins enable rabbitmq_federation_management"
    for gate in shut(thing, actual.version):
        if gate.refuses:
            yield f"{gate.why}; the broker runs {actual.version_text}"


def _has(ours: Things, actual: Actual, kind: Kind, vhost: str, name: str) -> bool:
    key = (kind, vhost, name)
    return key in ours or key in actual.things


def _loose_ends(thing: Thing, ours: Things, actual: Actual) -> Iterator[str]:
    source, kind, target, _, _ = binding_parts(thing)
    for end, name in ((Kind.EXCHANGE, source), (Kind(kind), target)):
        if not _has(ours, actual, end, thing.vhost, name):
            yield f"there is no {end} {name} in virtual host {thing.vhost}"


def unsafe_change(put: Put, actual: Actual) -> Iterator[Obstacle]:
    """Changes to what somebody else made, or that lose what upstreams hold."""
    if put.before is None:
        return
    thing = put.thing
    if thing.kind is Kind.CLUSTER_NAME:
        if actual.links:
            why = f"{put.why}: upstreams then drop what they buffer under the old name"
            yield Obstacle(thing=thing, why=why, forcible=True)
    elif thing.key not in actual.made:
        yield Obstacle(thing=thing, why=f"stands there otherwise, not made by this topology ({put.why})", forcible=True)


def contested(wanted: Wanted, puts: Sequence[Put], actual: Actual) -> Iterator[Obstacle]:
    """Objects that somebody else's policy federates: ours would end that federation, and theirs ours, for ever."""
    own = prefix(wanted.topology)
    changed = {put.thing.key: put.thing for put in puts}
    foreign = [
        t for key, t in actual.things.items() if key[0] is Kind.POLICY and federates(t) and not t.name.startswith(own)
    ]
    for federation in wanted.federations:
        policy = changed.get((Kind.POLICY, federation.vhost, federation.policy))
        target = target_of(wanted.things[federation.kind, federation.vhost, federation.name])
        rivals = sorted(theirs.name for theirs in foreign if matches(theirs, target))
        if policy is not None and rivals:
            why = f"{target.kind} {target.name} is federated by policy {', '.join(rivals)} already, which ours would replace"
            yield Obstacle(thing=policy, why=why, forcible=True)


def unsafe_deletes(deletes: Sequence[Delete], actual: Actual) -> Iterator[Obstacle]:
    gone = {delete.thing.key for delete in deletes}
    for delete in deletes:
        thing = delete.thing
        if thing.kind is Kind.QUEUE and (count := actual.messages.get(thing.key, 0)):
            yield Obstacle(thing=thing, why=f"holds {count} messages, which would be lost", forcible=True)
        if thing.kind is Kind.QUEUE and (count := actual.consumers.get(thing.key, 0)):
            yield Obstacle(thing=thing, why=f"has {count} consumers", forcible=True)
        if thing.kind is Kind.VHOST:
            left = [t for key, t in actual.things.items() if key[:2] == (Kind.QUEUE, thing.name) and key not in gone]
            if left:
                yield Obstacle(
                    thing=thing, why=f"has {len(left)} queues that this topology did not make", forcible=True
                )
    if len(deletes) > FEW_DELETES and len(deletes) > MOST_DELETED * len(actual.made):
        why = f"the plan deletes {len(deletes)} of the {len(actual.made)} things this topology made"
        yield Obstacle(thing=None, why=why, forcible=True)
