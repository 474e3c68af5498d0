"""The front: what every packet goes through, whatever transport it came by."""

import asyncio
from collections.abc import Iterator
from dataclasses import replace

import dnslib
import pytest

from fairlead_dns.decisions import wire
from fairlead_dns.decisions.acl import ALL, LOCAL, Acl, Views, parse_networks
from fairlead_dns.decisions.asked import Asked, Came, Handled, Transport, error
from fairlead_dns.decisions.cookies import Cookies
from fairlead_dns.decisions.front import Front, Stream, Waiting
from fairlead_dns.decisions.identity import Identity, told
from fairlead_dns.decisions.rate import Kind, Limiter, Rates
from fairlead_dns.decisions.static import StaticAnswers
from fairlead_dns.decisions.tsig import KeyRing, find, parse_keys, proves_reply, sign_request
from harness.masters import zone
from harness.names import data, ede, member, names, opt, opt_of, option, query, rcode

WEB = "web.marathon.mesos"
UDP, TCP, DOT, DOH = (Came(transport, "10.0.0.9") for transport in Transport)
NOW_S = 1_700_000_000


class Says:
    """A handler that says one thing of whatever it is asked, and remembers the last question."""

    def __init__(self, said: Handled = None) -> None:
        self.said = said
        self.last: Asked | None = None

    def reply(self, asked: Asked) -> Handled:
        self.last = asked
        return error(asked, wire.NOERROR) if self.said is None else self.said


def front(**parts: object) -> Front:
    """Our names, at a fixed time."""
    made = Front(lambda: NOW_S, **parts)
    made.serve(b"\5mesos\0", names(member()).answers)
    return made


def said(made: Front, packet: bytes, came: Came = UDP) -> dnslib.DNSRecord:
    raw = made.reply(packet, came)
    assert isinstance(raw, bytes)
    return dnslib.DNSRecord.parse(raw)


def options_of(reply: dnslib.DNSRecord) -> dict[int, bytes]:
    return {o.code: bytes(o.data) for o in opt_of(reply).rdata}


@pytest.mark.parametrize("came", [UDP, TCP, DOT, DOH])
def test_every_transport_gets_the_same(came: Came) -> None:
    """An answer, a refusal, an error, a silence: the transport changes none of them."""
    made = front()

    assert ["10.0.0.1"] == data(said(made, query(WEB), came))
    assert ("REFUSED", 20) == (
        rcode(said(made, query("x.org", opt=opt()), came)),
        ede(said(made, query("x.org", opt=opt()), came)),
    )
    assert "FORMERR" == rcode(said(made, query(WEB)[:20], came))
    assert None is made.reply(b"\0" * 11, came)
    assert None is made.reply(query(WEB, flags=0x8000), came)


@pytest.mark.parametrize("name", ["WeB.marathon.MESOS", "nOpE.mesos", "MaRaThOn.mesos", "x.OrG"])
def test_the_question_comes_back_in_its_case(name: str) -> None:
    """An answer, no such name, no data, a refusal: resolvers that mix the case throw away what does not match (0x20)."""
    made, asked = front(), query(name)
    for _ in range(2):
        for came in (UDP, TCP):
            raw = made.reply(asked, came)
            assert isinstance(raw, bytes)
            assert asked[12:] == raw[12 : len(asked)]


def test_the_longest_apex_answers() -> None:
    """A zone inside ours has its own handler; taken away, ours answers again."""
    made, inner = front(), Says()
    made.serve(b"\3sub\5mesos\0", inner)
    said(made, query("a.SUB.mesos"))

    assert inner.last is not None
    assert (b"\1a\3sub\5mesos\0", 0) == (inner.last.query.name, inner.last.opcode)
    made.withdraw(b"\3sub\5mesos\0")
    assert "NXDOMAIN" == rcode(said(made, query("a.sub.mesos")))


