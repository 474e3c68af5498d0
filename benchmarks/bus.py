"""Confirmed persistent publishes per second through `Bus`, beside bare pika in the same run.

    bus.py [ROUNDS] [MESSAGES]

One RabbitMQ node on loopback, one durable classic queue, 100-byte bodies, one connection; broker and client share the
machine. *Bare* is pika's SelectConnection with 1,000 unconfirmed in flight and nothing else: no resend, no message
ids, nobody who waits for a message. *One by one* is pika's BlockingConnection that waits for each confirm.
Rounds alternate, so that a slow moment of the machine meets all of them. The queue is emptied between rounds.
"""

import asyncio
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pika

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from fairlead_messaging import Bus, DeclareQueue, Message
from harness.rabbitmq import Epmd, RabbitMQ

BODY = b"x" * 100
QUEUE = "bench"
WINDOW = 1000
ONE_BY_ONE = 20  # it sends so many times fewer messages: it would take as many times longer


def bare(url: str, total: int) -> float:
    """Seconds for `total` publishes, all confirmed."""
    sent = confirmed = 0
    began_s = ended_s = 0.0
    properties = pika.BasicProperties(delivery_mode=2)

    def opened(channel: pika.channel.Channel) -> None:
        nonlocal began_s

        def acked(frame: pika.frame.Method) -> None:
            nonlocal confirmed, ended_s
            confirmed = frame.method.delivery_tag if frame.method.multiple else confirmed + 1
            if confirmed >= total:
                ended_s = time.perf_counter()
                channel.connection.close()
            else:
                fill()

        def fill() -> None:
            nonlocal sent
            while sent < total and sent - confirmed < WINDOW:
                channel.basic_publish("", QUEUE, BODY, properties)
                sent += 1

        def begin(_frame: object) -> None:
            nonlocal began_s
            began_s = time.perf_counter()
            fill()

        channel.confirm_delivery(acked, callback=begin)

    connection = pika.SelectConnection(
        pika.URLParameters(url),
        on_open_callback=lambda c: c.channel(on_open_callback=opened),
        on_close_callback=lambda c, _error: c.ioloop.stop(),
    )
    connection.ioloop.start()
    return ended_s - began_s


def one_by_one(url: str, total: int) -> float:
    connection = pika.BlockingConnection(pika.URLParameters(url))
    channel = connection.channel()
    channel.confirm_delivery()
    began_s = time.perf_counter()
    for _ in range(total // ONE_BY_ONE):
        channel.basic_publish("", QUEUE, BODY, pika.BasicProperties(delivery_mode=2))
    took_s = time.perf_counter() - began_s
    connection.close()
    return took_s * ONE_BY_ONE


def batched(url: str, total: int) -> float:
    """`publish_all`: one wait for all."""

    async def run() -> float:
        async with Bus([url], declare=[DeclareQueue(name=QUEUE)]) as bus:
            await bus.connected()
            began_s = time.perf_counter()
            await bus.publish_all(Message(body=BODY, routing_key=QUEUE) for _ in range(total))
            return time.perf_counter() - began_s

    return asyncio.run(run())


def each_awaited(url: str, total: int) -> float:
    """`publish`: a future for each message, all of them awaited."""

    async def run() -> float:
        async with Bus([url], declare=[DeclareQueue(name=QUEUE)]) as bus:
            await bus.connected()
            began_s = time.perf_counter()
            await asyncio.gather(*[await bus.publish(Message(body=BODY, routing_key=QUEUE)) for _ in range(total)])
            return time.perf_counter() - began_s

    return asyncio.run(run())


WAYS: dict[str, Callable[[str, int], float]] = {
    "bare pika, windowed": bare,
    "Bus.publish_all": batched,
    "Bus.publish": each_awaited,
    "bare pika, one by one": one_by_one,
}


def main(rounds: int = 5, total: int = 20_000) -> None:
    folder = Path(tempfile.mkdtemp(prefix="fl-", dir="/tmp"))
    epmd = Epmd(folder)
    broker = RabbitMQ(folder / "bench", epmd, "bench")
    rates: dict[str, list[float]] = {way: [] for way in WAYS}
    try:
        broker.start()
        broker.api("PUT", f"/api/queues/%2F/{QUEUE}", {"durable": True})
        bare(broker.url, total)  # the first round of a fresh node is slower, whoever does it
        for _ in range(rounds):
            for way, measure in WAYS.items():
                broker.api("DELETE", f"/api/queues/%2F/{QUEUE}/contents")
                rates[way].append(total / measure(broker.url, total))
    finally:
        broker.kill()
        epmd.stop()
        shutil.rmtree(folder, ignore_errors=True)
    print(f"confirmed persistent publishes a second, {total} of 100 B, median of {rounds} rounds (lowest to highest)")
    for way, found in rates.items():
        ratio = statistics.median(a / b for a, b in zip(found, rates["bare pika, windowed"], strict=True))
        print(
            f"{way:22} {statistics.median(found):8.0f}/s  ({min(found):.0f} to {max(found):.0f})  {ratio:.2f} x bare windowed"
        )


if __name__ == "__main__":
    main(*map(int, sys.argv[1:3]))
