"""Why a name is answered as it is: who gives what under which node, what was left out and by which filter.

The filters, in the order in which they apply:

unreadable   a node whose data is no record                        snapshot.bad
leaving      its task is about to be killed                        /fairlead/leaving/<task>
health       its status leaves it no weight                        traits.HEALTH
trust        the registry is out of sight, or not believed         the last good names are answered
limit        `a_record_limit`: the client's network gets a part    selection.part
size         a datagram holds no more; TCP has all                 selection.part
locality     not left out, but behind what is nearer               localities.tier
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import msgspec

from fairlead_discovery import paths
from fairlead_discovery.decisions import dns_labels
from fairlead_discovery.records import Leaving
from fairlead_discovery.snapshots import Snapshot, Trust
from fairlead_dns.decisions import wire
from fairlead_dns.decisions.answer import ROTATED, Answers
from fairlead_dns.decisions.asked import EDNS_BYTES
from fairlead_dns.decisions.clients import Client
from fairlead_dns.decisions.forward_explain import Forwarded
from fairlead_dns.decisions.naming import Record, framework_labels
from fairlead_dns.decisions.sources import Sources
from fairlead_dns.decisions.why import Giver, Why, text_of, why

OVERHEAD_BYTES = 12 + 4 + 11  # header, type and class, OPT
TIERS = ("own machine", "same zone", "same region", "elsewhere")


class Row(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One record as this client gets it. `left_out`: "", `limit` or `size`."""

    data: str
    weight: float = 1.0
    tier: str = ""
    zone: str = ""
    region: str = ""
    left_out: str = ""


