"""`fairlead broker` and federation on a real pair of RabbitMQ brokers that know nothing of one another."""

import asyncio
import json
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from fairlead_messaging import Bus, DeclareBinding, DeclareQueue, Message
from harness.house import FAIRLEAD
from harness.rabbitmq import Pair, RabbitMQ
from harness.waiting import wait_until

_numbers = count(1)


@pytest.fixture(scope="module")
def pair() -> Iterator[Pair]:
    folder = Path(tempfile.mkdtemp(prefix="fl-", dir="/tmp"))
    brokers = Pair(folder)
    try:
        yield brokers.start()
    finally:
        brokers.stop()
        shutil.rmtree(folder, ignore_errors=True)


class Declared:
    """A topology in a virtual host of its own on the pair: an exchange and a queue federated from east to west."""

    def __init__(self, folder: Path, pair: Pair) -> None:
        self.pair = pair
        self.number = next(_numbers)
        self.vhost = f"v{self.number}"
        self.file = folder / "topology.toml"
        self.write()

    def write(self, *more: str, without: str = "") -> None:
        parts = [self._base(), self._federated("exchanges", "orders"), self._federated("queues", "jobs"), *more]
        self.file.write_text("\n".join(part for part in parts if not without or without not in part))

    def _base(self) -> str:
        brokers = "\n".join(
            f'[brokers.{b.name}]\nmanagement = "{b.management}"\namqp = ["amqp://127.0.0.1:{b.port}"]\n'
            f'cluster_name = "{b.name}"'
            for b in (self.pair.east, self.pair.west)
        )
        return (
            f'name = "{self.vhost}"\n{brokers}\n[[vhosts]]\nname = "{self.vhost}"\n'
            f'[[exchanges]]\nvhost = "{self.vhost}"\nname = "orders"\ntype = "topic"\n'
            f'[[queues]]\nvhost = "{self.vhost}"\nname = "jobs"\n'
        )

    def _federated(self, table: str, name: str) -> str:
        return f'[[federated_{table}]]\nvhost = "{self.vhost}"\nname = "{name}"\nfrom = ["east"]\nto = ["west"]\nreconnect_delay_s = 1\n'

    def run(self, verb: str, *options: str) -> "subprocess.CompletedProcess[str]":
        command = [str(FAIRLEAD), "broker", verb, str(self.file), *options]
        return subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)

    def apply(self, *options: str) -> str:
        done = self.run("apply", *options)
        assert 0 == done.returncode, done.stdout + done.stderr
        return done.stdout

    def steps(self, *options: str) -> list[Any]:
        planned = json.loads(self.run("plan", "--json", *options).stdout)
        return [step for broker in planned["brokers"] for step in broker["steps"]]

    def states(self) -> dict[str, tuple[str, str]]:
        """State and reason of this topology's links, by the object's name."""
        rows = json.loads(self.run("links", "--json").stdout)
        return {row["name"]: (row["state"], row["why"]) for row in rows if row["vhost"] == self.vhost}

    def wait_running(self) -> None:
        wait_until(
            "both links run", lambda: {"running"} == {s for s, _ in self.states().values()}, within_s=20, every_s=0.2
        )

    def path(self, kind: str, name: str) -> str:
        return f"/api/{kind}/{self.vhost}/{quote(name, safe='')}"

    def url(self, broker: RabbitMQ) -> str:
        return f"{broker.url}/{self.vhost}"


@pytest.fixture
def declared(short_dir: Path, pair: Pair) -> Iterator[Declared]:
    topology = Declared(short_dir, pair)
    yield topology
    for broker in (pair.east, pair.west):
        if broker.found(f"/api/vhosts/{topology.vhost}") is not None:
            broker.delete_vhost(topology.vhost)


def test_applied_twice_the_second_time_does_nothing(declared: Declared):
    """A plan shows what is missing; once it is applied there is nothing to do, and links run."""
    before = [step["action"] for step in declared.steps()]
    declared.apply()

    assert {"create"} == set(before)
    assert [] == declared.steps()
    assert "nothing to do\n" == declared.apply()
    declared.wait_running()


