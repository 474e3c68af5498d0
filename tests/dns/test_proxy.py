"""PROXY headers: what is read, and how much."""

import struct
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead_dns.decisions.proxy import MOST_BYTES, SIGNATURE, BadProxyError, Header, parse, wanted

REST = b"\x16\x03\x01TLS begins here\r\n"


def second(command: int = 0x21, family: int = 0x11, body: bytes = b"") -> bytes:
    return SIGNATURE + struct.pack("!BBH", command, family, len(body)) + body


def pair(client: str, local: str) -> bytes:
    return ip_address(client).packed + ip_address(local).packed + struct.pack("!HH", 4711, 53)


GOOD = [
    (b"PROXY TCP4 192.0.2.1 192.0.2.2 4711 53\r\n", "192.0.2.1", "192.0.2.2"),
    (b"PROXY TCP6 2001:db8::1 2001:db8::2 4711 53\r\n", "2001:db8::1", "2001:db8::2"),
    (b"PROXY UNKNOWN\r\n", "", ""),
    (b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n", "", ""),
    (second(body=pair("192.0.2.1", "192.0.2.2")), "192.0.2.1", "192.0.2.2"),
    (second(family=0x12, body=pair("192.0.2.1", "192.0.2.2")), "192.0.2.1", "192.0.2.2"),
    (second(family=0x21, body=pair("2001:db8::1", "2001:db8::2") + b"\x03\0\4abcd"), "2001:db8::1", "2001:db8::2"),
    (second(command=0x20), "", ""),
    (second(family=0x31, body=bytes(216)), "", ""),
    (second(family=0), "", ""),
]


@pytest.mark.parametrize(("header", "client", "local"), GOOD)
def test_headers_say_who_asks(header: bytes, client: str, local: str) -> None:
    """Both versions, both families; a health check of the proxy itself names nobody."""
    assert Header(len(header), client, local) == parse(header + REST)


@pytest.mark.parametrize(("header", "client", "local"), GOOD)
def test_not_a_byte_beyond_the_header_is_wanted(header: bytes, client: str, local: str) -> None:
    """Read as told, one has the header and nothing of what follows."""
    stream, data = header + REST, b""
    while more := wanted(data):
        data += stream[len(data) : len(data) + more]

    assert header == data


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\n",
        b"PROXY TCP4 192.0.2.1\r\n",
        b"PROXY TCP4 192.0.2.1 x 1 2\r\n",
        b"PROXY UDP4 192.0.2.1 192.0.2.2 1 2\r\n",
        b"PROXY TCP4 \xff 192.0.2.2 1 2\r\n",
        b"PROXY " + b"x" * 200,
        second(command=0x31),
        second(command=0x22),
        second(body=bytes(11)),
        second(family=0x21, body=bytes(35)),
        second(body=bytes(MOST_BYTES)),
        second(body=bytes(12))[:-1],
    ],
)
def test_what_is_no_header_is_an_error(data: bytes) -> None:
    """Nobody is let in by mistake."""
    with pytest.raises(BadProxyError):
        parse(data)


@given(
    st.one_of(
        st.binary(max_size=300),
        st.binary(max_size=300).map(SIGNATURE.__add__),
        st.binary(max_size=120).map(b"PROXY ".__add__),
    )
)
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    """In bounded steps, without any other error."""
    read = b""
    try:
        for _ in range(MOST_BYTES):
            more = wanted(read)
            if not more or len(read) + more > len(data):
                break
            read = data[: len(read) + more]
        assert parse(read).size <= len(read)
    except BadProxyError:
        pass
