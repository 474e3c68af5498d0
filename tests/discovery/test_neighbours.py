"""Neighbouring versions of fairlead on one registry: what the next one writes is read, and kept when it is rewritten."""

import asyncio
import json
from dataclasses import dataclass
from uuid import uuid4

import msgspec
import pytest

from fairlead_daemon.errors import Refused
from fairlead_discovery import messages as m
from fairlead_discovery import moving, paths, records
from fairlead_discovery.adapters.memory import fresh_nodes
from fairlead_discovery.backends import open_registry
from fairlead_discovery.decisions.archive import from_lines, to_lines
from fairlead_discovery.decisions.membership import Membership, RingMember
from fairlead_discovery.hub import Hub
from fairlead_discovery.records import SCHEMA, Cluster, Leaving, Member, Reason, Record, decode, encode, rewritten
from fairlead_discovery.rings import change_ring, create_ring
from fairlead_discovery.store import check_usable

NEXT_MEMBER = {
    "serviceEndpoint": {"host": "10.0.0.1", "port": 80, "family": "inet6"},
    "additionalEndpoints": {},
    "status": "ALIVE",
    "task": {"id": "t1", "name": "web", "framework": "f", "framework_id": "f1", "agent": "a", "rack": "r7"},
    "quality": {"of": ["service", 1]},
}


KINDS = [kind for kind in vars(records).values() if isinstance(kind, type) and issubclass(kind, Record)]
"""Every record there is."""


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_a_key_of_the_next_version_breaks_no_record(kind: type[Record]):
    """Whatever it holds: it is ignored."""
    known = {field.encode_name: field for field in msgspec.structs.fields(kind)}
    needed = {name: _sample(field.type) for name, field in known.items() if field.required}
    data = json.dumps({**needed, "of_the_next": {"deep": [1, None, "x"]}}).encode()

    assert decode(kind, data, place="") == decode(kind, json.dumps(needed).encode(), place="")


def _sample(kind: object) -> object:
    """A value of a field's type, in JSON."""
    plain = {str: "kill", int: 1, float: 1.0, bool: True, Reason: "kill"}
    if kind in plain:
        return plain[kind]
    assert isinstance(kind, type), kind
    assert issubclass(kind, Record), kind
    return {f.encode_name: _sample(f.type) for f in msgspec.structs.fields(kind) if f.required}


def test_a_member_of_the_next_version_is_read():
    """Keys that are new on every level."""
    member = decode(Member, json.dumps(NEXT_MEMBER).encode(), place="")

    assert ("10.0.0.1", 80, "t1") == (member.serviceEndpoint.host, member.serviceEndpoint.port, member.task.id)


def test_a_reason_of_the_next_version_is_a_departure_all_the_same():
    """Unread it would be a task that vanished without a record: readers would hold."""
    record = {"task": "t", "service": "s", "member": "m", "reason": "evicted", "deadline_s": 1.0}

    assert Reason.KILL is decode(Leaving, json.dumps(record).encode(), place="").reason


def test_rewriting_keeps_what_is_not_known():
    """On every level; what is known is as it was decided now, also when that is the default and left out."""
    before = json.dumps({**NEXT_MEMBER, "weight": 4.0, "zone": "z"}).encode()
    member = msgspec.structs.replace(decode(Member, before, place=""), weight=2.0, zone="")
    after = json.loads(rewritten(before, member))

    assert {"of": ["service", 1]} == after["quality"]
    assert ("r7", "inet6") == (after["task"]["rack"], after["serviceEndpoint"]["family"])
    assert (2.0, False) == (after["weight"], "zone" in after)
    assert encode(member) == rewritten(b"", member)


@pytest.mark.parametrize(("schema", "usable"), [(SCHEMA, True), (SCHEMA + 1, True), (SCHEMA + 2, False)])
def test_neighbouring_schemas_are_usable_and_others_refused_in_words(schema: int, usable: bool):
    """The words name both versions and what to do."""
    cluster = Cluster(uuid="u", schema=schema)
    if usable:
        check_usable(cluster, place="here", admin=False)
        return
    with pytest.raises(Refused, match=f"here has schema {schema}, this program works with .* to {SCHEMA + 1}: upgrade"):
        check_usable(cluster, place="here", admin=False)