async def test_a_message_published_on_one_broker_arrives_on_the_other(declared: Declared):
    """Through a federated exchange: a queue on west gets what is published on east."""
    declared.apply()
    declared.wait_running()
    bound = [DeclareQueue(name="audit"), DeclareBinding(exchange="orders", queue="audit", routing_key="order.#")]
    async with (
        Bus([declared.url(declared.pair.west)], declare=bound) as west,
        Bus([declared.url(declared.pair.east)]) as east,
    ):
        await west.connected()
        stream = aiter(west.consume("audit"))
        wait_until("east knows of the binding", lambda: upstream_bound(declared), every_s=0.1)
        await east.publish_all([Message(exchange="orders", routing_key="order.new", body=b"42")])
        async with asyncio.timeout(20):
            delivery = await anext(stream)
        delivery.ack()

    assert b"42" == delivery.body


def upstream_bound(declared: Declared) -> bool:
    bindings = declared.pair.east.api("GET", f"/api/exchanges/{declared.vhost}/orders/bindings/source")
    return any(row["routing_key"] == "order.#" for row in bindings)


async def test_a_federated_queue_moves_messages_to_where_consumers_are(declared: Declared):
    """East has the messages and no consumer, west a consumer and no messages: west gets them all."""
    declared.apply()
    declared.wait_running()
    async with Bus([declared.url(declared.pair.east)]) as east, Bus([declared.url(declared.pair.west)]) as west:
        await east.publish_all(Message(routing_key="jobs", body=str(n).encode()) for n in range(100))
        got = set()
        async with asyncio.timeout(30), west.consume("jobs") as deliveries:
            async for delivery in deliveries:
                delivery.ack()
                got.add(int(delivery.body))
                if len(got) == 100:
                    break

    assert set(range(100)) == got


def test_drift_is_planned_and_repaired(declared: Declared):
    """What somebody deleted or changed is found, named and put right."""
    declared.apply()
    west = declared.pair.west
    west.api("DELETE", declared.path("policies", f"fairlead.{declared.vhost}.queue.jobs"))
    upstream = declared.path("parameters/federation-upstream", f"fairlead.{declared.vhost}.east")
    west.api("PUT", upstream, {"value": {"uri": "amqp://elsewhere"}})

    found = {(step["action"], step["kind"]) for step in declared.steps()}
    assert {("create", "policy"), ("change", "upstream")} == found
    declared.apply()
    assert [] == declared.steps()


def test_federation_joins_the_keys_of_the_policy_that_would_win(declared: Declared):
    """RabbitMQ applies exactly one policy to an object: the limit of another policy stays, beside the federation."""
    west = declared.pair.west
    policy = f'[[policies]]\nvhost = "{declared.vhost}"\nname = "limit"\npattern = "^jobs"\npriority = 7\napply_to = "queues"\n'
    declared.write(policy + "definition = { max-length = 5000 }\n")
    declared.apply()

    queue = wait_until("the policy is in force", lambda: in_force(declared, west), every_s=0.2)
    assert {"max-length": 5000, "federation-upstream-set": f"fairlead.{declared.vhost}.queue.jobs"} == queue


def in_force(declared: Declared, broker: RabbitMQ) -> Any:
    return broker.api("GET", declared.path("queues", "jobs")).get("effective_policy_definition")


def test_only_what_it_made_is_deleted_and_only_when_asked(declared: Declared):
    """A queue that is no longer declared stays, goes with --prune, and one that somebody else made stays for good."""
    east = declared.pair.east
    declared.write(f'[[queues]]\nvhost = "{declared.vhost}"\nname = "old"\non = ["east"]\n')
    declared.apply()
    east.api("PUT", declared.path("queues", "foreign"), {"durable": True})
    declared.write()

    assert [] == declared.steps()
    assert ["old"] == [step["name"] for step in declared.steps("--prune")]
    declared.apply("--prune")
    assert east.found(declared.path("queues", "old")) is None
    assert east.found(declared.path("queues", "foreign")) is not None


