"""`fairlead bus`: send and receive messages from a shell."""

import asyncio
import base64
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import click
import msgspec

from fairlead_console.output import say, show_json
from fairlead_console.use import Use, verb
from fairlead_daemon.errors import BadSettings

PROGRESS_S = 1.0


@click.group(epilog="Example: fairlead bus publish --url amqp://rabbit-1 --queue jobs 'hello'")
def bus() -> None:
    """Publish messages, confirmed; consume messages, acknowledged."""


def _broker(function: Any) -> Any:
    """Which broker: by URLs, or by the service it is in the registry."""
    for option in (
        click.option("--url", "urls", multiple=True, metavar="URL", help="amqp://user:password@host:port/vhost; several are tried in turn."),
        click.option("--service", default="", metavar="SERVICE", help="Find the broker in the registry: service key, app id or DNS name."),
        click.option("--port", default="amqp", show_default=True, help="With --service: name or index of its AMQP port."),
        click.option("--login", default="guest:guest", envvar="FAIRLEAD_BUS_LOGIN", metavar="USER:PASSWORD", help="With --service; better by FAIRLEAD_BUS_LOGIN."),
        click.option("--vhost", default="/", show_default=True, help="With --service: the virtual host."),
    ):  # fmt: skip
        function = option(function)
    return function


@bus.command(
    epilog="Example: fairlead bus publish --url amqp://rabbit-1 --queue jobs hello; or: seq 1000 | fairlead bus publish --service /demo/broker-east --exchange orders --key order.new -"
)
@click.argument("bodies", nargs=-1, metavar="BODY...")
@click.option("--exchange", default="", help="Default: the default exchange, which puts into --queue.")
@click.option("--queue", default="", help="The queue to put into, through the default exchange.")
@click.option("--key", default="", help="Routing key.")
@click.option("--header", "headers", multiple=True, metavar="NAME=VALUE")
@click.option("--transient", is_flag=True, help="Do not survive a restart of the broker; faster.")
@click.option("--mandatory", is_flag=True, help="Fail when no queue takes the message.")
@click.option("--declare", is_flag=True, help="Make --queue (durable) when it is not there.")
@click.option(
    "--window", default=1000, show_default=True, type=click.IntRange(min=1), help="How many unconfirmed at most."
)
@click.option(
    "--wait", "wait_s", default=10.0, show_default=True, metavar="SECONDS", help="For a broker to answer at first."
)
@_broker
@verb
def publish(use: Use, **options: Any) -> None:
    """Publish BODY (- reads one message a line from stdin) and wait until the broker has confirmed all."""
    if not options["bodies"]:
        raise BadSettings("no message: give a BODY, or - for lines from stdin")
    if bool(options["queue"]) == bool(options["exchange"]):
        raise BadSettings("exactly one of --queue and --exchange is needed")
    started_s = time.monotonic()
    count = asyncio.run(_publish(use, options))
    took_s = time.monotonic() - started_s
    if use.as_json:
        show_json({"confirmed": count, "took_s": round(took_s, 3)})
    else:
        say(f"confirmed: {count} messages in {took_s:.1f} s")


async def _publish(use: Use, options: dict[str, Any]) -> int:
    from fairlead_messaging import Bus, DeclareQueue, Limits  # noqa: PLC0415  # `--help` is fast without pika

    declare = [DeclareQueue(name=options["queue"])] if options["declare"] and options["queue"] else []
    limits = Limits(messages=options["window"])
    async with Bus(await _addresses(use, options), declare=declare, limits=limits) as opened:
        await opened.connected(within_s=options["wait_s"])
        return await opened.publish_all(_progressing(_messages(options), quiet=use.as_json))


def _messages(options: dict[str, Any]) -> Iterator[Any]:
    from fairlead_messaging import Message  # noqa: PLC0415  # loaded by now

    headers = dict(_pair(text) for text in options["headers"])
    for body in _bodies(options["bodies"]):
        yield Message(
            body=body,
            exchange=options["exchange"],
            routing_key=options["key"] or options["queue"],
            headers=headers,
            persistent=not options["transient"],
            mandatory=options["mandatory"] or bool(options["queue"]),
        )


def _pair(text: str) -> tuple[str, str]:
    name, sign, value = text.partition("=")
    if not sign or not name:
        raise BadSettings(f"--header {text}: expected NAME=VALUE")
    return name, value


