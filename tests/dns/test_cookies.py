"""DNS cookies: RFC 9018's own vectors, and what is not taken."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead_dns.decisions.cookies import BadCookieError, Cookies, parse_secrets, siphash

SECRET = bytes.fromhex("e5e973e5a6b2a43f48e7dc849e37bfcf")
OLD, NEW = bytes.fromhex("dd3bdf9344b678b185a6f5cb60fca715"), bytes.fromhex("445536bcd2513298075a5d379663c962")
CLIENT, SIX = "198.51.100.100", "2001:db8:220:1:59de:d0f4:8769:82b8"
LEARNT = bytes.fromhex("2464c4abcf10c957010000005cf79f111f8130c3eee29480")
LEARNT_S = 0x5CF79F11


def test_siphash_is_its_authors() -> None:
    """The last vector of the paper."""
    assert 0xA129CA6149BE45E5 == int.from_bytes(siphash(bytes(range(16)), bytes(range(15))), "little")


def test_a_new_client_learns_a_cookie() -> None:
    """RFC 9018, A.1."""
    cookie = Cookies((SECRET,)).check(LEARNT[:8], CLIENT, LEARNT_S)

    assert (False, LEARNT) == (cookie.valid, cookie.data)


def test_an_older_cookie_is_renewed() -> None:
    """RFC 9018, A.2: after forty minutes it still counts, and a fresh one comes back."""
    cookie = Cookies((SECRET,)).check(LEARNT, CLIENT, 0x5CF7A871)

    assert (True, "2464c4abcf10c957010000005cf7a871d4a564a1442aca77") == (cookie.valid, cookie.data.hex())


def test_reserved_bits_are_hashed_and_not_copied() -> None:
    """RFC 9018, A.3; by then the cookie was too old to count."""
    given_back = bytes.fromhex("fc93fc62807ddb8601abcdef5cf78f71a314227b6679ebf5")
    soon, late = (Cookies((SECRET,)).check(given_back, "203.0.113.203", s) for s in (0x5CF78F72, 0x5CF7A9AC))

    assert True is soon.valid
    assert (False, "fc93fc62807ddb86010000005cf7a9acf73a7810aca2381e") == (late.valid, late.data.hex())


def test_a_cookie_of_the_old_secret_counts_and_is_renewed() -> None:
    """RFC 9018, A.4: IPv6, and a secret rolled over."""
    given_back = bytes.fromhex("22681ab97d52c298010000005cf7c57926556bd0934c72f8")
    cookie = Cookies((NEW, OLD)).check(given_back, SIX, 0x5CF7C609)

    assert (True, "22681ab97d52c298010000005cf7c609a6bb79d16625507a") == (cookie.valid, cookie.data.hex())


def test_a_fresh_cookie_comes_back_as_it_is() -> None:
    """For half an hour, whichever time it is asked."""
    cookies = Cookies((SECRET,))

    assert [LEARNT] * 3 == [cookies.check(LEARNT, CLIENT, LEARNT_S + s).data for s in (0, 60, 1799)]


@pytest.mark.parametrize(
    ("data", "client", "now_s"),
    [
        (LEARNT, "198.51.100.101", LEARNT_S),
        (LEARNT[:-1] + b"\0", CLIENT, LEARNT_S),
        (bytes(8) + LEARNT[8:], CLIENT, LEARNT_S),
        (LEARNT[:8] + b"\2" + LEARNT[9:], CLIENT, LEARNT_S),
        (LEARNT + b"\0", CLIENT, LEARNT_S),
        (LEARNT, CLIENT, LEARNT_S + 3601),
        (LEARNT, CLIENT, LEARNT_S - 301),
        (LEARNT, "", LEARNT_S),
    ],
)
def test_what_is_not_ours_does_not_count(data: bytes, client: str, now_s: int) -> None:
    """Another address, a changed byte, another version, too long, too old, from the future; also when one was valid."""
    cookies = Cookies((SECRET,))
    cookies.check(LEARNT, CLIENT, LEARNT_S)

    assert False is cookies.check(data, client, now_s).valid


@given(st.binary(max_size=48))
def test_lengths_outside_the_rfc_are_errors(data: bytes) -> None:
    """8, or 16 to 40 bytes; anything else is FORMERR."""
    legal = len(data) == 8 or 16 <= len(data) <= 40
    try:
        Cookies((SECRET,)).check(data, CLIENT, LEARNT_S)
        taken = True
    except BadCookieError:
        taken = False

    assert legal == taken


def test_secrets_are_read_from_lines() -> None:
    """Comments and empty lines are passed over; what is no secret is named by its line."""
    assert (NEW, OLD) == parse_secrets(f"# new\n{NEW.hex()}\n\n{OLD.hex().upper()}  # until Monday\n")
    for text in ("", "# none", "ab" * 15, "zz" * 16, "é" * 32):
        with pytest.raises(ValueError):
            parse_secrets(text)