def test_a_new_handler_is_asked_at_once() -> None:
    """Packets prebuilt by another handler are gone."""
    made = front()
    said(made, query(WEB))
    assert made.views.tables[UDP.client]
    made.serve(b"\3web\x08marathon\5mesos\0", Says())

    assert not made.views.tables[UDP.client]
    assert [] == data(said(made, query(WEB)))


def test_update_is_refused_and_notify_not_known() -> None:
    """Nobody changes our zone from outside; who takes no NOTIFY says so."""
    made = front()
    for opcode, code in ((5, "REFUSED"), (4, "NOTIMP")):
        reply = said(made, query("mesos", "SOA", flags=opcode << 11))

        assert (code, opcode) == (rcode(reply), reply.header.opcode)


def test_notify_reaches_who_takes_it() -> None:
    """Registered with notify=True."""
    made, secondary = front(), Says()
    made.serve(b"\3sec\0", secondary, notify=True)

    assert "NOERROR" == rcode(said(made, query("sec", "SOA", flags=4 << 11)))
    assert secondary.last is not None
    assert 4 == secondary.last.opcode


# --- access -----------------------------------------------------------------------------------------------------------


def test_who_may_not_ask_is_refused_with_the_reason() -> None:
    """EDE 18, over every transport, also for what was prebuilt for others."""
    made = front(views=Views(query=Acl(parse_networks(("10.0.0.0/24", "2001:db8::/32")))))
    said(made, query(WEB, opt=opt()))
    for client in ("10.0.1.1", "2001:db9::1", "", "not an address"):
        for transport in Transport:
            reply = said(made, query(WEB, opt=opt()), Came(transport, client))

            assert ("REFUSED", 18, []) == (rcode(reply), ede(reply), data(reply))
        assert not made.views.tables[client]
    for client in ("10.0.0.200", "2001:db8:1::1", "::ffff:10.0.0.3"):
        assert "NOERROR" == rcode(said(made, query(WEB, opt=opt()), Came(Transport.UDP, client)))


def test_recursion_is_for_those_it_is_open_to() -> None:
    """RA says the truth in every reply; the others are refused without asking the forwarder."""
    made, forwarder = front(views=Views(query=ALL, recursion=LOCAL)), Says()
    made.serve(b"\0", forwarder, recursive=True)
    inside, outside = Came(Transport.UDP, "192.168.3.4"), Came(Transport.UDP, "8.8.8.8")

    assert ("NOERROR", 1) == (rcode(said(made, query("x.org"), inside)), said(made, query("x.org"), inside).header.ra)
    forwarder.last = None
    refused = said(made, query("x.org", opt=opt()), outside)
    assert ("REFUSED", 18, 0, None) == (rcode(refused), ede(refused), refused.header.ra, forwarder.last)
    for _ in range(2):  # the second one is prebuilt
        assert (1, 0) == tuple(said(made, query(WEB), came).header.ra for came in (inside, outside))


def test_views_are_told_apart_by_the_classifier() -> None:
    """Each place has its own prebuilt answers; there are few places and many clients."""
    views = Views(classify=lambda client: client.startswith("10."))
    made = front(views=views)
    said(made, query(WEB))
    said(made, query(WEB), Came(Transport.UDP, "11.0.0.1"))
    tables = [views.of(client).fast for client in ("10.0.0.9", "10.9.9.9", "11.0.0.1")]

    assert tables[0] is tables[1]
    assert tables[0] is not tables[2]
    assert (1, 1) == (len(tables[0]), len(tables[2]))


