"""The line by which a worker gets transfers from the process that holds the journals: few at a time, all closed again."""

import asyncio
import os
from collections.abc import AsyncGenerator
from contextlib import aclosing

import dnslib
import pytest

from fairlead_dns.adapters import relay
from fairlead_dns.adapters.relay import Relay, RelayServer
from fairlead_dns.decisions.acl import Acl, Views, parse_networks
from fairlead_dns.decisions.asked import Asked, Came, Transport, error
from fairlead_dns.decisions.cookies import Cookies
from fairlead_dns.decisions.front import Front, Relayed
from fairlead_dns.decisions.rate import Kind, Limiter, Rates
from fairlead_dns.decisions.tsig import KeyRing, parse_keys, sign_request
from harness.names import member, names, opt, option, query, rcode

UDP, TCP = Came(Transport.UDP, "10.0.0.9"), Came(Transport.TCP, "10.0.0.9")
QUESTION = query("mesos", "IXFR")
NOW_S = 1_700_000_000
SECRETS = Cookies((bytes(16),))


class Late:
    """Answers when it may."""

    def __init__(self) -> None:
        self.may = asyncio.Event()

    async def _late(self, asked: Asked) -> bytes:
        await self.may.wait()
        return error(asked, 0)

    def reply(self, asked: Asked) -> object:
        return self._late(asked)


async def test_few_questions_wait_at_a_time() -> None:
    """However many come at once, also before the first has had its turn; when they are answered there is room again."""
    late = Late()
    front = Front(lambda: 0.0)
    front.serve(b"\5mesos\0", late)  # type: ignore[arg-type]  # a handler by its shape
    server = RelayServer(front, lambda pid: pid == os.getpid())
    await server.open()
    made = Relay(server.address)
    waiting = []
    while not made.full:
        waiting.append(made.one(QUESTION, UDP))
    assert relay.MOST_ONES == len(waiting)
    late.may.set()
    async with asyncio.timeout(20):
        replies = await asyncio.gather(*waiting)

    assert all(reply is not None and reply[:2] == QUESTION[:2] for reply in replies)
    assert not made.full
    await server.close()


async def test_few_streams_are_open_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """One more breaks off, and leaves no place taken."""
    monkeypatch.setattr(relay, "MOST_STREAMS", 1)
    late = Late()
    late.may.set()
    front = Front(lambda: 0.0)
    front.serve(b"\5mesos\0", late)  # type: ignore[arg-type]  # a handler by its shape
    server = RelayServer(front, lambda pid: pid == os.getpid())
    await server.open()
    made = Relay(server.address)
    async with asyncio.timeout(20), aclosing(made.messages(QUESTION, TCP)) as first:
        await anext(first)
        with pytest.raises(ConnectionRefusedError):
            await anext(made.messages(QUESTION, TCP))

    async with asyncio.timeout(20), aclosing(made.messages(QUESTION, TCP)) as again:
        assert await anext(again)
    await server.close()


def fronting(**parts: object) -> Front:
    made = Front(lambda: NOW_S, **parts)  # type: ignore[arg-type]  # as the test says
    made.serve(b"\5mesos\0", names(member()).answers)
    return made


def rcode_of(made: Front, packet: bytes, came: Came) -> str:
    """Of a reply that is there at once; the low bits."""
    raw = made.reply(packet, came)
    assert isinstance(raw, bytes)
    return rcode(dnslib.DNSRecord.parse(raw))


class Asks:
    """A relay that counts what it is asked, and gives nothing."""

    def __init__(self) -> None:
        self.full = False
        self.count = 0

    def one(self, packet: bytes, came: Came) -> asyncio.Future[bytes | None]:
        self.count += 1
        return asyncio.get_running_loop().create_future()

    def messages(self, packet: bytes, came: Came) -> AsyncGenerator[bytes, None]:
        self.count += 1
        return nothing()


async def nothing() -> AsyncGenerator[bytes, None]:
    return
    yield b""


@pytest.mark.parametrize("came", [UDP, TCP])
async def test_nobody_else_is_asked_for_who_may_not_ask(came: Came) -> None:
    """Not for a client that `allow_query` denies, nor for one whose signature does not hold, nor without a cookie."""
    relay = Asks()
    denied = fronting(relay=relay, views=Views(query=Acl(parse_networks(("192.0.2.0/24",)))))
    assert "REFUSED" == rcode_of(denied, QUESTION, came)
    signed = fronting(relay=relay, keys=KeyRing({}))
    (key,) = parse_keys('key "k" { algorithm hmac-sha256; secret "c2VjcmV0IG9mIHNpeHRlZW4hIQ=="; };').values()
    assert "NOTAUTH" == rcode_of(signed, sign_request(QUESTION, key, now_s=NOW_S), came)
    cautious = fronting(relay=relay, cookies=SECRETS, require_cookies=True)
    if came is UDP:
        assert "YXRRSET" == rcode_of(cautious, query("mesos", "IXFR", opt=opt(options=option(10, bytes(8)))), came)

    assert 0 == relay.count


async def test_a_flood_of_transfers_is_limited_before_anybody_is_asked() -> None:
    """As one account; with a relay that is full, SERVFAIL at once. A stream breaks off by itself."""
    relay = Asks()
    made = fronting(relay=relay, limiter=Limiter(Rates(per_second=dict.fromkeys(Kind, 3))))

    replies = [made.reply(QUESTION, UDP) for _ in range(9)]
    assert "aaa.t.t.t" == "".join("." if r is None else "t" if isinstance(r, bytes) else "a" for r in replies)
    assert 3 == relay.count
    relay.full, made.limiter = True, None
    assert "SERVFAIL" == rcode_of(made, QUESTION, UDP)
    assert isinstance(made.reply(query("mesos", "AXFR"), TCP), Relayed)
