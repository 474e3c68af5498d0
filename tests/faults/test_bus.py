"""What a Bus loses when brokers die: nothing that was confirmed."""

import asyncio
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from fairlead_messaging import Bus, DeclareQueue, Message
from harness.rabbitmq import Epmd, RabbitMQ
from harness.waiting import eventually

TOTAL = 10_000


@pytest.fixture
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


async def consume(bus: Bus, wanted: int) -> Counter[int]:
    """Numbers and how often each came, until `wanted` different ones have come and nothing more does."""
    seen: Counter[int] = Counter()
    async with bus.consume("numbers", prefetch=500) as deliveries:
        stream = aiter(deliveries)
        while True:
            try:
                async with asyncio.timeout(2 if len(seen) >= wanted else 30):
                    delivery = await anext(stream)
            except TimeoutError:
                return seen
            seen[int(delivery.body)] += 1
            delivery.ack()


async def test_a_broker_killed_amid_ten_thousand_messages_loses_none_that_was_confirmed(broker: RabbitMQ):
    """Killed with SIGKILL and started again, twice; what was not confirmed is sent again, so that all of them arrive."""
    await asyncio.to_thread(broker.keep, "numbers")
    confirmed: set[int] = set()
    resent_over = 0

    async def publish(bus: Bus) -> None:
        nonlocal resent_over
        futures = []
        for number in range(TOTAL):
            future = await bus.publish(Message(body=str(number).encode(), routing_key="numbers"))
            future.add_done_callback(lambda f, n=number: f.exception() is None and confirmed.add(n))
            futures.append(future)
            if number % 100 == 0:
                await asyncio.sleep(0.02)  # 10,000 take over 2 s, so that the kills come amid them
        await asyncio.gather(*futures)

    async with Bus([broker.url], declare=[DeclareQueue(name="numbers")], drain_s=60) as bus:
        publishing = asyncio.create_task(publish(bus))
        for share in (0.2, 0.6):
            await eventually("some are confirmed", lambda share=share: enough(confirmed, share), within_s=60)
            before = len(confirmed)
            await asyncio.to_thread(broker.kill)
            assert not publishing.done(), "the kill came too late to show anything"
            resent_over += bus.unconfirmed
            await asyncio.to_thread(broker.start)
            assert before <= len(confirmed) < TOTAL
        async with asyncio.timeout(60):
            await publishing
        seen = await consume(bus, TOTAL)

    assert set(range(TOTAL)) == confirmed
    assert set() == confirmed - set(seen)
    assert resent_over > 0


async def enough(confirmed: set[int], share: float) -> bool:
    return len(confirmed) > share * TOTAL


async def test_a_consumer_goes_on_after_its_broker_was_killed(broker: RabbitMQ):
    """What was delivered and not acknowledged comes again; an answer to the old delivery counts for nothing."""
    async with Bus([broker.url], declare=[DeclareQueue(name="numbers")]) as bus:
        await bus.publish_all([Message(body=b"7", routing_key="numbers")])
        stream = aiter(bus.consume("numbers"))
        first = await anext(stream)
        await asyncio.to_thread(broker.kill)
        await asyncio.to_thread(broker.start)
        async with asyncio.timeout(30):
            second = await anext(stream)

        assert (b"7", False, True) == (second.body, first.ack(), second.ack())
        assert first.message_id == second.message_id


async def test_with_several_addresses_the_next_one_is_taken(broker: RabbitMQ, free_port: int):
    """An address where nobody answers costs one try."""
    async with Bus([f"amqp://127.0.0.1:{free_port}", broker.url]) as bus:
        await eventually("a connection", lambda: connected(bus))

        assert f"amqp://127.0.0.1:{broker.port}" == bus.address


async def connected(bus: Bus) -> bool:
    return bool(bus.address)


async def test_a_blocked_broker_makes_publishers_wait_and_loses_nothing(broker: RabbitMQ):
    """An alarm of the disk blocks publishes; the bus says so, waits, and goes on when it ends."""
    async with Bus([broker.url], declare=[DeclareQueue(name="numbers")], drain_s=30) as bus:
        await bus.connected()
        await asyncio.to_thread(broker.control, "set_disk_free_limit", "100000GB")
        first = await bus.publish(Message(body=b"1", routing_key="numbers"))  # the broker says so at the first publish
        await eventually("blocked", lambda: blocked(bus))
        second = await bus.publish(Message(body=b"2", routing_key="numbers"))
        assert "disk" in bus.blocked
        assert (False, False) == (first.done(), second.done())
        await asyncio.to_thread(broker.control, "set_disk_free_limit", "50MB")
        async with asyncio.timeout(30):
            await asyncio.gather(first, second)

        assert "" == bus.blocked


async def blocked(bus: Bus) -> bool:
    return bool(bus.blocked)
