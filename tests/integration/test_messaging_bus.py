"""`Bus` and `fairlead bus` on a real broker: what is confirmed, refused, acknowledged, and what goes back."""

import asyncio
import json
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from fairlead_daemon.errors import Refused, Unavailable
from fairlead_messaging import Bus, Consumer, DeclareQueue, Delivery, Limits, Message
from harness.house import FAIRLEAD
from harness.rabbitmq import Epmd, RabbitMQ
from harness.waiting import eventually

_numbers = count(1)


@pytest.fixture(scope="module")
def broker() -> Iterator[RabbitMQ]:
    folder = Path(tempfile.mkdtemp(prefix="fl-", dir="/tmp"))
    epmd = Epmd(folder)
    node = RabbitMQ(folder / "lone", epmd, "lone")
    try:
        yield node.start()
    finally:
        node.kill()
        epmd.stop()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def queue() -> str:
    return f"q{next(_numbers)}"


def numbered(queue: str, total: int) -> Iterator[Message]:
    return (Message(routing_key=queue, body=str(number).encode()) for number in range(total))


async def left(broker: RabbitMQ, queue: str) -> list[int]:
    """Everything in a queue, in its order."""
    found: list[int] = []
    async with Bus([broker.url]) as bus, bus.consume(queue) as deliveries:
        stream = aiter(deliveries)
        while True:
            try:
                async with asyncio.timeout(0.5):
                    delivery = await anext(stream)
            except TimeoutError:
                return found
            found.append(int(delivery.body))
            delivery.ack()


async def take(deliveries: Consumer, total: int) -> list[Delivery]:
    stream = aiter(deliveries)
    return [await anext(stream) for _ in range(total)]


async def test_what_is_not_acknowledged_goes_back(broker: RabbitMQ, queue: str):
    """Three of five acknowledged, out of order; one that was handed out and those that waited unseen come again."""
    async with Bus([broker.url], declare=[DeclareQueue(name=queue)], drain_s=0.5) as bus:
        await bus.publish_all(numbered(queue, 20))
        async with bus.consume(queue) as deliveries:
            taken = await take(deliveries, 5)
            answers = [taken[n].ack() for n in (4, 0, 1, 1)]
            taken[3].reject()

    assert [True, True, True, False] == answers
    assert [2, *range(5, 20)] == sorted(await left(broker, queue))


async def test_bad_messages_are_refused_and_the_good_ones_among_them_confirmed(broker: RabbitMQ, queue: str):
    """A broker closes the channel for one bad message and does not say which: it is found, the others arrive once."""
    bad = [Message(exchange="nowhere", body=b"-1"), Message(routing_key="nobody", mandatory=True, body=b"-2"), Message(headers={"x": object()}, body=b"-3")]  # fmt: skip
    messages = [*numbered(queue, 50)]
    for place, message in zip((10, 20, 30), bad, strict=True):
        messages.insert(place, message)
    async with Bus([broker.url], declare=[DeclareQueue(name=queue)]) as bus:
        futures = [await bus.publish(message) for message in messages]
        ends = await asyncio.gather(*futures, return_exceptions=True)

    reasons = [str(end) for end in ends if end is not None]
    assert [10, 20, 30] == [n for n, end in enumerate(ends) if isinstance(end, Refused)]
    assert all(
        part in reason
        for part, reason in zip(("no exchange 'nowhere'", "no queue takes it", "encoded"), reasons, strict=True)
    )
    assert set(range(50)) == set(await left(broker, queue))


async def test_a_small_window_makes_publishers_wait(broker: RabbitMQ, queue: str):
    """Never more unconfirmed than allowed, and all of them arrive in their order."""
    most = 0
    async with Bus([broker.url], declare=[DeclareQueue(name=queue)], limits=Limits(messages=10)) as bus:
        for message in numbered(queue, 200):
            await bus.publish(message)
            most = max(most, bus.unconfirmed)

    assert most <= 10
    assert list(range(200)) == await left(broker, queue)


