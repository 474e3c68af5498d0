"""The forwarder on real sockets, against an upstream of ours that lies as it is told."""

import asyncio
import ssl
import subprocess
from pathlib import Path

import pytest

from fairlead_dns.adapters.forward import Timing
from fairlead_dns.adapters.forward_sockets import tls_context
from fairlead_dns.decisions.asked import Came, Transport
from fairlead_dns.decisions.forward import Limits
from fairlead_dns.decisions.forward_cache import Policy
from fairlead_dns.decisions.forward_upstreams import Circuit, Place
from harness.names import data, ede, opt, rcode
from harness.ports import free_port
from harness.upstreams import Asking, Behaviour, Liar, always, answer, asking, forwarder_to, lying, negative
from harness.waiting import eventually

SHORT = Timing(whole_s=1.0, try_s=0.3, resend_s=0.5)


def silent(packet: bytes, tcp: bool) -> None:
    """A black hole."""


async def true(probe: object) -> bool:
    return bool(probe)


async def test_a_question_is_sent_on_and_answered() -> None:
    """The reply is ours: the client's id and case, RA, no AA, no option of the upstream's."""
    async with lying(always("192.0.2.1", flags=0x8580)) as up, asking(up.place) as it:
        reply = await it.ask("wWw.Example", number=99, opt=opt())

        assert (99, "wWw.Example.", ["192.0.2.1"]) == (reply.header.id, str(reply.q.qname), data(reply))
        assert (0, 1, [], 1) == (reply.header.aa, reply.header.ra, reply.ar[0].rdata, len(up.seen))


async def test_each_query_has_a_port_an_id_and_a_case_of_its_own() -> None:
    """Forty questions: nothing about the next can be guessed from the last."""
    async with lying(always("192.0.2.1")) as up, asking(up.place) as it:
        for number in range(40):
            await it.ask(f"a-long-name-to-mix-{number:02}.example.com")
        ids = {packet[:2] for packet in up.seen}
        cases = {packet[12:32] for packet in up.seen}

        assert min(len(up.ports), len(ids), len(cases)) >= 38


@pytest.mark.parametrize(
    "forge",
    [
        lambda p: b"\0\0" + p[2:] if p[:2] != b"\0\0" else b"\1\1" + p[2:],
        lambda p: p.replace(b"\x03com\0", b"\x03org\0").replace(b"\3Com\0", b"\3org\0"),
        lambda p: p[:2] + b"\1" + p[3:],
        lambda p: b"\0" * 12,
        lambda p: p[:7],
        lambda p: b"",
    ],
)
async def test_forged_replies_are_passed_over(forge: object) -> None:
    """Wrong id, wrong question, no reply, junk: the true one that comes after them is taken."""
    assert callable(forge)

    def behave(packet: bytes, tcp: bool) -> list[bytes]:
        lie = answer(packet, "198.51.100.66")
        return [forge(lie)] * 3 + [answer(packet, "192.0.2.1")]

    async with lying(behave) as up, asking(up.place, mixed=False) as it:
        reply = await it.ask("www.example.com")

        assert (["192.0.2.1"], 1) == (data(reply), len(up.seen))


async def test_a_reply_from_another_port_is_passed_over() -> None:
    """The kernel gives us packets of the upstream's address and port only."""
    async with lying(silent) as up, lying(silent) as other, asking(up.place) as it:

        def behave(packet: bytes, tcp: bool) -> bytes:
            assert other._transport is not None
            for port in up.ports:
                other._transport.sendto(answer(packet, "198.51.100.66"), ("127.0.0.1", port))
            return answer(packet, "192.0.2.1")

        up.behave = behave

        assert ["192.0.2.1"] == data(await it.ask("www.example.com"))


async def test_a_flood_of_forged_replies_moves_the_question_to_tcp() -> None:
    """Somebody is guessing: ask where he cannot."""

    def behave(packet: bytes, tcp: bool) -> list[bytes]:
        return [answer(packet, "192.0.2.1")] if tcp else [b"\0\0" + answer(packet, "198.51.100.66")[2:]] * 30

    async with lying(behave) as up, asking(up.place) as it:
        assert (["192.0.2.1"], 1) == (data(await it.ask("www.example.com")), up.connections)


