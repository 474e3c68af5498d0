"""Links expected and listed; what brokers say, in words; where brokers are."""

import pytest

from fairlead_discovery.records import Address, Member, Port, TaskRef
from fairlead_messaging.decisions.declared import Broker
from fairlead_messaging.decisions.finding import place
from fairlead_messaging.decisions.links import Judged, Link, State, expected, judge, read_listed, unanswered
from fairlead_messaging.decisions.things import Kind, Thing
from fairlead_messaging.decisions.words import reason_in_words

EXCHANGE = Thing(
    kind=Kind.EXCHANGE, vhost="/", name="orders", body={"type": "topic", "internal": False, "arguments": {}}
)
QUEUE = Thing(kind=Kind.QUEUE, vhost="/", name="jobs", body={"arguments": {}})
EAST = Thing(kind=Kind.UPSTREAM, vhost="/", name="east", body={"uri": "amqp://u:p@e:5672/x"})
NORTH = Thing(kind=Kind.UPSTREAM, vhost="/", name="north", body={"uri": ["amqp://n"]})
SET = Thing(kind=Kind.UPSTREAM_SET, vhost="/", name="dc", body=[{"upstream": "east"}, {"upstream": "north"}])


def policy(apply_to: str = "all", priority: int = 0, **definition: str) -> Thing:
    named = {key.replace("_", "-"): value for key, value in definition.items()}
    body = {"pattern": "", "priority": priority, "apply-to": apply_to, "definition": named}
    return Thing(kind=Kind.POLICY, vhost="/", name=f"p{priority}", body=body)


def things(*given: Thing) -> dict:
    return {t.key: t for t in given}


def names(*given: Thing) -> list[str]:
    return sorted(f"{link.name}<{link.upstream}" for link in expected(things(*given)))


@pytest.mark.parametrize(
    ("given", "links"),
    [
        ((EXCHANGE, EAST), []),
        ((EXCHANGE, EAST, policy(federation_upstream="east")), ["orders<east"]),
        ((EXCHANGE, QUEUE, EAST, policy("queues", federation_upstream="east")), ["jobs<east"]),
        ((EXCHANGE, EAST, NORTH, SET, policy(federation_upstream_set="dc")), ["orders<east", "orders<north"]),
        ((EXCHANGE, EAST, NORTH, policy(federation_upstream_set="all")), ["orders<east", "orders<north"]),
        ((EXCHANGE, EAST, NORTH, policy(federation_upstream_pattern="^n")), ["orders<north"]),
        ((EXCHANGE, EAST, policy(federation_upstream="east"), policy(priority=1, max_length="1")), []),
        ((Thing(kind=Kind.EXCHANGE, vhost="/", name="", body={}), EAST, policy(federation_upstream="east")), []),
        ((Thing(kind=Kind.EXCHANGE, vhost="/", name="i", body={"internal": True}), policy(federation_upstream="e")), []),
        ((Thing(kind=Kind.QUEUE, vhost="/", name="q", body={"arguments": {"x-internal-purpose": "federation"}}), policy(federation_upstream="e")), []),
    ],
)  # fmt: skip
def test_links_follow_from_policies_objects_and_upstreams(given: tuple[Thing, ...], links: list[str]):
    """Only the one policy that wins an object counts; internal objects have no links."""
    assert links == names(*given)


def row(status: str, error: str = "", name: str = "orders", upstream: str = "east") -> dict:
    return {"type": "exchange", "exchange": name, "vhost": "/", "upstream": upstream, "status": status, "error": error}


STANDS = things(EXCHANGE, EAST, policy(federation_upstream="east"))
LINK = Link(vhost="/", kind="exchange", name="orders", upstream="east")


def judged(rows: list[dict], actual: dict = STANDS, wanted: dict = STANDS) -> list[Judged]:
    return list(judge("west", expected(wanted), actual, read_listed(rows)))


@pytest.mark.parametrize(
    ("rows", "actual", "state", "why"),
    [
        ([row("running")], STANDS, State.RUNNING, ""),
        ([row("starting")], STANDS, State.STARTING, ""),
        ([row("error", "econnrefused")], STANDS, State.ERROR, "connection refused at e:5672"),
        ([row("shutdown")], STANDS, State.ERROR, "shutdown at e:5672"),
        (
            [row("running"), row("error", "not_allowed")],
            STANDS,
            State.ERROR,
            "the upstream refuses: unknown virtual host",
        ),
        ([], STANDS, State.MISSING, "it never started, or gave up"),
        ([], things(EXCHANGE, EAST), State.MISSING, "policy p0 is not on the broker"),
        ([], things(EXCHANGE, policy(federation_upstream="east")), State.MISSING, "upstream east is not on the broker"),
        ([], things(EAST), State.MISSING, "exchange orders is not on the broker"),
    ],
)
def test_a_link_is_told_with_its_reason(rows: list[dict], actual: dict, state: State, why: str):
    """Running, starting, error or missing; the worst of several rows counts."""
    (one,) = judged(rows, actual)

    assert (LINK, state) == (one.link, one.state)
    assert one.why == why or (why and why in one.why)


