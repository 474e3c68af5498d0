"""Master files: what they say, and where they are wrong."""

import dns.rdata
import dns.rdatatype
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead_dns.decisions import wire
from fairlead_dns.decisions.masterfile import BadZoneError
from harness.masters import HEAD, entries, zone


def said(text: str, **how) -> list[str]:
    """The records as `owner ttl type data`."""
    return [
        f"{wire.text(e.owner)} {e.ttl_s} {dns.rdatatype.to_text(e.kind)} "
        f"{dns.rdata.from_wire('IN', e.kind, e.rdata, 0, len(e.rdata))}"
        for e in entries(text, **how)
    ]


def test_owners_ttls_and_origins_are_inherited():
    """RFC 1035, 5.1: a blank owner is the last one; RFC 2308, 4: $TTL is for the records that name none."""
    text = "$TTL 1h\nweb 30 IN A 10.0.0.1\n    AAAA ::1\n$ORIGIN sub\n@ IN 1m TXT hi\nx CNAME @\n$TTL 5\ny.example.org. A 10.0.0.2"

    assert [
        "web.example.org 30 A 10.0.0.1",
        "web.example.org 3600 AAAA ::1",
        'sub.example.org 60 TXT "hi"',
        "x.sub.example.org 3600 CNAME sub.example.org.",
        "y.example.org 5 A 10.0.0.2",
    ] == said(text)


def test_parentheses_comments_quotes_and_escapes():
    """Over several lines; a semicolon in quotes is none."""
    text = '$TTL 1\n@ SOA ns1 (root ; who\n 1 2\n 3 4 5)\nt TXT "a;b" c\\032d\n\\046dot A 10.0.0.1\n'

    assert [
        "example.org 1 SOA ns1.example.org. root.example.org. 1 2 3 4 5",
        't.example.org 1 TXT "a;b" "c d"',
        "\\.dot.example.org 1 A 10.0.0.1",
    ] == said(text)


def test_common_types_and_unknown_ones():
    """RFC 3597: any type by number, data in hex; also of a known type."""
    lines = [
        "a MX 10 mail",
        "a SRV 0 5 80 mail",
        'a CAA 0 issue "ca.example"',
        f"a TLSA 3 1 1 {'ab' * 32}",
        f"a SSHFP 1 1 {'ab' * 20}",
        "a NAPTR 1 1 S SIP+D2U !x!y! .",
        "a HTTPS 1 . alpn=h2",
        "a LOC 1 N 1 E 1m",
        "a TYPE731 \\# 3 0102 03",
        "a A \\# 4 0a000001",
    ]
    kinds = [line.split()[2] for line in said("$TTL 1\n" + "\n".join(lines))]

    assert ["MX", "SRV", "CAA", "TLSA", "SSHFP", "NAPTR", "HTTPS", "LOC", "TYPE731", "A"] == kinds


def test_generate_counts_as_bind_does():
    """Offset, width and base, on both sides; a dollar by escape."""
    text = "$TTL 1\n$GENERATE 1-5/2 h${10,3,x} A 10.0.0.$\n$GENERATE 2-2 p-$ 7 IN TXT \\$$\n"

    assert [
        "h00b.example.org 1 A 10.0.0.1",
        "h00d.example.org 1 A 10.0.0.3",
        "h00f.example.org 1 A 10.0.0.5",
        'p-2.example.org 7 TXT "$2"',
    ] == said(text)


