"""What of the maps says who may call whom, and how a caller with a certificate names the service it wants."""

import operator
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from fairlead_daemon.errors import Refused
from fairlead_discovery import paths
from fairlead_discovery.decisions.identity import dns_name, word
from fairlead_discovery.policies import Intentions, name_of, of_kind
from fairlead_discovery.snapshots import Snapshot
from fairlead_lb.decisions import intentions
from fairlead_lb.decisions.between import HOME
from fairlead_lb.decisions.intentions import ALLOW, DENY, NO_HEIRS, Compiled, Heirs
from fairlead_lb.decisions.values import Key

_HEAD = name_of(Intentions(service=""))


@dataclass(frozen=True, slots=True, kw_only=True)
class MeshRules:
    """Of the settings. `trust_domain` is "" while there is no mesh port: nobody names a service then."""

    default: str = ALLOW
    trust_domain: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class InForce:
    """Records by service, what they were read from, and the maps made of them; an unchanged one is the same object."""

    source: object = None
    bad: Mapping[str, str] = field(default_factory=dict)
    records: Mapping[str, Intentions] = field(default_factory=dict)
    refused: Mapping[str, str] = field(default_factory=dict)
    substitutes: frozenset[str] = frozenset()
    """Services whose record was made up, as they never had a good one."""
    services: frozenset[str] = frozenset()
    heirs: Heirs = field(default_factory=dict)
    default: str = ALLOW
    parts: Mapping[str, "Part"] = field(default_factory=dict)
    made: Compiled = field(default_factory=Compiled)


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One guarded service's maps, and what they were made of."""

    own: tuple[Intentions | None, ...]
    everyone: Intentions | None
    default: str
    made: Compiled


def in_force(
    snapshot: Snapshot, services: frozenset[str], last: InForce, rules: MeshRules, heirs: Heirs = NO_HEIRS
) -> InForce:
    """A record that cannot be taken leaves the last good one; where there is none it denies, as it may have."""
    bad = _bad(snapshot)
    same = snapshot.policies is last.source and bad == last.bad
    if same and services == last.services and heirs == last.heirs and rules.default == last.default:
        return last
    found = (last.records, last.refused, last.substitutes) if same else _records(snapshot, bad, last)
    records, refused, substitutes = found
    guarded = [s for s in sorted(services) if intentions.guarded(s, records, rules.default, heirs)]
    parts = {s: _part(s, records, rules.default, heirs, last.parts.get(s)) for s in guarded}
    return InForce(
        source=snapshot.policies,
        bad=bad,
        records=records,
        refused=refused,
        substitutes=substitutes,
        services=services,
        heirs=heirs,
        default=rules.default,
        parts=parts,
        made=Compiled(
            verdicts={key: verdict for part in parts.values() for key, verdict in part.made.verdicts.items()},
            rules={key: verdict for part in parts.values() for key, verdict in part.made.rules.items()},
        ),
    )


def _bad(snapshot: Snapshot) -> Mapping[str, str]:
    """By service: what stands under an intention's name, however that is spelled, and is none."""
    named = {
        paths.unescape(path.rpartition("/")[2]): why
        for path, why in snapshot.bad.items()
        if path.startswith(f"{paths.POLICIES}/")
    }
    return {name.removeprefix(_HEAD): why for name, why in named.items() if name.startswith(_HEAD)}


def _part(service: str, records: Mapping[str, Intentions], default: str, heirs: Heirs, last: Part | None) -> Part:
    """The very same when nothing changed for the service."""
    own = tuple(records.get(s) for s in intentions.origins(service, records, heirs))
    everyone = records.get(intentions.ANYBODY)
    unchanged = last is not None and len(own) == len(last.own) and all(map(operator.is_, own, last.own))
    if last is not None and unchanged and last.everyone is everyone and last.default == default:
        return last
    made = intentions.compiled((service,), records, default, heirs)
    return Part(own=own, everyone=everyone, default=default, made=made)


def _records(
    snapshot: Snapshot, bad: Mapping[str, str], last: InForce
) -> tuple[Mapping[str, Intentions], Mapping[str, str], frozenset[str]]:
    """Records, what is refused of them, and whose are substitutes."""
    found: dict[str, Intentions] = {}
    refused = dict(bad)
    for service, record in of_kind(snapshot.policies, Intentions).items():
        try:
            found[service] = record if last.records.get(service) is record else intentions.checked(record)
        except Refused as error:
            refused[service] = str(error)
    substitutes = frozenset(s for s in refused if s not in last.records or s in last.substitutes)
    for service, why in refused.items():
        found[service] = last.records.get(service) or Intentions(service=service, default=DENY)
        stays = "nobody may call it" if service in substitutes else "the last good ones stay"
        refused[service] = f"intentions: {why}; {stays}"
    return found, refused, substitutes


def maps(named: Sequence[tuple[Key, str]], force: InForce, rules: MeshRules) -> Mapping[str, Mapping[str, str]]:
    """`named`: which port of which service stands in which backend. A home is for balancers alone."""
    callable_by_all = [(key, name) for key, name in named if key.index < HOME]
    return {
        "guarded": {
            name: word(key.service)
            for key, name in named
            if intentions.guarded(key.service, force.records, force.default, force.heirs)
        },
        "intentions": force.made.verdicts,
        "rules": force.made.rules,
        "targets": dict(_targets(callable_by_all, rules.trust_domain)) if rules.trust_domain else {},
    }


def server_names(named: Iterable[tuple[Key, str]], rules: MeshRules) -> Mapping[str, str]:
    """Whose name the servers of a backend must show; nobody's while we have no identity ourselves."""
    return {name: dns_name(rules.trust_domain, key.service) for key, name in named} if rules.trust_domain else {}


def tcp_targets(named: Iterable[tuple[Key, str]], trust_domain: str) -> Mapping[str, str]:
    """How the names of TCP services are asked for where bytes are passed on; no name of a client holds a `/`. An HTTP
    service there would not know its callers.
    """
    return {f"tcp/{dns_name(trust_domain, k.service, k.index)}": name for k, name in named if k.index < HOME}


def _targets(named: Iterable[tuple[Key, str]], trust_domain: str) -> Iterable[tuple[str, str]]:
    """`marathon:%2Fshop%2Fweb`, with `/1` for another port, and the host name in the service's certificate."""
    for key, name in named:
        yield (word(key.service) if key.index == 0 else f"{word(key.service)}/{key.index}"), name
        yield dns_name(trust_domain, key.service, key.index), name