def test_a_listed_link_nobody_expects_is_a_stray():
    """It is shown beside the expected one, which is missing."""
    found = {one.link.upstream: one.state for one in judged([row("running", upstream="gone")])}

    assert {"east": State.MISSING, "gone": State.STRAY} == found


def test_a_broker_that_does_not_answer_leaves_its_links_unknown():
    """Neither running nor missing: nobody knows."""
    (one,) = unanswered("west", expected(STANDS), "no answer")

    assert (State.UNKNOWN, "no answer") == (one.state, one.why)


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("econnrefused", "connection refused"),
        ('Validation failed\n\nUnrecognised terms [{&lt;&lt;"queue-type"&gt;&gt;,&lt;&lt;"quorum"&gt;&gt;}] in bad\n', "queue-type: unknown in this version of RabbitMQ"),
        ('Validation failed\n\n[{&lt;&lt;"max-len"&gt;&gt;,7}] are not recognised policy settings\n', "max-len: no such policy key in this version of RabbitMQ"),
        ("Validation failed\n\napply-to 'quorum_queues' unrecognised; should be 'queues', 'exchanges' or 'all'\n", "apply-to: quorum_queues: expected 'queues', 'exchanges' or 'all'"),
        ('Validation failed\n\npattern should be regular expression but is invalid: {"missing )",2}\n', "pattern: no regular expression: missing ) at 2"),
        ('max-hops should be a number, actually was &lt;&lt;"a"&gt;&gt;', "max-hops: expected a number, got a"),
        ("inequivalent arg 'type' for exchange 'orders' in vhost '/': received 'direct' but current is 'topic'", "exchange 'orders' in vhost '/' stands there with type topic, not direct"),
        ('"amqqp://x" not a valid URI: {{unexpected_uri_scheme,"amqqp"},"amqqp://x"}', "amqqp://x: not a valid URI: unknown scheme amqqp"),
        ("a should be b, actually was 1\na should be b, actually was 1", "a: expected b, got 1"),
        ('{auth_failure,"ACCESS_REFUSED - x"}', "user or password is wrong: ACCESS_REFUSED - x"),
        ("", "no reason given"),
    ],
)  # fmt: skip
def test_erlang_comes_in_words(said: str, told: str):
    """Escapes and terms go, one line stays."""
    assert told == reason_in_words(said)


def member(name: str = "east.shop", port: int = 5672) -> Member:
    return Member(
        serviceEndpoint=Address(host="10.0.0.1", port=port),
        task=TaskRef(id="t", name=name, framework="marathon", framework_id="f", agent="a"),
        ports=(
            Port(index=0, number=port, host_port=port, name="amqp"),
            Port(index=1, number=15672, host_port=15672, name="management"),
        ),
    )


MEMBERS = {"marathon:/shop/east": {"member_b": member(port=2), "member_a": member(port=1)}}


@pytest.mark.parametrize(
    "service", ["marathon:/shop/east", "/shop/east", "east-shop.marathon.mesos", "EAST-shop.marathon.mesos."]
)
def test_a_broker_is_found_by_key_app_id_or_dns_name(service: str):
    """Every endpoint is an address of the one cluster, in the order of their names."""
    found = place(Broker(service=service), ("u", "p"), MEMBERS)

    assert ("http://10.0.0.1:15672", ("amqp://10.0.0.1:1", "amqp://10.0.0.1:2"), "") == (
        found.management,
        found.amqp,
        found.why,
    )


@pytest.mark.parametrize(
    ("broker", "why"),
    [
        (Broker(service="/shop/west"), "service /shop/west has no endpoint in the registry"),
        (Broker(service="east-sho.marathon.mesos"), "service east-sho.marathon.mesos has no endpoint in the registry"),
        (Broker(service="/shop/east", amqp_port="amqps"), "service /shop/east has no port amqps"),
    ],
)
def test_a_broker_that_is_not_found_says_why(broker: Broker, why: str):
    """With the name that was looked for."""
    assert why == place(broker, ("u", "p"), MEMBERS).why