def test_the_views_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A flood from invented addresses, and a classifier that gives each a place."""
    monkeypatch.setattr("fairlead_dns.decisions.acl.CLIENTS", 100)
    monkeypatch.setattr("fairlead_dns.decisions.acl.VIEWS", 10)
    views = Views(classify=lambda client: client)
    made = front(views=views)
    for number in range(500):
        said(made, query(WEB), Came(Transport.UDP, f"10.0.{number >> 8}.{number & 255}"))

    assert len(views.tables) <= 100
    assert sum(len(table) for table in views.tables.values()) <= 10


@pytest.mark.parametrize("text", ["10.0.0.1/8", "x", "10.0.0.0/33", ""])
def test_what_is_no_network_is_named(text: str) -> None:
    """Also one with bits beyond its mask, which is a typing error."""
    with pytest.raises(ValueError, match="is no network"):
        parse_networks((text,))


# --- cookies, NSID, keepalive, padding --------------------------------------------------------------------------------

SECRETS = Cookies((b"0123456789abcdef",))


def test_a_cookie_is_learnt_and_then_valid() -> None:
    """Sixteen bytes of the server beside eight of the client; given back, the same ones come again."""
    made = front(cookies=SECRETS)
    learnt = options_of(said(made, query(WEB, opt=opt(options=option(10, b"abcdefgh")))))[10]

    assert (24, b"abcdefgh") == (len(learnt), learnt[:8])
    again = said(made, query(WEB, opt=opt(options=option(10, learnt))))
    assert ({10: learnt}, ["10.0.0.1"]) == (options_of(again), data(again))


@pytest.mark.parametrize("size", [0, 7, 9, 15, 41])
def test_a_cookie_of_a_wrong_length_is_formerr(size: int) -> None:
    """With OPT, without a cookie."""
    reply = said(front(cookies=SECRETS), query(WEB, opt=opt(options=option(10, bytes(size)))))

    assert ("FORMERR", {}) == (rcode(reply), options_of(reply))


def test_without_secrets_cookies_are_passed_over() -> None:
    """Not echoed, not checked: nobody is told something that no one can prove."""
    reply = said(front(), query(WEB, opt=opt(options=option(10, b"abc"))))

    assert ("NOERROR", {}) == (rcode(reply), options_of(reply))


def test_a_query_without_question_is_for_a_cookie() -> None:
    """RFC 7873, 5.4: NOERROR with the cookie and no question; without one FORMERR (RFC 9619)."""
    made = front(cookies=SECRETS)
    bare = b"\1\2\0\0\0\0\0\0\0\0\0\1"
    raw = made.reply(bare + opt(options=option(10, b"abcdefgh")), UDP)
    assert isinstance(raw, bytes)

    assert (b"\1\2\x80\0\0\0\0\0\0\0\0\1", 12 + 11 + 4 + 24) == (raw[:12], len(raw))
    refused = made.reply(bare + opt(), UDP)
    assert isinstance(refused, bytes)
    assert wire.FORMERR == refused[3] & 15


def test_where_cookies_are_required_nobody_is_flooded() -> None:
    """Over UDP: with a client's cookie alone BADCOOKIE and a good one, with that the answer, without any an empty cut
    reply. Over TCP the answer.
    """
    made = front(cookies=SECRETS)
    made.require_cookies = True
    bad = said(made, query(WEB, opt=opt(options=option(10, b"abcdefgh"))))
    good = said(made, query(WEB, opt=opt(options=option(10, options_of(bad)[10]))))
    plain = [said(made, query(WEB, opt=extra)) for extra in (b"", opt())]

    assert (wire.BADCOOKIE, []) == (bad.header.rcode | opt_of(bad).ttl >> 24 << 4, data(bad))
    assert ("NOERROR", ["10.0.0.1"]) == (rcode(good), data(good))
    assert [("NOERROR", 1, [])] * 2 == [(rcode(r), r.header.tc, data(r)) for r in plain]
    assert 3 == made.tally.uncookied
    assert ["10.0.0.1"] == data(said(made, query(WEB), TCP))


def test_options_leave_room_for_themselves() -> None:
    """However long the options are, a datagram is no longer than the client takes."""
    made = Front(lambda: NOW_S, cookies=SECRETS, identity=Identity(nsid=b"n" * 100))
    made.serve(b"\5mesos\0", names(*(member(n) for n in range(80))).answers)
    for size in (512, 700, 1232, 4096):
        asked = query(WEB, opt=opt(size, options=option(10, b"abcdefgh") + option(3)))
        raw = made.reply(asked, UDP)
        assert isinstance(raw, bytes)

        assert size - 100 <= len(raw) <= min(size, 1232) or size == 4096
        assert {10, 3} == set(options_of(dnslib.DNSRecord.parse(raw)))


def test_nsid_is_given_to_who_asks() -> None:
    """Only when it is set, and only then."""
    asked = query(WEB, opt=opt(options=option(3)))

    assert {3: b"dns-1"} == options_of(said(front(identity=Identity(nsid=b"dns-1")), asked))
    assert {} == options_of(said(front(identity=Identity(nsid=b"dns-1")), query(WEB, opt=opt())))
    assert {} == options_of(said(front(), asked))


@pytest.mark.parametrize("name", ["version.bind", "VERSION.server", "hostname.bind", "id.server"])
def test_chaos_names_are_told_when_they_may_be(name: str) -> None:
    """TXT of class CH; hidden unless set, and other names refused."""
    open_one = front(identity=Identity(chaos=told("fairlead", "dns-1")))
    reply = said(open_one, query(name, "TXT", klass=3, opt=opt()))

    assert ("NOERROR", 3, 1) == (rcode(reply), reply.rr[0].rclass, len(reply.rr))
    assert "fairlead" in str(reply.rr[0].rdata) or "dns-1" in str(reply.rr[0].rdata)
    assert "NOERROR" == rcode(said(open_one, query(name, "A", klass=3)))
    assert "REFUSED" == rcode(said(open_one, query("mesos", "TXT", klass=3)))
    assert "REFUSED" == rcode(said(front(), query(name, "TXT", klass=3)))


def test_keepalive_is_told_over_streams() -> None:
    """RFC 7828: in tenths of a second, over TCP and DoT, never over UDP or HTTP."""
    made = front(keepalive_s=12.5)
    asked = query(WEB, opt=opt(options=option(11)))
    found = [options_of(said(made, asked, came)) for came in (UDP, TCP, DOT, DOH)]

    assert [{}, {11: b"\0\x7d"}, {11: b"\0\x7d"}, {}] == found


def test_what_is_encrypted_is_padded() -> None:
    """RFC 8467: to multiples of 468 bytes, for clients that pad; never in the clear."""
    made = front()
    asked = query(WEB, opt=opt(options=option(12, bytes(20))))
    sizes = [len(made.reply(asked, came) or b"") for came in (UDP, TCP, DOT, DOH)]

    assert ([468, 468], True) == (sizes[2:], max(sizes[:2]) < 100)


# --- replies that are not there yet -----------------------------------------------------------------------------------


async def test_a_handler_may_answer_later() -> None:
    """The cookie stands in the late reply too."""
    made = front(cookies=SECRETS)
    future: asyncio.Future[bytes | None] = asyncio.get_running_loop().create_future()
    later = Says(future)
    made.serve(b"\0", later)
    waiting = made.reply(query("x.org", opt=opt(options=option(10, b"abcdefgh"))), UDP)
    assert isinstance(waiting, Waiting)
    assert later.last is not None
    future.set_result(error(later.last, wire.NXDOMAIN))

    late = waiting.finish(await waiting.awaitable)
    assert late is not None
    assert ("NXDOMAIN", {10}) == (rcode(dnslib.DNSRecord.parse(late)), set(options_of(dnslib.DNSRecord.parse(late))))
    failed = waiting.failed()
    assert failed is not None
    assert ("SERVFAIL", 22) == (rcode(dnslib.DNSRecord.parse(failed)), ede(dnslib.DNSRecord.parse(failed)))
    assert None is waiting.finish(None)


def test_a_handler_may_answer_in_several_messages() -> None:
    """Pulled one by one; over transports that cannot, a zone transfer is refused before the handler is asked."""

    def messages() -> Iterator[bytes]:
        yield from (b"one", b"two")

    made, streaming = front(), Says(messages())
    made.serve(b"\3big\0", streaming)
    for came in (UDP, DOH):
        assert "REFUSED" == rcode(said(made, query("big", "AXFR"), came))
    assert None is streaming.last
    stream = made.reply(query("big", "AXFR"), TCP)

    assert isinstance(stream, Stream)
    assert [b"one", b"two"] == list(stream.messages)


# --- the rate limit in its place --------------------------------------------------------------------------------------


def limited() -> Front:
    return front(cookies=SECRETS, limiter=Limiter(Rates(per_second=dict.fromkeys(Kind, 3))))


def kinds(made: Front, packet: bytes, came: Came, count: int = 9) -> str:
    """`a` answered, `t` cut, `.` silence."""
    replies = [made.reply(packet, came) for _ in range(count)]
    return "".join("." if r is None else "t" if isinstance(r, bytes) and r[2] & 2 else "a" for r in replies)


def test_floods_over_udp_are_limited() -> None:
    """The first through the handler, the rest prebuilt: one account for both, and for all names that do not exist."""
    made = limited()

    assert "aaa.t.t.t" == kinds(made, query(WEB), UDP)
    missing = [made.reply(query(f"x{n}.mesos"), UDP) for n in range(6)]
    assert [True, True, True, False] == [r is not None for r in missing[:4]]


@pytest.mark.parametrize("came", [TCP, DOT, DOH])
def test_who_cannot_be_spoofed_is_not_limited(came: Came) -> None:
    """Connections are proof of an address."""
    assert "a" * 9 == kinds(limited(), query(WEB), came)


def test_a_valid_cookie_is_not_limited() -> None:
    """One that was only asked for is."""
    made = limited()
    first = said(made, query(WEB, opt=opt(options=option(10, b"abcdefgh"))))
    learnt = query(WEB, opt=opt(options=option(10, options_of(first)[10])))

    assert "a" * 9 == kinds(made, learnt, UDP)
    assert "aa.t" == kinds(made, query(WEB, opt=opt(options=option(10, b"abcdefgh"))), UDP, 4)


# --- TSIG, by every transport -----------------------------------------------------------------------------------------

KEYS = parse_keys('key "xfr.test" { algorithm hmac-sha256; secret "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="; };')
(KEY,) = KEYS.values()


def signed(name: str = WEB, kind: str = "A") -> tuple[bytes, bytes]:
    """A signed query and its MAC."""
    packet = sign_request(query(name, kind, opt=opt()), KEY, now_s=NOW_S)
    signature = find(packet)
    assert signature is not None
    return packet, signature.mac


@pytest.mark.parametrize("came", [UDP, TCP, DOT, DOH])
def test_a_signed_query_gets_a_signed_reply(came: Came) -> None:
    """The handler is told by whom; the reply proves that it is ours; it is never kept for others."""
    made, seen = front(keys=KeyRing(KEYS)), Says()
    made.serve(b"\3org\0", seen)
    for name in (WEB, "x.org"):
        packet, mac = signed(name)
        raw = made.reply(packet, came)
        assert isinstance(raw, bytes)
        assert proves_reply(raw, KEY, mac, now_s=NOW_S)
    assert seen.last is not None
    assert b"\3xfr\4test\0" == seen.last.key
    assert not made.views.tables[came.client]


@pytest.mark.parametrize("came", [UDP, TCP, DOT, DOH])
def test_a_false_signature_is_refused_whatever_it_comes_by(came: Came) -> None:
    """NOTAUTH, before any handler sees it; so is a signature over other bytes, and one of yesterday."""
    made, seen = front(keys=KeyRing(KEYS)), Says()
    made.serve(b"\3org\0", seen)
    packet, _ = signed("x.org")
    forged = packet.replace(b"\1x\3org", b"\1y\3org")
    old = sign_request(query("x.org"), KEY, now_s=NOW_S - 86_400)
    unknown = sign_request(query("x.org"), replace(KEY, name=b"\5other\0"), now_s=NOW_S)
    for bad in (forged, old, unknown):
        assert 9 == said(made, bad, came).header.rcode
    assert (None, 3) == (seen.last, made.tally.unsigned)


async def test_late_and_long_replies_are_signed_too() -> None:
    """A reply to wait for, and each message of a stream."""
    made, later = front(keys=KeyRing(KEYS)), asyncio.get_running_loop().create_future()
    packet, mac = signed("slow.org")
    made.serve(b"\3org\0", Says(later))
    waiting = made.reply(packet, UDP)
    assert isinstance(waiting, Waiting)
    late = waiting.finish(error_of(query("slow.org", opt=opt())))
    assert late is not None
    assert proves_reply(late, KEY, mac, now_s=NOW_S)

    packet, mac = signed("big.org", "AXFR")
    made.serve(b"\3org\0", Says(iter([error_of(query("big.org", "AXFR", opt=opt()))] * 3)))
    stream = made.reply(packet, TCP)
    assert isinstance(stream, Stream)
    messages = list(stream.messages)
    assert proves_reply(messages[0], KEY, mac, now_s=NOW_S)
    assert [True] * 3 == [find(message) is not None for message in messages]


def error_of(packet: bytes) -> bytes:
    """What a handler would say."""
    raw = Front(lambda: NOW_S).reply(packet, TCP)
    assert isinstance(raw, bytes)
    return raw


def test_random_names_under_a_wildcard_are_limited_as_one() -> None:
    """A flood of answers of a file's wildcard: the first few are sent whole, then none."""
    made = Front(lambda: NOW_S, limiter=Limiter(Rates(per_second=dict.fromkeys(Kind, 3), slip=0)))
    made.route(b"\7example\3org\0", StaticAnswers(zone("*.w A 10.0.0.9\n")).route)
    replies = [made.reply(query(f"n{n}.w.example.org", opt=opt()), UDP) for n in range(10)]

    assert (3, 7) == (sum(isinstance(reply, bytes) for reply in replies), replies.count(None))


