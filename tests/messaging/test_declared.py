"""What a topology file may say, and how its mistakes are told."""

import tomllib

import pytest

from fairlead_daemon.errors import BadSettings
from fairlead_messaging.decisions.declared import read

BROKERS = """
[brokers.east]
management = "http://e:15672"
amqp = ["amqp://e"]
[brokers.west]
management = "http://w:15672"
amqp = ["amqp://w"]
"""
EXCHANGE = '[[exchanges]]\nname = "orders"\n'


def mistakes(text: str) -> str:
    with pytest.raises(BadSettings) as caught:
        read(tomllib.loads(text), where="t.toml")
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "brokers: none"),
        ("brokers = 3", "brokers: expected tables"),
        (BROKERS + "[[queue]]\nname = 'q'", "queue: unknown key"),
        (BROKERS + "[[queues]]\nname = 'q'\ndurabel = true", "queues[0].durabel: unknown key"),
        (BROKERS + "[[queues]]\nname = 'q'\ndurable = 'yes'", "queues[0].durable: Expected `bool`, got `str`"),
        (BROKERS + "[[queues]]\ndurable = true", "queues[0].name: is missing"),
        (BROKERS + "[[queues]]\nname = 'q'\ntype = 'lazy'", "queues[0].type: Invalid enum value 'lazy'"),
        (BROKERS + "[[queues]]\nname = 'amq.q'", "queues[0].name: amq.q: names with amq. are the broker's own"),
        (BROKERS + "[[queues]]\nname = ''", "queues[0].name: is empty"),
        (BROKERS + "[[queues]]\nname = 'q'\non = ['north']", "queues[0].on: no such broker: north"),
        (BROKERS + "[[queues]]\nname = 'q'\n[[queues]]\nname = 'q'", "queues[1].name: q stands on east by queues[0]"),
        (BROKERS + "[[queues]]\nname = 'q'\ntype = 'quorum'\ndurable = false", "a quorum queue is always durable"),
        (BROKERS + "[[bindings]]\nfrom = 'x'", "bindings[0].to: exactly one of to"),
        (BROKERS + "[[policies]]\nname = 'p'\npattern = '('\ndefinition = {a = 1}", "policies[0].pattern: '('"),
        (
            BROKERS + "[[policies]]\nname = 'p'\npattern = ''\ndefinition = {federation-upstream = 'x'}",
            "definition.federation-upstream: federation is declared by",
        ),
        (
            BROKERS + "[[federated_exchanges]]\nname = 'orders'\nfrom = ['east']\nto = ['west']",
            "federated_exchanges[0].name: orders is not declared in [[exchanges]] for west",
        ),
        (
            BROKERS + EXCHANGE + "[[federated_exchanges]]\nname='orders'\nfrom=['east']\nto=['east']",
            "not its own upstream",
        ),
        (BROKERS + EXCHANGE + "[[federated_exchanges]]\nname='orders'\nfrom=[]\nto=['east']", ".from: is empty"),
        (
            BROKERS + EXCHANGE + "[[federated_exchanges]]\nname='orders'\nfrom=['east']\nto=['west']\n" * 2,
            "federated_exchanges[1]: east to west is federated by federated_exchanges[0] already",
        ),
        ("[brokers.east]\nmanagement = 'e:15672'\namqp = ['amqp://e']", "brokers.east.management: e:15672: expected"),
        ("[brokers.east]\nmanagement = 'http://e'\namqp = ['amqp://u:p@e']", "expected amqp://host:port without cred"),
        ("[brokers.east]\nservice = 's'\namqp = ['amqp://e']", "stands instead of management and amqp"),
        (BROKERS.replace("amqp = [", "cluster_name = 'x'\namqp = ["), "brokers.west.cluster_name: x is east's"),
    ],
)
def test_a_mistake_is_named_with_its_place(text: str, said: str):
    """Table, number and key, then what is wrong with it."""
    assert said in mistakes(text)


def test_all_mistakes_are_told_at_once():
    """Nobody runs it ten times to learn of ten mistakes."""
    told = mistakes(BROKERS + "[[queues]]\nnam = 'q'\n[[exchanges]]\nname = 1\n[[policies]]\nname = 'p'\n")

    assert 3 == told.count("; ") + 1
    assert told.startswith("t.toml: ")


def test_a_mesh_needs_each_broker_once():
    """`from` and `to` may name the same brokers: none becomes its own upstream."""
    text = BROKERS + EXCHANGE + "[[federated_exchanges]]\nname='orders'\nfrom=['east','west']\nto=['east','west']"

    assert ("east", "west") == read(tomllib.loads(text), where="t").federated_exchanges[0].targets
