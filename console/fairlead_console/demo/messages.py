"""Two apps of the demo in one script: `orders` publishes an order a second on the eastern broker, `warehouse` consumes
them on the western one. Both find their broker by its DNS name, afresh at every try, so that it may move.
"""

import asyncio
import itertools
import json
import os
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Callable

from fairlead_messaging import Bus, DeclareBinding, DeclareExchange, DeclareQueue, Message

NAME_SERVERS = os.environ["FAIRLEAD_DNS_HTTP"].split(",")
BROKER = os.environ["BROKER_SRV"]
EXCHANGE, QUEUE = "orders", "orders.warehouse"
DECLARED = (
    DeclareExchange(name=EXCHANGE, type="topic"),
    DeclareQueue(name=QUEUE),
    DeclareBinding(exchange=EXCHANGE, queue=QUEUE, routing_key="order.#"),
)
PAGE = "HTTP/1.1 {status}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"


async def find() -> list[str]:
    """The broker's URLs, from the SRV records of its name."""
    for server in NAME_SERVERS:
        try:
            return await asyncio.to_thread(ask, server)
        except OSError:
            continue
    return []


def ask(server: str) -> list[str]:
    url = f"{server}/v1/services/{urllib.parse.quote(BROKER)}."
    with urllib.request.urlopen(url, timeout=3) as response:  # noqa: S310  # an address of fairlead's own
        rows = json.load(response)
    return [f"amqp://guest:guest@{row['ip']}:{row['port']}/%2F" for row in rows if row.get("ip")]


async def orders(bus: Bus, told: dict[str, object]) -> None:
    for number in itertools.count(1):
        order = json.dumps({"number": number, "at": time.time()}).encode()
        confirmed = await bus.publish(Message(exchange=EXCHANGE, routing_key="order.new", body=order))
        await confirmed
        told.update(published=number, broker=bus.address)
        await asyncio.sleep(1)


async def warehouse(bus: Bus, told: dict[str, object]) -> None:
    seen = 0
    async for delivery in bus.consume(QUEUE, prefetch=10):
        order = json.loads(delivery.body)
        seen += 1
        took_ms = round((time.time() - order["at"]) * 1000)
        told.update(received=seen, last=order["number"], took_ms=took_ms, broker=bus.address)
        delivery.ack()


async def serve(told: dict[str, object]) -> None:
    """The counts as JSON, on every path; it is its own health check."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(5):
                await reader.readuntil(b"\r\n\r\n")
                body = json.dumps(told).encode() + b"\n"
                writer.write(PAGE.format(status="200 OK", length=len(body)).encode() + body)
                await writer.drain()
        except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass  # the asker's loss
        finally:
            writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", int(os.environ["PORT0"]))
    await server.serve_forever()


ROLES: dict[str, Callable[[Bus, dict[str, object]], object]] = {"orders": orders, "warehouse": warehouse}


async def main(role: str) -> None:
    told: dict[str, object] = {"role": role, "broker": ""}
    async with (
        Bus(find, declare=DECLARED if role == "warehouse" else DECLARED[:1]) as bus,
        asyncio.TaskGroup() as group,
    ):
        group.create_task(serve(told))
        group.create_task(ROLES[role](bus, told))  # type: ignore[arg-type]  # coroutines both


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