async def test_a_handler_that_fails_gets_its_message_again(broker: RabbitMQ, queue: str):
    """It goes back into the queue; the others are acknowledged meanwhile."""
    seen: list[int] = []

    async def handler(delivery: Delivery) -> None:
        seen.append(int(delivery.body))
        if delivery.body == b"2" and not delivery.redelivered:
            raise ValueError("not today")

    async with Bus([broker.url], declare=[DeclareQueue(name=queue)]) as bus:
        await bus.publish_all(numbered(queue, 5))
        handling = asyncio.create_task(bus.handle(queue, handler, at_once=2))
        await eventually("all handled", lambda: twice(seen, 2))
        await bus.drain()
        await handling

    assert [0, 1, 2, 2, 3, 4] == sorted(seen)
    assert [] == await left(broker, queue)


async def twice(seen: list[int], number: int) -> bool:
    return seen.count(number) == 2 and len(set(seen)) == 5


async def test_a_queue_that_is_not_there_is_an_error(broker: RabbitMQ):
    """At the first consumption; nobody waits for a typing error."""
    async with Bus([broker.url]) as bus:
        with pytest.raises(Refused, match="no queue 'nowhere'"):
            await take(bus.consume("nowhere"), 1)


async def test_whoever_cannot_connect_is_told_why(broker: RabbitMQ, free_port: int):
    """A wrong password at once; a broker that is not there when the time is over."""
    wrong = broker.url.replace("guest:guest", "guest:wrong")
    async with Bus([wrong]) as bus:
        with pytest.raises(Refused, match="user or password is wrong"):
            await bus.connected()
    async with Bus([f"amqp://127.0.0.1:{free_port}"]) as bus:
        with pytest.raises(Unavailable, match="connection refused"):
            await bus.connected(within_s=1)


async def test_what_is_unconfirmed_at_the_end_raises(broker: RabbitMQ, free_port: int):
    """Nobody waits for ever for a broker that never came."""
    async with Bus([f"amqp://127.0.0.1:{free_port}"], drain_s=0.2) as bus:
        future = await bus.publish(Message(body=b"x"))

    with pytest.raises(Unavailable, match="the bus was closed"):
        await future


def fairlead(*words: str, stdin: str = "") -> "subprocess.CompletedProcess[str]":
    command = [str(FAIRLEAD), "bus", *words]
    return subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=60, check=False)


def test_messages_from_a_shell(broker: RabbitMQ, queue: str):
    """Lines in, lines out, in their order; --count takes so many and no more; --peek takes none."""
    url = ("--url", broker.url)
    sent = fairlead("publish", *url, "--queue", queue, "--declare", "--json", "-", stdin="a\nb\nc\nd\n")
    first = fairlead("consume", *url, queue, "--count", "2")
    peeked = fairlead("consume", *url, queue, "--count", "2", "--peek", "--json")
    rest = fairlead("consume", *url, queue, "--idle", "0.5")
    told: list[Any] = [json.loads(line) for line in peeked.stdout.splitlines()]

    assert 4 == json.loads(sent.stdout)["confirmed"]
    assert ["a\nb\n", "c\nd\n"] == [first.stdout, rest.stdout]
    assert [("c", queue), ("d", queue)] == [(row["body"], row["routing_key"]) for row in told]


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("publish", "--queue", "nobody", "x"), 1, "no queue takes it"),
        (("publish", "--queue", "q"), 2, "no message"),
        (("publish", "x"), 2, "exactly one of --queue and --exchange"),
        (("publish", "--queue", "q", "--header", "a", "x"), 2, "--header a: expected NAME=VALUE"),
        (("consume", "nobody"), 1, "no queue 'nobody'"),
    ],
)
def test_the_shell_is_told_what_is_wrong(broker: RabbitMQ, words: tuple[str, ...], code: int, said: str):
    """One line, and an exit code that says whose fault it is."""
    done = fairlead(words[0], "--url", broker.url, *words[1:])

    assert (code, True) == (done.returncode, said in done.stderr)