def test_an_included_file_has_an_origin_of_its_own_and_leaves_ours():
    """RFC 1035, 5.1: origin and owner are as before after it."""
    text = "$TTL 1\nweb A 10.0.0.1\n$INCLUDE hosts sub\n  A 10.0.0.2\nweb2 A 10.0.0.3\n"

    assert [
        "web.example.org 1 A 10.0.0.1",
        "h.sub.example.org 1 A 10.9.9.9",
        "web.example.org 1 A 10.0.0.2",
        "web2.example.org 1 A 10.0.0.3",
    ] == said(text, others={"hosts": "$ORIGIN deep\n$ORIGIN sub.example.org.\nh A 10.9.9.9\n"})


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("web A 10.0.0", "zone:5: .*"),
        ("web A 10.0.0.1 10.0.0.2", "zone:5: .*"),
        ("web FOO 10.0.0.1", "zone:5: unknown type FOO"),
        ("web AXFR x", "zone:5: type AXFR is for messages"),
        ("web CH TXT x", "zone:5: class CH is not served"),
        ("web.example.com. A 10.0.0.1", "zone:5: web.example.com. is outside of the zone example.org."),
        (f"{'a' * 64} A 10.0.0.1", "zone:5: .*label"),
        ("\n\nweb TXT (a\nb", "zone:7: .*"),
        ("$BREAK", "zone:5: unknown directive \\$BREAK"),
        ("$INCLUDE nothing", "zone:5: nothing: no such file"),
        ("$INCLUDE again", "again:1: more than 8 files deep"),
        ("$INCLUDE broken", "broken:2: .*"),
        ("$GENERATE 1-999999 a$ A 10.0.0.1", "zone:5: \\$GENERATE makes more than"),
        ("$GENERATE 1-3/0 h$ A 1.2.3.4", "zone:5: \\$GENERATE: 1-3/0: STEP is less than 1"),
        ("$GENERATE 3-1 h$ A 1.2.3.4", "zone:5: \\$GENERATE: 3-1: START is more than STOP"),
        ("$GENERATE /1 h$ A 1.2.3.4", "zone:5: \\$GENERATE: '/1' is no range"),
        ("$TTL forever", "zone:5: .*"),
        ("web TYPE731 \\# 2 0102 03", "zone:5: .*"),
    ],
)
def test_a_mistake_is_named_with_file_line_and_reason(text, reason):
    """The fifth line of the test's zone; in an included file, that file's."""
    with pytest.raises(BadZoneError, match=f"^{reason}"):
        entries(HEAD + text, others={"again": "$INCLUDE again", "broken": "\nx A y\n"})


@pytest.mark.parametrize(
    ("head", "text", "reason"),
    [
        ("", "$TTL 1\n@ NS ns1", "0 SOA records"),
        ("", "$TTL 1\n@ SOA ns1 root 1 2 3 4 5", "no NS record"),
        (HEAD, "@ SOA ns1 root 2 2 3 4 5", "2 SOA records"),
        (HEAD, "a SOA ns1 root 2 2 3 4 5", "zone:5: SOA of a.example.org"),
        (HEAD, "a CNAME b\na A 10.0.0.1", "zone:5: a.example.org has a CNAME and other records"),
        (HEAD, "a CNAME b\na CNAME c", "zone:5: a.example.org has several CNAME"),
        (HEAD, "a DNAME b\nx.a A 10.0.0.1", "zone:6: x.a.example.org lies below the DNAME"),
        ("", "web A 10.0.0.1", "zone:1: no TTL"),
    ],
)
def test_a_zone_nobody_could_serve_is_refused(head, text, reason):
    """With the place of the record where there is one."""
    with pytest.raises(BadZoneError, match=reason):
        zone(text, head=head)


def test_what_is_doubtful_is_served_and_said():
    """Several TTLs in a set; a server that is an alias, one without address."""
    made = zone("a 5 A 10.0.0.1\na 7 A 10.0.0.2\nb MX 1 c\nc CNAME a\n@ NS nowhere\n")

    assert {
        "zone:6: a.example.org has records of one type with several TTLs: the least counts",
        "zone:3: nowhere.example.org has no address",
        "zone:7: c.example.org is an alias",
    } == set(made.warnings)
    assert 5 == made.names[b"\1a\7example\3org\0"][wire.A].ttl_s


@given(st.text(alphabet='@$ab .\\"();\n\t0123456789ACNMETXINCLUDRGO#{}-*', max_size=120))
def test_junk_is_refused_and_never_crashes(text):
    """Whatever stands in a file: records, or BadZoneError."""
    try:
        entries("$TTL 1\n" + text)
    except BadZoneError as error:
        assert str(error).startswith("zone:")  # noqa: PT017  # junk may well be legal too
