"""Other people's registration formats: what is written is read, what others write is read, what is wrong is named."""

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead_daemon.errors import BadSettings
from fairlead_discovery.decisions.announcements import Also, Service, check_all
from fairlead_discovery.decisions.foreign_nodes import (
    WRITERS,
    Endpoint,
    node_of_service,
    read_folder,
    read_node,
    read_vector,
)
from fairlead_discovery.records import Address

WORD = st.text(alphabet="ab#/:_-.é ", max_size=6)
HOSTS = st.sampled_from(["10.0.0.1", "::1", "db.example.org"])
PORTS = st.sampled_from([1, 80, 65535])
LABELS = st.dictionaries(WORD.filter(lambda w: w != "@class"), WORD, max_size=2)


@given(
    host=HOSTS,
    port=PORTS,
    ports=st.dictionaries(WORD, st.builds(Address, host=HOSTS, port=PORTS), max_size=2),
    alive=st.booleans(),
    shard=st.none() | st.integers(0, 3),
    leader=st.booleans(),
)
def test_serversets_come_back(**fields: object):
    """Members and leaders, with shard and further ports."""
    endpoint = Endpoint(**fields)
    name, data = WRITERS["serverset"](endpoint, "web")

    assert endpoint == read_node("serverset", name, data)


@pytest.mark.parametrize("form", ["nerve", "nerve-base64"])
@given(
    host=HOSTS,
    port=PORTS,
    id=WORD,
    weight=st.none() | st.integers(0, 256),
    labels=LABELS,
    options=st.sampled_from(["", "backup"]),
)
def test_nerve_comes_back(form: str, **fields: object):
    """Plain nodes, and those whose name says it all. Both read as `nerve`: Synapse mixes them too."""
    endpoint = Endpoint(**fields)
    name, data = WRITERS[form](endpoint, "web")

    assert "/" not in name
    assert endpoint == read_node(form, name, data) == read_node("nerve", name, data)


@given(host=HOSTS, port=PORTS, id=WORD.filter(bool), alive=st.booleans(), labels=LABELS, secure_port=st.none() | PORTS)
def test_curator_comes_back(**fields: object):
    """Its payload's strings are labels."""
    endpoint = Endpoint(**fields)
    name, data = WRITERS["curator"](endpoint, "web")

    assert 2 == len(name.split("/"))
    assert endpoint == read_node("curator", name, data)


@given(host=HOSTS, port=PORTS, app=st.sampled_from(["web", "a.b"]), proto=st.sampled_from(["tcp", "udp"]))
def test_treadmill_comes_back(host: str, port: int, app: str, proto: str):
    """`<app>#<instance>:<proto>:<endpoint>` with `host:port`, IPv6 too."""
    endpoint = Endpoint(host=host, port=port, id=f"{app}#0000000001", labels={"proto": proto, "endpoint": "http"})
    name, data = WRITERS["treadmill"](endpoint, "web")

    assert f"{app}#0000000001:{proto}:http" == name
    assert endpoint == read_node("treadmill", name, data)


def test_what_others_wrote_is_read():
    """As Aurora, Nerve, Curator and Treadmill document their nodes."""
    aurora = (
        b'{"serviceEndpoint":{"host":"10.0.0.1","port":31000},'
        b'"additionalEndpoints":{"http":{"host":"10.0.0.1","port":31001}},"status":"ALIVE","shard":0}'
    )
    nerve = (
        b'{"host":"10.0.0.1","port":3000,"name":"i-1","weight":2,"haproxy_server_options":"backup","labels":{"az":"a"}}'
    )
    curator = (
        b'{"name":"svc","id":"u","address":"h","port":80,"sslPort":443,"payload":{"@class":"x.Y","az":"a"},'
        b'"registrationTimeUTC":0,"serviceType":"DYNAMIC","uriSpec":null,"enabled":false}'
    )
    found = [
        read_node("serverset", "member_0000000012", aurora),
        read_node("nerve", "i-1_0000000001", nerve),
        read_node("curator", "u", curator),
        read_node("treadmill", "web#0000000001:tcp:http", b"h1:8000\n"),
    ]

    assert [
        Endpoint(host="10.0.0.1", port=31000, ports={"http": Address(host="10.0.0.1", port=31001)}, shard=0),
        Endpoint(host="10.0.0.1", port=3000, id="i-1", weight=2, labels={"az": "a"}, options="backup"),
        Endpoint(host="h", port=80, id="u", alive=False, labels={"az": "a"}, secure_port=443),
        Endpoint(host="h1", port=8000, id="web#0000000001", labels={"proto": "tcp", "endpoint": "http"}),
    ] == found