async def test_a_folded_case_is_asked_again_over_tcp_and_then_not_mixed_any_more() -> None:
    """Three times, then the upstream is known for it and gets small letters."""

    def behave(packet: bytes, tcp: bool) -> bytes:
        return answer(packet[:12] + packet[12:].lower(), "192.0.2.1")

    async with lying(behave) as up, asking(up.place) as it:
        replies = [data(await it.ask(f"long-enough-name-{n}.example.com")) for n in range(5)]

        assert [["192.0.2.1"]] * 5 == replies
        assert (8, False) == (len(up.seen), it.upstream().keeps_case)


async def test_an_upstream_without_edns_is_asked_without() -> None:
    """FORMERR for our OPT: asked again at once, and never with one afterwards."""

    def behave(packet: bytes, tcp: bool) -> bytes:
        return answer(packet, rcode=1) if packet[11] else answer(packet, "192.0.2.1")

    async with lying(behave) as up, asking(up.place) as it:
        replies = [data(await it.ask(name)) for name in ("one.example", "two.example")]

        assert ([["192.0.2.1"]] * 2, [1, 0, 0]) == (replies, [packet[11] for packet in up.seen])


async def test_a_cut_reply_is_asked_again_over_tcp_and_cut_for_the_client() -> None:
    """60 addresses: whole for a client over TCP, with TC for one with a small buffer, from one flight."""

    def behave(packet: bytes, tcp: bool) -> bytes:
        many = [f"192.0.2.{n}" for n in range(60)]
        return answer(packet, *many) if tcp else answer(packet, many[0], flags=0x8380)

    async with lying(behave) as up, asking(up.place) as it:
        whole, small = await it.ask("www.example.com", tcp=True), await it.ask("www.example.com")

        assert (60, 0, 0, 1) == (len(whole.rr), whole.header.tc, len(small.rr), small.header.tc)
        assert 2 == len(up.seen)


@pytest.mark.parametrize(
    ("rule", "code"),
    [
        (lambda p, _: answer(p, rcode=2), 22),
        (lambda p, _: answer(p, rcode=5), 22),
        (lambda p, _: answer(p)[:-5], 22),
        (lambda p, _: answer(p, "192.0.2.1")[:-30] + b"\xff" * 40, 22),
        (silent, 22),
    ],
)
async def test_without_a_useful_reply_there_is_servfail_with_the_reason(rule: Behaviour, code: int) -> None:
    """SERVFAIL, REFUSED, garbage, silence; nothing of the garbage gets through."""
    async with lying(rule) as up, asking(up.place, timing=SHORT) as it:
        reply = await it.ask("www.example.com", opt=opt())

        assert ("SERVFAIL", code, []) == (rcode(reply), ede(reply), reply.rr)


async def test_an_unreachable_upstream_is_a_network_error() -> None:
    """Nobody listens: extended error 23, at once."""
    async with asking(Place("127.0.0.1", free_port())) as it:
        reply = await it.ask("www.example.com", opt=opt())

        assert ("SERVFAIL", 23) == (rcode(reply), ede(reply))


async def test_the_next_upstream_is_asked_when_one_cannot_answer() -> None:
    """A dead port, one that refuses, one that talks nonsense, a good one."""
    async with (
        lying(lambda p, _: answer(p, rcode=5)) as refusing,
        lying(lambda p, _: answer(p)[:-3]) as raving,
        lying(always("192.0.2.1")) as good,
        asking(Place("127.0.0.1", free_port()), refusing.place, raving.place, good.place, race=False) as it,
    ):
        assert ["192.0.2.1"] == data(await it.ask("www.example.com"))
        assert [1, 1, 1] == [len(each.seen) for each in (refusing, raving, good)]


