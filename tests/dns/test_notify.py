"""NOTIFY: each secondary hears of the newest serial, soon, not too often, and again until it answers."""

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import dns.flags
import dns.message
import dns.opcode
import dns.tsig
import pytest

from fairlead_dns.adapters import notifier
from fairlead_dns.adapters.notifier import Notifier
from fairlead_dns.decisions import notify, tsig, wire
from fairlead_dns.decisions.compose import RRset
from fairlead_dns.decisions.forward_upstreams import Place
from fairlead_dns.transfer_settings import Secondary
from harness.waiting import eventually

APEX = b"\5mesos\0"
KEY = tsig.Key(name=b"\1k\0", algorithm=b"\x0bhmac-sha256\0", secret=b"secret")
RING = {dns.name.from_text("k"): dns.tsig.Key("k", b"secret")}


def soa(serial: int) -> RRset:
    return RRset(APEX, wire.SOA, 5, (wire.soa_rdata(b"\0", b"\0", serial, (1, 2, 3, 4)),))


class Heard(asyncio.DatagramProtocol):
    """A secondary: what it heard and when. `answer` makes its reply of the message, None for silence."""

    def __init__(self, answer: Callable[[dns.message.Message], dns.message.Message | None]) -> None:
        self.answer = answer
        self.serials: list[int] = []
        self.times_s: list[float] = []
        self.messages: list[dns.message.Message] = []

    def connection_made(self, transport) -> None:
        self.transport = transport

    def datagram_received(self, data, addr) -> None:
        message = dns.message.from_wire(data, keyring=RING)
        self.messages.append(message)
        self.serials.append(message.answer[0][0].serial)
        self.times_s.append(time.monotonic())
        reply = self.answer(message)
        if reply is not None:
            self.transport.sendto(reply.to_wire(), addr)


@asynccontextmanager
async def telling(answer, *, key: tsig.Key | None = None) -> AsyncIterator[tuple[Notifier, Heard, list[int]]]:
    """A notifier of one secondary; the list's last number is the zone's serial."""
    loop = asyncio.get_running_loop()
    transport, heard = await loop.create_datagram_endpoint(lambda: Heard(answer), local_addr=("127.0.0.1", 0))
    port = transport.get_extra_info("sockname")[1]
    serials = [1]
    made = Notifier((Secondary(Place("127.0.0.1", port), key),), lambda _: soa(serials[-1]), "127.0.0.1")
    task = asyncio.ensure_future(made.run())
    try:
        yield made, heard, serials
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        transport.close()


async def until(what: str, probe: Callable[[], object]) -> None:
    async def check() -> object:
        return probe()

    await eventually(what, check, within_s=20)


async def test_a_new_serial_is_told_at_once_in_the_form_of_rfc_1996():
    """Opcode NOTIFY, AA, SOA asked for, the new SOA as a hint."""
    async with telling(dns.message.make_response) as (made, heard, _):
        made.changed(APEX)
        await until("it is heard", lambda: made.counts.heard)
        (message,) = heard.messages

    assert (dns.opcode.NOTIFY, True, "mesos. IN SOA", [1]) == (
        message.opcode(),
        bool(message.flags & dns.flags.AA),
        message.question[0].to_text(),
        heard.serials,
    )


async def test_many_changes_are_few_messages_and_the_last_is_told():
    """At most one each 0.25 s, whatever changes."""
    async with telling(dns.message.make_response) as (made, heard, serials):
        begun_s = time.monotonic()
        for serial in range(2, 200):
            serials.append(serial)
            made.changed(APEX)
            await asyncio.sleep(0.002)
        await until("the last is told", lambda: heard.serials[-1:] == [199])
        took_s = time.monotonic() - begun_s

    assert len(heard.serials) <= took_s / notifier.CALM_S + 2


