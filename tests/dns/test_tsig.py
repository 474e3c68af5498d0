"""Signatures: made and judged as RFC 8945 says, with dnspython on the other side."""

import dns.exception
import dns.message
import dns.query
import dns.tsig
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead_dns.decisions import tsig, wire
from fairlead_dns.decisions.tsig import Error

NOW_S = 1_700_000_000
SECRET = b"sixteen bytes or so of a secret"
NAMES = {"sha1": "hmac-sha1", "sha256": "hmac-sha256", "sha384": "hmac-sha384", "sha512": "hmac-sha512"}


def key(algorithm: str = "hmac-sha256", name: str = "xfr.key", secret: bytes = SECRET) -> tsig.Key:
    wired, algorithm_wired = wire.parse_text(name), wire.parse_text(algorithm)
    assert wired is not None
    assert algorithm_wired is not None
    return tsig.Key(name=wired, algorithm=algorithm_wired, secret=secret)


def their_query(algorithm: str = "hmac-sha256", *, name: str = "xfr.key", secret: bytes = SECRET, at_s: int = NOW_S):
    """A query signed by dnspython at a given time: the message, whose `mac` is known, and its bytes."""
    message = dns.message.make_query("example.org", "SOA")
    message.use_tsig({dns.name.from_text(name): dns.tsig.Key(name, secret, algorithm)})
    return message, message.to_wire(), at_s


@pytest.fixture(autouse=True)
def clock(monkeypatch):
    """dnspython signs and checks by the clock; ours is an argument."""
    monkeypatch.setattr("time.time", lambda: float(NOW_S))


def judge(packet: bytes, *keys: tsig.Key, now_s: int = NOW_S) -> tsig.Verdict:
    signature = tsig.find(packet)
    assert signature is not None
    return tsig.verify(packet, signature, {k.name: k for k in keys}, now_s=now_s)


def ring(*keys: tsig.Key) -> tsig.KeyRing:
    return tsig.KeyRing({k.name: k for k in keys})


def notauth(packet: bytes) -> bytes:
    """The reply the front makes of a failed check, unsigned."""
    return packet[:2] + wire.header(wire.QR | tsig.NOTAUTH) + packet[12:29]


@pytest.mark.parametrize("algorithm", NAMES.values())
def test_a_query_signed_by_dnspython_holds(algorithm):
    """Every algorithm of RFC 8945 that is still to be used is understood."""
    _, packet, _ = their_query(algorithm)

    assert Error.NONE == judge(packet, key(algorithm)).error


@pytest.mark.parametrize("algorithm", NAMES.values())
def test_dnspython_takes_our_signed_reply(algorithm):
    """A reply is signed over the request's MAC."""
    message, packet, _ = their_query(algorithm)
    reply = dns.message.make_response(dns.message.from_wire(packet, keyring=False, ignore_trailing=True))
    reply.tsig = None
    signed = ring(key(algorithm)).check(packet, 0, NOW_S).sign(reply.to_wire())

    assert dns.message.from_wire(signed, keyring=message.keyring, request_mac=message.mac).had_tsig


def test_a_reply_says_beforehand_how_much_room_its_signature_takes():
    """So that a signed reply is never longer than the client can take."""
    _, packet, _ = their_query()
    checked = ring(key()).check(packet, 0, NOW_S)
    bare = packet[:2] + wire.header(wire.QR) + packet[12:29]

    assert len(bare) + checked.room >= len(checked.sign(bare))


def test_every_message_of_a_stream_is_signed_over_the_one_before():
    """dnspython checks the chain as a secondary does."""
    message, packet, _ = their_query()
    bare = message.id.to_bytes(2, "big") + wire.header(wire.QR | wire.AA) + packet[12:29]
    checked = ring(key()).check(packet, 0, NOW_S)
    signed = [checked.sign(bare) for _ in range(3)]

    context = None
    for each in signed:
        read = dns.message.from_wire(
            each, keyring=message.keyring, request_mac=message.mac, xfr=True, multi=True, tsig_ctx=context
        )
        context = read.tsig_ctx
    assert 3 == len(signed)


def test_a_message_missing_from_a_stream_is_noticed():
    """The planted fault for the test above: without its second message the chain breaks."""
    message, packet, _ = their_query()
    bare = message.id.to_bytes(2, "big") + wire.header(wire.QR | wire.AA) + packet[12:29]
    checked = ring(key()).check(packet, 0, NOW_S)
    first, _, third = (checked.sign(bare) for _ in range(3))
    context = dns.message.from_wire(
        first, keyring=message.keyring, request_mac=message.mac, xfr=True, multi=True
    ).tsig_ctx

    with pytest.raises(dns.tsig.BadSignature):
        dns.message.from_wire(
            third, keyring=message.keyring, request_mac=message.mac, xfr=True, multi=True, tsig_ctx=context
        )


def test_an_unknown_key_a_wrong_secret_and_a_wrong_clock_are_told_apart():
    """BADKEY, BADSIG, BADTIME, in this order of checks."""
    _, packet, _ = their_query()
    found = (
        judge(packet).error,
        judge(packet, key("hmac-sha512")).error,
        judge(packet, key(secret=b"another")).error,
        judge(packet, key(), now_s=NOW_S + 301).error,
        judge(packet, key(), now_s=NOW_S + 300).error,
    )

    assert (Error.BADKEY, Error.BADKEY, Error.BADSIG, Error.BADTIME, Error.NONE) == found