def test_finagles_weights_are_read():
    """`vector_…` lies beside the members and is none."""
    data = b'{"vector":[{"select":"inet=h:80|shard=1","weight":0.5,"priority":1},{"select":"x"},7]}'

    assert {"h:80": 0.5} == read_vector(data)
    assert read_node("serverset", "vector_0000000001", data) is None


JUNK = (
    b"",
    b"null",
    b"[]",
    b"{",
    b"\xff\xfe",
    b"{}",
    b'{"host":1,"port":1}',
    b'{"host":"h","port":"1"}',
    b'{"host":"h","port":0}',
    b'{"host":"h","port":true}',
    b'{"host":"h","port":70000}',
    b'{"host":"a b","port":1}',
    b'{"serviceEndpoint":{"host":"h"}}',
    b'{"serviceEndpoint":7}',
    b'{"serviceEndpoint":{"host":"h","port":1},"status":"SICK"}',
    b'{"serviceEndpoint":{"host":"h","port":1},"shard":"x"}',
    b'{"serviceEndpoint":{"host":"h","port":1},"additionalEndpoints":{"a":1}}',
    b'{"address":"","port":1}',
    b"h:1:",
    b":5",
    b"h:99999",
    b"x" * 70_000,
)


@pytest.mark.parametrize("form", list(WRITERS))
def test_what_is_wrong_is_skipped_and_named(form: str):
    """Every piece of junk is named with a reason; the good node between is read."""
    good = Endpoint(host="10.0.0.1", port=80, id="web#0000000001", labels={"proto": "tcp", "endpoint": "http"})
    name, data = WRITERS[form](good, "web")
    stem = {"serverset": "member_{:010d}", "treadmill": "a#{}:tcp:x", "nerve-base64": "base64_5_$$$$$_{:010d}"}
    junk = {stem.get(form, "i_{:010d}").format(number): data for number, data in enumerate(JUNK)}

    reading = read_folder(form, [*junk.items(), (name, data)])

    assert [name] == list(reading.endpoints)
    assert junk.keys() == reading.skipped.keys()
    assert all(reading.skipped.values())


@pytest.mark.parametrize("form", list(WRITERS))
@given(name=st.text(max_size=12), data=st.binary(max_size=40))
def test_nothing_that_lies_there_can_break_a_reader(form: str, name: str, data: bytes):
    """Any name with any bytes is read or skipped."""
    reading = read_folder(
        form, [(name, data), (f"member_{name}", data), (f"base64_{len(name)}_{name}_0000000001", b"")]
    )

    assert len(reading.endpoints) + len(reading.skipped) <= 3


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=3), lambda v: st.lists(v, max_size=2) | st.dictionaries(st.sampled_from(["host", "port", "address", "serviceEndpoint", "additionalEndpoints", "labels", "payload", "weight", "vector"]), v, max_size=4), max_leaves=8))  # fmt: skip
def test_no_json_can_break_a_reader(value: object):
    """Well-formed, of any shape."""
    data = json.dumps(value).encode()
    text = base64.urlsafe_b64encode(data).decode()
    names = {
        "serverset": "member_1",
        "nerve": "i",
        "curator": "i",
        "nerve-base64": f"base64_{len(text)}_{text}_0000000001",
    }

    for form, name in names.items():
        assert 1 == len((reading := read_folder(form, [(name, data)])).endpoints) + len(reading.skipped)
    read_folder("serverset", [("vector_1", data)])


def test_an_announced_service_is_written_for_others():
    """By setting: the same instance always has the same node name, so that it is made again in its place."""
    service = Service(name="web", host="10.0.0.1", port=80, weight=2.0, labels={"az": "a"})
    nodes = [node_of_service(service, "10.0.0.1", Also(format="nerve", path="/nerve/services/web/")) for _ in range(2)]

    assert nodes[0] == nodes[1]
    assert nodes[0].path.startswith("/nerve/services/web/10.0.0.1-80_")
    assert {"host": "10.0.0.1", "port": 80, "name": "10.0.0.1-80", "weight": 2, "labels": {"az": "a"}} == json.loads(
        nodes[0].data
    )


def test_leader_nodes_are_written_by_setting():
    """As Finagle's and Aurora's readers know them; of serversets alone."""
    service = Service(name="web", host="10.0.0.1", port=80)
    node = node_of_service(service, "10.0.0.1", Also(format="serverset", path="/aurora/web", leader=True))
    name = node.path.rpartition("/")[2]
    found = read_node("serverset", name, node.data)
    wrong = Also(format="nerve", path="/nerve", leader=True)

    assert name.startswith("singleton_candidate_")
    assert found is not None
    assert (True, 80) == (found.leader, found.port)
    with pytest.raises(BadSettings, match="also: leader nodes"):
        check_all([Service(name="web", host="h", port=80, also=(wrong,))], where="file")
