"""Static zones beside Knot: the same file, the same questions, the same answers."""

import socket
from collections.abc import Sequence
from pathlib import Path

import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from fairlead_dns.decisions.masterfile import BadZoneError
from fairlead_dns.decisions.static import compile_zone
from harness.knot import Knot
from harness.masters import apex_of, ask, entries
from harness.ports import free_port
from harness.waiting import wait_until

pytestmark = pytest.mark.needs("knotd")
APEX = "z.test"
LABELS = ("a", "b", "c")
OWNERS = [".".join(p) for p in [*((x,) for x in LABELS), *((x, y) for x in (*LABELS, "*") for y in LABELS)]] + [
    "*",
    "a.b.c",
    "*.a.b",
]
TARGETS = ["a", "b", "c", "a.b", "b.c", "c.a.b", "x.b", "ns", "out.test."]
KINDS = ("A", "AAAA", "TXT", "CNAME", "NS", "MX", "SRV", "DNAME", "DS")
DATA = {
    "A": "10.0.0.{n}",
    "AAAA": "::{n}",
    "TXT": "t{n}",
    "MX": "{n} {t}",
    "SRV": "0 0 {n} {t}",
    "DS": "{n} 8 2 " + "ab" * 32,
}
ASKED = [*OWNERS, "x", "x.a", "x.b", "x.a.b", "x.y.c", "y.x.a.b", "ns", "a.b.c.a", ""]

QUESTIONS = [(f"{n}.{APEX}".lstrip("."), kind) for n in ASKED for kind in ("A", "TXT", "NS", "CNAME", "DS")]

records = st.lists(
    st.tuples(st.sampled_from(OWNERS), st.sampled_from(KINDS), st.integers(1, 2), st.sampled_from(TARGETS)), max_size=9
)


def text_of(drawn, serial: int) -> str:
    head = f"$TTL 60\n@ SOA ns root {serial} 3600 600 86400 30\n@ NS ns\nns A 10.0.0.1\n"
    return head + "".join(f"{o} {k} {DATA.get(k, '{t}').format(n=n, t=t)}\n" for o, k, n, t in drawn)


@pytest.fixture(scope="module")
def knot(tmp_path_factory):
    folder: Path = tmp_path_factory.mktemp("knot")
    (folder / "z.test.zone").write_text(text_of([], 1))
    server = Knot(folder, free_port(), {APEX: ["file: z.test.zone", "zonefile-load: whole", "journal-content: none"]})
    server.start()
    server.wait_ready("knot", lambda: serial_of(server))
    yield server
    server.stop()


Asked = tuple[str, str]


def their(server: Knot, asked: Sequence[Asked]) -> dict[Asked, dns.message.Message]:
    """Knot's answers to all questions, which go out together; what is lost is asked again."""
    packets = {q: dns.message.make_query(q[0], q[1], use_edns=0, id=n).to_wire() for n, q in enumerate(asked)}
    found: dict[int, bytes] = {}
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(2)
        sock.connect(("127.0.0.1", server.port))

        def more() -> bool:
            for number, packet in enumerate(packets.values()):
                if number not in found:
                    sock.send(packet)
            while len(found) < len(packets):
                reply = sock.recv(65535)
                found[int.from_bytes(reply[:2], "big")] = reply
            return True

        wait_until("all answers of knot", more, within_s=30)
    return {q: dns.message.from_wire(found[n]) for n, q in enumerate(asked)}


def serial_of(server: Knot) -> int:
    return their(server, [(APEX, "SOA")])[APEX, "SOA"].answer[0][0].serial


def sets(section) -> frozenset:
    return frozenset((s.name, s.rdtype, s.ttl, frozenset(s)) for s in section)


def seen(message: dns.message.Message) -> tuple:
    """What both must agree on: of the additional section, the glue below the cut (Knot gives more, as it may)."""
    aa = bool(message.flags & dns.flags.AA)
    cut = None if aa or not message.authority else message.authority[0].name
    glue = [s for s in message.additional if cut is not None and s.name.is_subdomain(cut)]
    return dns.rcode.to_text(message.rcode()), aa, sets(message.answer), sets(message.authority), sets(glue)


serials = iter(range(2, 1_000_000))


@settings(
    max_examples=20,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.filter_too_much, HealthCheck.too_slow],
)
@given(drawn=records)
def test_answers_are_knots(knot, drawn):
    """Wildcards, aliases, DNAMEs, cuts and names between in every combination, all names and types asked."""
    serial = next(serials)
    text = text_of(drawn, serial)
    try:
        made = compile_zone(apex_of(APEX), entries(text, apex=APEX))
    except BadZoneError:
        assume(False)
    (knot.folder / "z.test.zone").write_text(text)
    knot.control("zone-reload", APEX)
    assert serial == serial_of(knot)
    for (full, kind), answer in their(knot, QUESTIONS).items():
        assert seen(answer) == seen(ask(made, full, kind)), f"{full} {kind} of\n{text}"