class Given(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A task behind the name. `rule` is the dialect whose naming gives it this name."""

    service: str
    node: str
    task: str
    agent: str
    rule: str
    records: tuple[str, ...]
    filter: str = ""
    why: str = ""
    warmth: float = 1.0
    """Part of its weight that a newcomer has by now."""


class Absent(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What would give the name, or may have given it, but for a filter."""

    service: str
    node: str
    filter: str
    why: str
    task: str = ""


class Explanation(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`says` is the whole of it in sentences; the rest is what they rest on."""

    name: str
    type: str
    client: str
    verdict: str
    """`answered`, `no such record`, `no such name`, `not ready`, `refused`, `forwarded` or `elsewhere`."""
    says: tuple[str, ...]
    zone: str = ""
    serial: int = 0
    ttl_s: int = 0
    trust: str = "none"
    client_zone: str = ""
    client_region: str = ""
    records: tuple[Row, ...] = ()
    given_by: tuple[Given, ...] = ()
    absent: tuple[Absent, ...] = ()
    others: dict[str, tuple[str, ...]] = {}
    """Framework, agent, master or setting -> the records it gives."""
    other_types: tuple[str, ...] = ()
    shared_by: tuple[str, ...] = ()
    apart: dict[str, str] = {}
    too_long: tuple[str, ...] = ()
    near: tuple[str, ...] = ()
    forwarded: Forwarded | None = None
    """Of a name that the forwarder answers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """`name` in wire form, folded. `admitted`: whether this client may ask. `elsewhere`: not "" when another part of the
    server answers for the name, and which.
    """

    name: bytes
    kind: int
    client: str
    admitted: bool = True
    elsewhere: str = ""
    closed: bytes = b""
    """The zone by whose `zone_access` the client may not ask, if it is that."""


def explain(question: Question, sources: Sources, answers: Answers, snapshot: Snapshot) -> Explanation:
    """Without `near`, which takes looking at all names: see `speakable`. Of a name in a zone that is closed to the client
    no more than that.
    """
    if question.closed:
        return _closed(question)
    client = answers.clients.of(question.client)
    apex = _apex(answers, question.name)
    known = why(sources, question.name)
    kinds = answers.zone.sets(question.name)
    rows = tuple(_rows(question, answers, client)) if question.kind in kinds else ()
    absent = tuple(_absent(known, sources, snapshot))
    verdict = _verdict(question, answers, apex)
    found = Explanation(
        name=known.name,
        type=wire.TYPE_NAMES.get(question.kind, f"TYPE{question.kind}"),
        client=question.client,
        verdict=verdict,
        says=(),
        zone=wire.text(apex) if apex is not None else "",
        serial=answers.serial,
        ttl_s=answers.zone.ttl_s(question.name, question.kind, answers.authority.ttl_s) if rows else 0,
        trust=answers.trust.value if answers.trust else "none",
        client_zone=client.place.zone,
        client_region=client.place.region,
        records=rows,
        given_by=tuple(_given(giver, answers) for giver in known.givers),
        absent=absent,
        others=dict(known.others),
        other_types=tuple(wire.TYPE_NAMES.get(kind, f"TYPE{kind}") for kind in sorted(kinds) if kind != question.kind),
        shared_by=known.shared_by,
        apart=dict(known.apart),
        too_long=tuple(name for names in known.too_long.values() for name in names),
    )
    return msgspec.structs.replace(found, says=tuple(_says(question, found, known, snapshot)))


def _closed(question: Question) -> Explanation:
    name, zone = wire.text(question.name), wire.text(question.closed) or "."
    kind = wire.TYPE_NAMES.get(question.kind, f"TYPE{question.kind}")
    says = f"{name} {kind}: refused, {question.client} may not ask for names of {zone} (see `zone_access`)"
    return Explanation(name=name, type=kind, client=question.client, verdict="refused", says=(says,), zone=zone)


def speakable(sources: Sources) -> list[str]:
    """Every name a person may have meant: those that services share, and what stands beside them."""
    shared = [f"{name}.{sources.rules.domain}" for name in sources.claims.holders]
    return [*shared, *(wire.text(record.owner) for records in sources.others.values() for record in records)]


def asked_for(text: str) -> str:
    """`_http._web._tcp.marathon.mesos` -> `web.marathon.mesos`: what to look for among those `speakable`."""
    labels = text.split(".")
    plain = [label for label in labels if not label.startswith("_")]
    service = [label[1:] for label in labels if label.startswith("_") and label not in ("_tcp", "_udp")]
    return ".".join([*service[-1:], *plain])


# --- the parts --------------------------------------------------------------------------------------------------------


def _apex(answers: Answers, name: bytes) -> bytes | None:
    while name not in answers.zone.apexes:
        if name == b"\0":
            return None
        name = wire.parent(name)
    return name


def _verdict(question: Question, answers: Answers, apex: bytes | None) -> str:
    """First match wins."""
    sets = answers.zone.sets(question.name)
    rules = (
        (not question.admitted, "refused"),
        (bool(question.elsewhere), "elsewhere"),
        (apex is None, "refused"),
        (answers.trust is None, "not ready"),
        (question.kind in sets or (question.name == apex and question.kind in (wire.SOA, wire.NS)), "answered"),
        (answers.zone.exists(question.name), "no such record"),
    )
    return next((word for fits, word in rules if fits), "no such name")


def _rows(question: Question, answers: Answers, client: Client) -> Iterator[Row]:
    """In the order in which this client's network prefers them, those left out last."""
    data = answers.zone.sets(question.name)[question.kind]
    if question.kind not in ROTATED:
        yield from (Row(data=text_of(Record(question.name, question.kind, d))) for d in sorted(data))
        return
    group = answers.group(question.name, question.kind, room=EDNS_BYTES - OVERHEAD_BYTES - len(question.name))
    ranked = {c.rdata: c for c in answers.chooser.tiers(group, client)}
    limited = {c.rdata for c in answers.chooser.limit(group, client)}
    chosen = {c.rdata for c in answers.chooser.choose(group, client).candidates}
    for rdata in sorted(ranked, key=lambda d: (d not in chosen, ranked[d].tier, d)):
        candidate = ranked[rdata]
        hosts = sorted(answers.hosts(question.kind, rdata))
        place = answers.traits.place(hosts[0] if hosts else b"")
        yield Row(
            data=text_of(Record(question.name, question.kind, rdata)),
            weight=round(candidate.weight, 3),
            tier=TIERS[candidate.tier] if group.by_place and client.place.zone + client.place.region else "",
            zone=place.zone,
            region=place.region,
            left_out="" if rdata in chosen else "size" if rdata in limited else "limit",
        )


def _given(giver: Giver, answers: Answers) -> Given:
    return Given(
        service=giver.service,
        node=paths.member(giver.service, giver.node)
        if giver.node.startswith("member_")
        else paths.portless(giver.service, giver.node),
        task=giver.task,
        agent=giver.agent,
        rule=giver.dialect,
        records=giver.records,
        filter="health" if giver.withheld else "",
        why=giver.withheld,
        warmth=round(answers.traits.warmth(giver.task), 3),
    )


def _absent(known: Why, sources: Sources, snapshot: Snapshot) -> Iterator[Absent]:
    """Leaving tasks and unreadable nodes of services that have the name, or would."""
    services = {giver.service for giver in known.givers}
    for task, record in snapshot.leaving.items():
        if record.service in services or _would_mean(record.service, known.name, sources):
            yield Absent(
                service=record.service,
                node=paths.leaving(task),
                filter="leaving",
                why=_leaving(record),
                task=task,
            )
    for path, reason in snapshot.bad.items():
        service = paths.unescape(path.rpartition("/")[0].rpartition("/")[2])
        if service in services or _would_mean(service, known.name, sources):
            yield Absent(service=service, node=path, filter="unreadable", why=reason)


def _leaving(record: Leaving) -> str:
    return f"it is about to be ended ({record.reason.value}); balancers drain it, new questions no longer find it"


def _would_mean(service: str, name: str, sources: Sources) -> bool:
    """Whether the service's own name is part of `name`: all its tasks may be gone, and their records with them."""
    framework, app = paths.split_service_key(service)
    spoken = "-".join(reversed(app.strip("/").split("/"))) if app.startswith("/") else app
    label = sources.rules.spec(spoken)
    asked = asked_for(name)
    tail = f"{framework_labels(framework, sources.rules.spec)}.{sources.rules.domain}"
    first = asked.partition(".")[0]
    own = first == label or (first.startswith(f"{label}-") and len(first) - len(label) > dns_labels.HASH_LENGTH)
    return bool(label) and own and asked.endswith(tail)


# --- in words ---------------------------------------------------------------------------------------------------------


def _says(question: Question, found: Explanation, known: Why, snapshot: Snapshot) -> Iterator[str]:
    yield _headline(question, found, known)
    yield from _about_trust(found, snapshot)
    yield from _about_records(found)
    for gone in found.absent:
        yield f"{gone.filter}: {gone.task or gone.node} of {gone.service}: {gone.why}"
    withheld = [given for given in found.given_by if given.filter]
    for given in withheld:
        yield f"{given.filter}: {given.task} of {given.service}: {given.why}"
    if len(found.shared_by) > 1:
        own = ", ".join(f"{service} is {label}" for service, label in sorted(found.apart.items()))
        yield f"collision: the name is shared by {' and '.join(found.shared_by)}; apart: {own}"
    if found.too_long:
        yield f"too long, or no legal name as it is written, so cut: {', '.join(found.too_long)}"


def _headline(question: Question, found: Explanation, known: Why) -> str:
    label = f"{found.name} {found.type}"
    words = {
        "answered": f"{label}: {_amount(found.records)}" if found.records else f"{label}: of the zone itself",
        "elsewhere": f"{label}: answered by {question.elsewhere}, not from endpoints",
        "not ready": f"{label}: nothing is known of the registry yet; SERVFAIL, extended error 14",
        "no such name": f"{label}: there is no such name; clients remember that for the negative TTL",
    }
    if found.verdict == "refused":
        return f"{label}: refused, " + (
            "it is in no zone of this server, and nothing is forwarded (see `resolvers`)"
            if question.admitted
            else f"{found.client} may not ask this server"
        )
    if found.verdict == "no such record":
        if known.empty:
            return f"{label}: the name exists only because names below it have records"
        return (
            f"{label}: the name has no such record, only {', '.join(found.other_types) or 'those of the zone itself'}"
        )
    return words[found.verdict]


def _amount(records: Sequence[Row]) -> str:
    """`1 record`, `5 records, 4 of them for this client`."""
    given = _count(records, "")
    every = f"{len(records)} record{'s' if len(records) > 1 else ''}"
    return every if given == len(records) else f"{every}, {given} of them for this client"


def _about_trust(found: Explanation, snapshot: Snapshot) -> Iterator[str]:
    if found.trust in (Trust.STALE.value, Trust.HELD.value):
        age = f" as of {snapshot.age_s:.0f} s ago" if snapshot.age_s else ""
        yield f"trust: {found.trust} ({snapshot.why}): the last good names{age}, with extended error 3"


def _about_records(found: Explanation) -> Iterator[str]:
    limited, cut = _count(found.records, "limit"), _count(found.records, "size")
    if limited:
        yield f"limit: a_record_limit leaves {limited} out for this client's network; other networks get other ones"
    if cut:
        yield f"size: a datagram of {EDNS_BYTES} bytes has no room for {cut} more; over TCP all come"
    tiers = list(dict.fromkeys(row.tier for row in found.records if row.tier))
    if tiers:
        where = "/".join(filter(None, (found.client_region, found.client_zone)))
        counts = ", ".join(f"{sum(row.tier == tier for row in found.records)} {tier}" for tier in tiers)
        yield f"locality: the client stands in {where}: {counts}"
    if len({row.weight for row in found.records}) > 1:
        yield "weight: not equal; heavier ones come first more often, in SRV they have the larger weight"


def _count(rows: Sequence[Row], filter_: str) -> int:
    return sum(row.left_out == filter_ for row in rows)