async def test_a_late_upstream_is_raced_by_the_next() -> None:
    """A black hole first: its second is asked long before it times out, and comes first from then on."""
    async with (
        lying(silent) as hole,
        lying(always("192.0.2.1")) as good,
        asking(hole.place, good.place) as it,
    ):
        first = data(await it.ask("one.example.com"))
        others = [data(await it.ask(f"n{n}.example.com")) for n in range(10)]

        assert [["192.0.2.1"]] * 11 == [first, *others]
        assert 1 <= len(hole.seen) < 11


async def test_an_upstream_that_dies_is_left_alone_and_comes_back() -> None:
    """Three failures, a failed probe: open, and clients are told at once. A probe that is answered: used again."""
    async with lying(silent, honest=False) as up, asking(up.place, timing=SHORT, probing=True) as it:
        for number in range(3):
            await it.ask(f"n{number}.example.com")
        await eventually("it is open", lambda: true(it.upstream().circuit is Circuit.OPEN), within_s=30)
        asked = len(up.seen)
        reply = await it.ask("other.example.com", opt=opt())
        told = [packet for packet in up.seen[asked:] if b"other" in packet.lower()]
        up.behave, up.honest = always("192.0.2.1"), True
        await eventually("it is back", lambda: true(it.upstream().circuit is Circuit.CLOSED), within_s=30)

        assert ("SERVFAIL", 22, []) == (rcode(reply), ede(reply), told)
        assert ["192.0.2.1"] == data(await it.ask("more.example.com"))


async def test_a_hundred_clients_with_one_question_ask_once() -> None:
    """They all wait for the same reply."""
    async with lying(always("192.0.2.1"), delay_s=0.1) as up, asking(up.place) as it:
        replies = await asyncio.gather(*(it.ask("www.example.com", number=n) for n in range(100)))

        assert ([["192.0.2.1"]] * 100, list(range(100))) == ([data(r) for r in replies], [r.header.id for r in replies])
        assert (1, 99) == (len(up.seen), it.forwarding.tally.merged)


async def test_a_dead_upstream_holds_no_more_than_its_share() -> None:
    """500 questions into a black hole: 8 under way, 40 wait, the rest is told at once; in the end nothing is left."""
    limits = Limits(in_flight=8, waiting=40)
    async with lying(silent) as up, asking(up.place, timing=SHORT, limits=limits) as it:
        asked = [asyncio.ensure_future(it.ask(f"n{n}.example.com", opt=opt())) for n in range(500)]
        await eventually("they have been asked", lambda: true(it.forwarding.tally.shed >= 460))
        most = (it.forwarding.running, it.forwarding.waiting)
        replies = await asyncio.gather(*asked)

        assert ((8, 40), {"SERVFAIL"}) == (most, {rcode(r) for r in replies})
        assert (0, 0, 0, {}, {}) == (
            it.forwarding.running,
            it.forwarding.waiting,
            len(it.forwarding.queue),
            it.forwarding.flights,
            it.forwarding.sent,
        )


async def test_a_stale_answer_is_given_when_the_upstream_is_late() -> None:
    """After the wait: TTL 30, extended error 3; the upstream's answer is kept when it comes."""
    timing = Timing(whole_s=20, try_s=15, resend_s=10, stale_wait_s=0.1)
    async with lying(always("192.0.2.1", ttl_s=1)) as up, asking(up.place, timing=timing) as it:
        await it.ask("www.example.com")
        await asyncio.sleep(1.05)
        up.behave, up.delay_s = always("192.0.2.2"), 0.6
        late = await it.ask("www.example.com", opt=opt())
        await eventually("the new one is there", lambda: true(not it.forwarding.flights))
        fresh = await it.ask("www.example.com", opt=opt())

        assert [(["192.0.2.1"], 3, 30), (["192.0.2.2"], None)] == [
            (data(late), ede(late), late.rr[0].ttl),
            (data(fresh), ede(fresh)),
        ]


async def test_popular_names_are_fetched_before_their_time_is_over() -> None:
    """Asked all the time: no client ever waits for the second answer."""
    async with lying(always("192.0.2.1", ttl_s=200)) as up, asking(up.place) as it:
        await it.ask("www.example.com")
        (entry,) = it.forwarding.cache.entries.values()
        entry.hits, entry.stored_s = 5, entry.stored_s - 182  # three minutes later
        up.behave = always("192.0.2.2")
        old = data(await it.ask("www.example.com"))
        await eventually("the new one is there", lambda: true(len(up.seen) == 2 and not it.forwarding.flights))

        assert (["192.0.2.1"], ["192.0.2.2"]) == (old, data(await it.ask("www.example.com")))