async def marked() -> str:
    """The URL of a registry that a newer daemon has marked as its own."""
    url = f"memory:{uuid4().hex}"
    registry = await open_registry(url)
    node = await registry.read(paths.CLUSTER)
    record = json.loads(node.data) | {"schema": SCHEMA + 1, "of_the_next": [1]}
    await registry.write(paths.CLUSTER, json.dumps(record).encode())
    await registry.close()
    return url


async def test_a_copy_keeps_schema_and_keys_of_the_next_version():
    """By an old program, of a registry that newer daemons have marked; the old one's record too."""
    url = await marked()
    source = await open_registry(url)
    target = await open_registry(f"memory:{uuid4().hex}")
    await moving.move(source, target, "memory:new", force=False, tell=lambda *_: None)
    again = await open_registry(url)
    here, there = [json.loads((await r.read(paths.CLUSTER)).data) for r in (again, target)]
    await again.close()
    await source.close()
    await target.close()

    assert ([1], SCHEMA + 1, "memory:new") == (here["of_the_next"], here["schema"], here["moved"])
    assert ([1], SCHEMA + 1, here["uuid"]) == (there["of_the_next"], there["schema"], there["uuid"])


async def test_an_export_carries_the_schema():
    """Imported it is what it was."""
    registry = await open_registry(await marked())
    registry.store.admin = True
    image = await moving.image_of(registry, lambda *_: None)
    await registry.close()

    assert SCHEMA + 1 == from_lines(to_lines(image, taken_s=1.0)).cluster.schema


async def test_a_ring_keeps_keys_of_the_next_version():
    """An old program adds a member to a ring that a newer one made."""
    registry = await open_registry(f"memory:{uuid4().hex}")
    path = paths.below(paths.RINGS, "s")
    await create_ring(registry, Membership(service="s", members=(RingMember(name="a"),)))
    node = await registry.read(path)
    await registry.write(path, json.dumps(json.loads(node.data) | {"of_the_next": 1}).encode())
    await change_ring(
        registry, "s", lambda ring: msgspec.structs.replace(ring, members=(*ring.members, RingMember(name="b")))
    )
    after = json.loads((await registry.read(path)).data)
    await registry.close()

    assert (1, ["a", "b"]) == (after["of_the_next"], [member["name"] for member in after["members"]])


@dataclass
class Ear:
    heard: list[m.AnyReply]

    def send(self, message: m.AnyReply) -> None:
        self.heard.append(message)

    def backed_up(self) -> bool:
        return False

    def close(self) -> None:
        pass


@pytest.mark.parametrize(("version", "welcome"), [(m.VERSION, True), (m.VERSION + 1, True), (m.VERSION + 2, False)])
async def test_a_registry_welcomes_neighbouring_clients(version: int, welcome: bool):
    """During an upgrade of one machine; the answer says which version the registry speaks."""
    hub, ear = Hub(fresh_nodes(0)), Ear([])
    hub.receive(hub.attach(ear), m.Hello(number=1, version=version))
    await asyncio.sleep(0)
    (answer,) = ear.heard
    await hub.close()

    assert welcome == isinstance(answer, m.Welcome)
    assert f"version {m.VERSION}" in answer.message if isinstance(answer, m.Failed) else answer.version == m.VERSION


@pytest.mark.parametrize("kind", [*m.AnyRequest.__args__, *m.AnyReply.__args__], ids=lambda kind: kind.__name__)
def test_a_key_of_the_next_version_breaks_no_message(kind: type[m.Message]):
    """Asked or answered."""
    values = {str: "x", int: 1, bytes: b"x"}
    needed = {f.name: values.get(f.type, ()) for f in msgspec.structs.fields(kind) if f.required}
    body = msgspec.msgpack.decode(msgspec.msgpack.encode(kind(**needed))) | {"of_the_next": {"a": [1]}}
    decoder = m.requests if issubclass(kind, m.Request) else m.replies

    assert kind(**needed) == decoder.decode(msgspec.msgpack.encode(body))