@pytest.mark.parametrize(
    ("keys", "late_s", "raised"),
    [
        ([], 0, dns.tsig.PeerBadKey),
        ([key(secret=b"another")], 0, dns.tsig.PeerBadSignature),
        ([key()], 1000, dns.tsig.PeerBadTime),
    ],
)
def test_dnspython_reads_the_reason_of_a_refusal(keys, late_s, raised):
    """NOTAUTH carries the error in its TSIG."""
    message, packet, _ = their_query()
    refused = ring(*keys).check(packet, 0, NOW_S + late_s).sign(notauth(packet))

    with pytest.raises(raised):
        dns.message.from_wire(refused, keyring=message.keyring, request_mac=message.mac)


def test_a_late_request_learns_our_time_signed():
    """RFC 8945, 5.2.3: the reply has the request's time signed and our time beside it."""
    _, packet, _ = their_query()
    mac = tsig.find(packet).mac
    refused = ring(key()).check(packet, 0, NOW_S + 1000).sign(notauth(packet))
    signature = tsig.find(refused)

    assert (NOW_S, (NOW_S + 1000).to_bytes(6, "big")) == (signature.time_s, signature.other)
    assert signature.mac != mac
    assert signature.mac != b""


def test_our_signed_request_holds_and_its_reply_proves_itself():
    """As NOTIFY does it: dnspython's side and ours agree in both directions."""
    ours = tsig.sign_request(wire.header(0).join((b"\x12\x34", b"\7example\3org\0\0\6\0\1")), key(), now_s=NOW_S)
    ring = {dns.name.from_text("xfr.key"): dns.tsig.Key("xfr.key", SECRET)}
    read = dns.message.from_wire(ours, keyring=ring)
    reply = dns.message.make_response(read).to_wire()

    assert tsig.proves_reply(reply, key(), tsig.find(ours).mac, now_s=NOW_S)
    assert not tsig.proves_reply(reply, key(secret=b"another"), tsig.find(ours).mac, now_s=NOW_S)
    assert not tsig.proves_reply(reply, key(), tsig.find(ours).mac, now_s=NOW_S + 1000)


def test_a_shortened_mac_is_refused():
    """Half a MAC is BADTRUNC, less is no signature at all."""
    _, packet, _ = their_query()
    signature = tsig.find(packet)
    short = tsig.Signature(**{**_fields(signature), "mac": signature.mac[:16]})
    none = tsig.Signature(**{**_fields(signature), "mac": b""})

    assert Error.BADTRUNC == tsig.verify(packet, short, {key().name: key()}, now_s=NOW_S).error
    with pytest.raises(wire.MalformedError):
        tsig.verify(packet, none, {key().name: key()}, now_s=NOW_S)


def _fields(signature):
    return {name: getattr(signature, name) for name in signature.__slots__}


def test_a_broken_signature_is_a_format_error():
    """Bytes after the TSIG, or a TSIG that is cut: FORMERR, unsigned."""
    _, packet, _ = their_query()
    checked = ring(key()).check(packet[:-1], 0, NOW_S)

    assert wire.FORMERR == checked.error
    assert (wire.FORMERR, None) == (checked.sign(notauth(packet))[3] & 15, tsig.find(checked.sign(notauth(packet))))


@given(at=st.integers(0, 200), byte=st.integers(0, 255))
def test_a_changed_byte_never_passes_and_never_raises_another_error(at, byte):
    """Whatever is changed: malformed, unsigned, or refused."""
    _, packet, _ = their_query()
    changed = packet[: at % len(packet)] + bytes((byte,)) + packet[at % len(packet) + 1 :]
    try:
        signature = tsig.find(changed)
        held = signature and tsig.verify(changed, signature, {key().name: key()}, now_s=NOW_S).error is Error.NONE
    except wire.MalformedError:
        held = False

    assert not held or changed == packet or changed[:2] != packet[:2] or changed.lower() == packet.lower()


@given(st.binary(min_size=12, max_size=120))
def test_junk_is_malformed_at_worst(packet):
    """Only MalformedError leaves."""
    try:
        tsig.find(packet)
    except wire.MalformedError:
        return


def test_keys_are_read_as_tsig_keygen_prints_them():
    """BIND's syntax, with its comments; a secret may hold two slashes."""
    text = '/* ours */ key "xfr.key" {\n\talgorithm hmac-sha256;\n\tsecret "ab//cdef";  // of today\n};\n'
    (found,) = tsig.parse_keys(text).values()

    assert (b"\3xfr\3key\0", b"\x0bhmac-sha256\0", b"\x69\xbf\xff\x71\xd7\x9f") == (
        found.name,
        found.algorithm,
        found.secret,
    )
    assert "69bf" not in repr(found)
    assert "cdef" not in repr(found)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("key a { algorithm hmac-md5; secret abcd; };", "algorithm hmac-md5 is none of"),
        ("key a { algorithm hmac-sha256; };", "expected algorithm and secret"),
        ("key a { algorithm hmac-sha256; secret abc; };", "no base64"),
        (
            "key a { algorithm hmac-sha256; secret abcd; }; key A { algorithm hmac-sha256; secret abcd; };",
            "given twice",
        ),
        ("server 10.0.0.1;", "not a key statement: 'server'"),
    ],
)
def test_a_wrong_key_file_is_refused_with_the_reason(text, reason):
    """And never with the secret."""
    with pytest.raises(ValueError, match=reason):
        tsig.parse_keys(text)