async def test_negative_answers_are_kept_too() -> None:
    """NXDOMAIN and NODATA: asked once each."""
    rules = {b"no": 3, b"empty": 0}

    def behave(packet: bytes, tcp: bool) -> bytes:
        return negative(packet, rcode=next(code for name, code in rules.items() if name in packet.lower()))

    async with lying(behave) as up, asking(up.place) as it:
        replies = [await it.ask(name) for name in ("no.example", "empty.example", "no.example", "empty.example")]

        assert ["NXDOMAIN", "NOERROR"] * 2 == [rcode(r) for r in replies]
        assert ([1] * 4, 2) == ([len(r.auth) for r in replies], len(up.seen))


async def test_the_cache_is_bounded_under_a_flood_of_names() -> None:
    """300 names into 50 places."""
    async with lying(always("192.0.2.1")) as up, asking(up.place, policy=Policy(entries=50)) as it:
        for start in range(0, 300, 50):
            await asyncio.gather(*(it.ask(f"n{n}.example.com") for n in range(start, start + 50)))

        assert (50, 250) == (len(it.forwarding.cache.entries), it.forwarding.cache.evicted)


async def test_strangers_are_refused_and_cost_no_upstream_anything() -> None:
    """Recursion is for the clients of the list; others see neither RA nor the cache."""
    async with lying(always("192.0.2.1")) as up, asking(up.place) as it:
        await it.ask("www.example.com")
        reply = await it.ask("www.example.com", client="198.51.100.7", opt=opt())

        assert ("REFUSED", 18, 0, 1) == (rcode(reply), ede(reply), reply.header.ra, len(up.seen))


async def test_local_names_do_not_leak() -> None:
    """Not one packet goes out."""
    async with lying(always("192.0.2.1")) as up, asking(up.place) as it:
        for name in ("localhost", "printer.local", "a.onion", "1.0.168.192.in-addr.arpa", "x.test"):
            await it.ask(name)

        assert [] == up.seen


async def test_a_zone_has_upstreams_of_its_own() -> None:
    """`corp.example` goes to one, the rest to another."""
    async with (
        lying(always("192.0.2.1")) as rest,
        lying(always("10.0.0.1")) as corp,
        asking(rest.place, zones={b"\4corp\7example\0": corp.place}) as it,
    ):
        replies = [data(await it.ask(n)) for n in ("www.corp.example", "www.example", "corp.example")]

        assert [["10.0.0.1"], ["192.0.2.1"], ["10.0.0.1"]] == replies


# --- loops ------------------------------------------------------------------------------------------------------------


async def test_an_upstream_that_sends_our_question_back_to_us_is_found_out() -> None:
    """Through another server, which makes a query of its own of it: two forwarders that point at each other.

    Nobody waits for the whole time; the first to find out leaves the other alone.
    """
    async with lying(silent, honest=False) as one, lying(silent, honest=False) as two:
        here, there = forwarder_to(two.place), forwarder_to(one.place)
        tasks: set[asyncio.Task[None]] = set()

        def serve(port: Liar, by: Asking) -> None:
            """What comes to the port is asked of that forwarder, as a client would."""

            async def work(packet: bytes, addr: tuple[str, int]) -> None:
                port._send(await by.raw(packet, client="127.0.0.1"), addr)

            def received(packet: bytes, addr: tuple[str, int]) -> None:
                tasks.add(asyncio.ensure_future(work(packet, addr)))

            port.datagram_received = received

        serve(two, there)
        serve(one, here)
        running = [asyncio.ensure_future(each.forwarder.run()) for each in (here, there)]
        await eventually(
            "one has found out, which breaks the loop",
            lambda: true(any(each.upstream().looping for each in (here, there))),
        )
        reply = await here.ask("www.example.com", opt=opt())

        assert ("SERVFAIL", 22) == (rcode(reply), ede(reply))
        assert {} == here.forwarding.flights
        for task in (*running, *tasks):
            task.cancel()
        for each in (here, there):
            each.forwarder.close()