async def test_a_secondary_that_does_not_answer_is_told_again(monkeypatch):
    """Its first answers are lost."""
    monkeypatch.setattr(notify, "RETRIES_S", (0.05,) * 5)
    replies = iter([None, None])
    async with telling(lambda m: next(replies, dns.message.make_response(m))) as (made, heard, _):
        made.changed(APEX)
        await until("it is heard", lambda: made.counts.heard)

    assert 3 == len(heard.messages)


async def test_a_secondary_that_never_answers_is_given_up_until_the_next_change(monkeypatch):
    """Nobody listens there: no crash, no busy loop."""
    monkeypatch.setattr(notify, "RETRIES_S", (0.02,) * 3)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    made = Notifier((Secondary(Place("127.0.0.1", port)),), lambda _: soa(1))
    task = asyncio.ensure_future(made.run())
    made.changed(APEX)
    await until("it is given up", lambda: made.counts.given_up == 1)
    made.changed(APEX)
    await until("it is given up again", lambda: made.counts.given_up == 2)
    task.cancel()

    assert (6, 0) == (made.counts.sent, made.counts.heard)


async def test_a_zone_that_a_secondary_is_deaf_for_holds_up_no_other():
    """It waits for the reply about one; the other is told meanwhile, and so is a later serial of the first."""
    other = b"\5other\0"
    answer = lambda m: None if "other" in m.question[0].to_text() else dns.message.make_response(m)  # noqa: E731  # short
    async with telling(answer) as (made, heard, serials):
        made.changed(other)
        await until("the first is sent", lambda: made.counts.sent)
        made.changed(APEX)
        await until("the second is heard", lambda: made.counts.heard)
        serials.append(7)
        made.changed(other)
        await until("the later serial is told", lambda: heard.serials.count(7))

    assert 0 == made.counts.given_up


async def test_signed_both_ways(monkeypatch):
    """An unsigned answer is none."""
    monkeypatch.setattr(notify, "RETRIES_S", (0.1,) * 20)
    answers = iter([unsigned, unsigned])

    def answer(message: dns.message.Message) -> dns.message.Message:
        return next(answers, dns.message.make_response)(message)

    async with telling(answer, key=KEY) as (made, heard, _):
        made.changed(APEX)
        await until("it is heard", lambda: made.counts.heard)

    assert 3 == len(heard.messages)
    assert all(m.had_tsig for m in heard.messages)


async def test_a_key_that_was_changed_counts_from_the_next_message_on():
    """Keys are read anew on SIGHUP; the secondary stays the one it is."""
    old = tsig.Key(name=KEY.name, algorithm=KEY.algorithm, secret=b"of yesterday")
    async with telling(dns.message.make_response, key=old) as (made, heard, _):
        made.keys = {KEY.name: KEY}
        made.changed(APEX)
        await until("it is heard", lambda: made.counts.heard)

    assert heard.messages[0].had_tsig


def unsigned(message: dns.message.Message) -> dns.message.Message:
    reply = dns.message.make_response(message)
    reply.use_tsig(None)
    return reply


@pytest.mark.parametrize("spoil", [lambda r: b"\0\0" + r[2:], lambda r: r[:2] + b"\0" + r[3:], lambda r: r[:5]])
def test_other_messages_are_no_replies(spoil):
    """Another id, a question, a stump."""
    request = notify.message(4711, soa(1))
    reply = request[:2] + b"\xa4\0" + request[4:]

    assert 0 == notify.reply_code(request, reply)
    assert notify.reply_code(request, spoil(reply)) is None


async def test_nobody_is_told_before_every_process_answers_what_is_told():
    """A secondary asks for the SOA at once: one that gets the old one fetches nothing, and is not told again."""
    gone = asyncio.Event()
    async with telling(dns.message.make_response) as (made, heard, serials):
        made.true = gone.wait
        made.changed(APEX)
        await asyncio.sleep(2 * notifier.CALM_S)
        assert 0 == made.counts.sent
        serials.append(2)
        made.changed(APEX)
        gone.set()
        await until("the newest is told", lambda: heard.serials[-1:] == [2])