def _bodies(texts: tuple[str, ...]) -> Iterator[bytes]:
    for text in texts:
        if text == "-":
            yield from (line.rstrip(b"\r\n") for line in sys.stdin.buffer)
        else:
            yield text.encode()


def _progressing(messages: Iterator[Any], *, quiet: bool) -> Iterator[Any]:
    """Says how far it is, once a second, to a person at a terminal."""
    told_s, count = time.monotonic(), 0
    for message in messages:
        yield message
        count += 1
        if not quiet and sys.stderr.isatty() and time.monotonic() - told_s > PROGRESS_S:
            told_s = time.monotonic()
            print(f"\r{count} sent", end="", file=sys.stderr, flush=True)  # noqa: T201  # a command's progress
    if count and not quiet and sys.stderr.isatty():
        print("\r", end="", file=sys.stderr)  # noqa: T201  # see above


@bus.command(epilog="Example: fairlead bus consume --url amqp://rabbit-1 jobs --count 10")
@click.argument("queue")
@click.option("--count", default=0, metavar="N", help="End after N messages. Default: go on until Ctrl-C.")
@click.option("--idle", "idle_s", default=0.0, metavar="SECONDS", help="End when nothing came for so long.")
@click.option("--prefetch", default=100, show_default=True, type=click.IntRange(min=1))
@click.option("--peek", is_flag=True, help="Put every message back; shows at most --prefetch.")
@click.option("--declare", is_flag=True, help="Make QUEUE (durable) when it is not there.")
@click.option(
    "--wait", "wait_s", default=10.0, show_default=True, metavar="SECONDS", help="For a broker to answer at first."
)
@_broker
@verb
def consume(use: Use, **options: Any) -> None:
    """Print the messages of QUEUE, one a line (--json: one object a line), each acknowledged once it is printed."""
    try:
        asyncio.run(_consume(use, options))
    except KeyboardInterrupt:
        return


async def _consume(use: Use, options: dict[str, Any]) -> None:
    from fairlead_messaging import Bus, DeclareQueue  # noqa: PLC0415  # `--help` is fast without pika

    declare = [DeclareQueue(name=options["queue"])] if options["declare"] else []
    async with Bus(await _addresses(use, options), declare=declare) as opened:
        await opened.connected(within_s=options["wait_s"])
        async with opened.consume(options["queue"], prefetch=options["prefetch"]) as deliveries:
            seen = []
            async for delivery in _until(aiter(deliveries), options["count"], options["idle_s"]):
                say(_line(delivery, as_json=use.as_json))
                seen.append(delivery) if options["peek"] else delivery.ack()
            for delivery in seen:
                delivery.reject(requeue=True)


async def _until(deliveries: AsyncIterator[Any], count: int, idle_s: float) -> AsyncIterator[Any]:
    """At most `count` (0: all), until nothing comes for `idle_s` (0: for ever)."""
    came = 0
    while not count or came < count:
        try:
            async with asyncio.timeout(idle_s or None):
                delivery = await anext(deliveries, None)
        except TimeoutError:
            return
        if delivery is None:
            return
        came += 1
        yield delivery


def _line(delivery: Any, *, as_json: bool) -> str:
    text = delivery.body.decode("utf-8", "replace")
    if not as_json:
        return str(text)
    body = (
        {"body": text} if text.encode() == delivery.body else {"body_base64": base64.b64encode(delivery.body).decode()}
    )
    found = {
        **body,
        "exchange": delivery.exchange,
        "routing_key": delivery.routing_key,
        "message_id": delivery.message_id,
        "redelivered": delivery.redelivered,
        "headers": delivery.headers,
    }
    return msgspec.json.encode(found, enc_hook=str).decode()


async def _addresses(use: Use, options: dict[str, Any]) -> "list[str] | Callable[[], Any]":
    if bool(options["urls"]) == bool(options["service"]):
        raise BadSettings("exactly one of --url and --service is needed")
    if options["urls"]:
        return list(options["urls"])
    from fairlead_messaging import keeping  # noqa: PLC0415  # only then

    user, _, password = options["login"].partition(":")

    async def find() -> list[str]:
        return await keeping.bus_addresses(
            use.addresses.registry, options["service"], options["port"], (user, password), options["vhost"]
        )

    return find