async def test_a_direct_loop_ends_with_the_first_packet() -> None:
    """Our own query comes to us as it left: SERVFAIL at once, and the upstream is known for it."""
    async with lying(silent) as up, asking(up.place) as it:

        def behave(packet: bytes, tcp: bool) -> bytes:
            replied = it.front.reply(packet, Came(Transport.UDP, "127.0.0.1"))
            assert isinstance(replied, bytes)
            return replied

        up.behave = behave
        reply = await it.ask("www.example.com")

        assert ("SERVFAIL", True, 1) == (rcode(reply), it.upstream().looping, it.forwarding.tally.loops)


# --- TCP and TLS upstreams --------------------------------------------------------------------------------------------


async def test_many_questions_share_one_connection_and_overtake_each_other() -> None:
    """Thirty at once over `tcp://`, answered in another order: one connection."""
    waiting: list[bytes] = []

    def behave(packet: bytes, tcp: bool) -> list[bytes]:
        assert tcp
        waiting.append(answer(packet, f"192.0.2.{int(packet.lower().split(b'name-')[1][:2])}"))
        return list(reversed(waiting)) if len(waiting) == 30 else []

    async with lying(behave) as up, asking(Place(up.place.ip, up.place.port, "tcp")) as it:
        replies = await asyncio.gather(*(it.ask(f"name-{n:02}.example.com") for n in range(30)))

        assert [[f"192.0.2.{n}"] for n in range(30)] == [data(r) for r in replies]
        assert 1 == up.connections


async def test_a_connection_that_has_ended_is_opened_anew() -> None:
    """The upstream closes what is idle: the next question does not fail for it."""
    async with lying(always("192.0.2.1")) as up, asking(Place(up.place.ip, up.place.port, "tcp")) as it:
        await it.ask("one.example.com")
        up.cut()
        reply = await it.ask("two.example.com")

        assert (["192.0.2.1"], 2) == (data(reply), up.connections)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One for dns.example, which is its own authority."""
    folder = tmp_path_factory.mktemp("tls")
    made = "-x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=dns.example"
    names = "subjectAltName=DNS:dns.example,IP:127.0.0.1"
    files = ["-keyout", str(folder / "key.pem"), "-out", str(folder / "cert.pem")]
    subprocess.run(["openssl", "req", *made.split(), *files, "-addext", names], check=True, capture_output=True)
    return folder


def server_side(folder: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    return context


@pytest.mark.parametrize("name", ["dns.example", ""])
async def test_tls_upstreams_are_verified_and_their_connection_shared(certificates: Path, name: str) -> None:
    """By name, or by address when none is given; queries are padded to 128 bytes."""
    async with lying(always("192.0.2.1"), tls=server_side(certificates)) as up:
        place = Place(up.place.ip, up.place.port, "tls", name)
        async with asking(place, tls=tls_context(str(certificates / "cert.pem"))) as it:
            replies = await asyncio.gather(*(it.ask(f"n{n}.example.com") for n in range(10)))

            assert [["192.0.2.1"]] * 10 == [data(r) for r in replies]
            assert (1, {0}) == (up.connections, {len(packet) % 128 for packet in up.seen})


@pytest.mark.parametrize(("name", "trusted"), [("other.example", True), ("dns.example", False)])
async def test_a_tls_upstream_that_is_not_who_it_should_be_gets_no_question(
    certificates: Path, name: str, trusted: bool
) -> None:
    """Another name in its certificate, or an authority we do not know."""
    async with lying(always("192.0.2.1"), tls=server_side(certificates)) as up:
        place = Place(up.place.ip, up.place.port, "tls", name)
        context = tls_context(str(certificates / "cert.pem") if trusted else "")
        async with asking(place, tls=context) as it:
            reply = await it.ask("www.example.com", opt=opt())

            assert ("SERVFAIL", 23, []) == (rcode(reply), ede(reply), up.seen)