async def test_a_queue_with_messages_is_not_pruned_without_force(declared: Declared):
    """The plan is refused, nothing of it is done, and the reason says what would be lost."""
    east = declared.pair.east
    declared.write(f'[[queues]]\nvhost = "{declared.vhost}"\nname = "full"\non = ["east"]\n')
    declared.apply()
    async with Bus([declared.url(east)]) as bus:
        await bus.publish_all([Message(routing_key="full", body=b"precious")])
    wait_until("counted", lambda: east.api("GET", declared.path("queues", "full")).get("messages"), every_s=0.2)
    declared.write()
    refused = declared.run("apply", "--prune")

    assert 1 == refused.returncode
    assert "queue full" in refused.stderr
    assert "holds 1 messages" in refused.stderr
    assert east.found(declared.path("queues", "full")) is not None
    declared.apply("--prune", "--force")
    assert east.found(declared.path("queues", "full")) is None


def test_what_cannot_be_changed_in_place_is_said_and_not_tried(declared: Declared):
    """A queue that stands there otherwise stops the whole plan before anything is done."""
    east = declared.pair.east
    east.make_vhost(declared.vhost)
    east.api("PUT", declared.path("queues", "jobs"), {"durable": True, "arguments": {"x-max-length": 3}})
    refused = declared.run("apply")

    assert 1 == refused.returncode
    assert "x-max-length: 3 -> nothing" in refused.stderr
    assert east.found(declared.path("exchanges", "orders")) is None


def test_a_brokers_refusal_comes_in_words(declared: Declared):
    """Erlang's terms and HTML's escapes stay away from people."""
    declared.write(
        f'[[policies]]\nvhost = "{declared.vhost}"\nname = "typo"\npattern = "x"\ndefinition = {{ max-lenght = 1 }}\n'
    )
    refused = declared.run("apply")

    assert 1 == refused.returncode
    assert "max-lenght: no such policy key in this version of RabbitMQ" in refused.stderr
    assert not {"<<", "&lt;"} & set(refused.stderr.split())


def test_a_wrong_login_and_an_absent_broker_are_told_apart(declared: Declared, free_port: int):
    """Exit code 1 with the reason for the one, 3 for the other."""
    secret = declared.file.parent / "secret"
    secret.write_text("guest:wrong")
    secret.chmod(0o600)
    good = declared.file.read_text()
    declared.file.write_text(good.replace("[brokers.east]", '[brokers.east]\ncredentials_file = "secret"'))
    wrong = declared.run("plan")
    declared.file.write_text(good.replace(declared.pair.east.management, f"http://127.0.0.1:{free_port}"))
    absent = declared.run("plan")

    assert (1, 3) == (wrong.returncode, absent.returncode)
    assert "user or password is wrong" in wrong.stderr
    assert f"127.0.0.1:{free_port}" in absent.stderr


def test_links_are_told_apart(declared: Declared):
    """Running; error with the reason when the upstream refuses; missing when nobody made them; unknown without a broker."""
    west = declared.pair.west
    assert {("missing", f"exchange orders in {declared.vhost} is not on the broker")} <= set(declared.states().values())
    declared.apply()
    declared.wait_running()
    west.api("DELETE", declared.path("policies", f"fairlead.{declared.vhost}.queue.jobs"))
    wait_until("the link is gone", lambda: declared.states()["jobs"][0] == "missing", every_s=0.2)
    assert "policy" in declared.states()["jobs"][1]
    assert "running" == declared.states()["orders"][0]
    assert 1 == declared.run("links").returncode


def test_a_killed_upstream_makes_its_links_an_error_until_it_is_back(declared: Declared):
    """The reason says that nobody answers there, and where; back again, the links run by themselves."""
    declared.apply()
    declared.wait_running()
    east = declared.pair.east
    east.kill()
    try:
        state, why = wait_until(
            "an error", lambda: (s := declared.states()["orders"])[0] == "error" and s, within_s=30, every_s=0.3
        )
        assert "error" == state
        assert f"connection refused at 127.0.0.1:{east.port}" == why
    finally:
        east.start()
    declared.wait_running()