def test_a_zone_is_for_whom_it_is_set() -> None:
    """By the longest zone, whatever the transport, also for what was prebuilt for somebody else."""
    made = front()
    made.views.zones = {
        b"\x08marathon\5mesos\0": Acl(parse_networks(("10.0.0.0/8",))),
        b"\3web\x08marathon\5mesos\0": Acl(parse_networks(("10.0.0.0/8", "192.0.2.0/24"))),
    }
    codes = {
        (client, name): [rcode(said(made, query(name, opt=opt()), replace(UDP, client=client))) for _ in range(3)][-1]
        for client in ("10.0.0.1", "192.0.2.1", "203.0.113.1")
        for name in (WEB, "_tcp.marathon.mesos", "mesos")
    }

    assert ["NOERROR"] * 3 == [codes["10.0.0.1", name] for name in (WEB, "_tcp.marathon.mesos", "mesos")]
    assert ["NOERROR", "REFUSED", "NOERROR"] == [
        codes["192.0.2.1", name] for name in (WEB, "_tcp.marathon.mesos", "mesos")
    ]
    assert ["REFUSED", "REFUSED", "NOERROR"] == [
        codes["203.0.113.1", name] for name in (WEB, "_tcp.marathon.mesos", "mesos")
    ]
    assert packet_known(made, "10.0.0.1")
    assert not packet_known(made, "203.0.113.1")


def packet_known(made: Front, client: str) -> bool:
    """Whether the UDP loop would answer without asking the front."""
    return query(WEB, opt=opt())[2:] in made.views.tables[client]
