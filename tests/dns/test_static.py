"""Static zones: every kind of answer, as the RFCs have it."""

import dns.edns
import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype

from fairlead_dns.decisions import asked, wire
from fairlead_dns.decisions.static import StaticAnswers, lookup
from harness.masters import apex_of, ask, zone

TEXT = """
web A 10.0.0.2
web A 10.0.0.3
alias CNAME web
chain CNAME alias
away CNAME www.example.com.
lost CNAME nowhere
loop CNAME pool
pool CNAME loop
* .w A 10.0.0.9
deep.er TXT "below"
mail MX 10 web
srv SRV 0 0 80 web
srv SRV 0 0 81 six
six AAAA ::6
moved DNAME web-home
x.web-home A 10.0.0.4
out DNAME example.com.
sub NS ns.sub
sub NS ns1
sub NS ns.example.com.
ns.sub A 10.1.0.1
h.sub A 10.1.0.2
""".replace("* .w", "*.w")
ZONE = zone(TEXT)


def told(message) -> dict[str, list[str]]:
    """Each section's sets as text, sorted."""
    return {
        name: sorted(str(rrset).replace("\n", " | ") for rrset in section)
        for name, section in (("answer", message.answer), ("authority", message.authority))
    }


def answer(name: str, kind: str = "A") -> list[str]:
    return sorted(f"{s.name} {r.to_text()}" for s in ask(ZONE, name, kind).answer for r in s)


def rcode(name: str, kind: str = "A") -> str:
    return dns.rcode.to_text(ask(ZONE, name, kind).rcode())


def authority(name: str, kind: str = "A") -> list[str]:
    return [f"{s.name} {s.ttl} {dns.rdatatype.to_text(s.rdtype)}" for s in ask(ZONE, name, kind).authority]


def test_a_name_with_records():
    """All of a set, authoritative, the question's case kept."""
    message = ask(ZONE, "WeB.example.org")

    assert ["WeB.example.org. 10.0.0.2", "WeB.example.org. 10.0.0.3"] == answer("WeB.example.org")
    assert message.flags & dns.flags.AA
    assert "WeB.example.org." == message.answer[0].name.to_text()


def test_apex_records():
    """SOA and NS stand in the answer; the server's address goes along."""
    message = ask(ZONE, "example.org", "NS")

    assert ["example.org. ns1.example.org."] == answer("example.org", "NS")
    assert ["ns1.example.org."] == [s.name.to_text() for s in message.additional]
    assert ["example.org. ns1.example.org. root.example.org. 1 3600 600 86400 60"] == answer("example.org", "SOA")


def test_no_such_name_no_such_type_and_names_between():
    """NXDOMAIN and NODATA carry the SOA, its TTL the negative one; `er` exists, for `deep.er` does."""
    found = [
        (rcode(n, k), authority(n, k))
        for n, k in (("no", "A"), ("web", "TXT"), ("er", "A"), ("web", "TYPE999"))
        for n in (f"{n}.example.org",)
    ]

    soa = ["example.org. 60 SOA"]
    assert [("NXDOMAIN", soa), ("NOERROR", soa), ("NOERROR", soa), ("NOERROR", soa)] == found


def test_aliases_are_followed_within_the_zone():
    """To the end, to outside, to nothing (RFC 6604: then NXDOMAIN), and never round and round."""
    assert [
        "alias.example.org. web.example.org.",
        "chain.example.org. alias.example.org.",
        "web.example.org. 10.0.0.2",
        "web.example.org. 10.0.0.3",
    ] == answer("chain.example.org")
    assert ["away.example.org. www.example.com."] == answer("away.example.org")
    assert ("NXDOMAIN", ["example.org. 60 SOA"]) == (rcode("lost.example.org"), authority("lost.example.org"))
    assert ["loop.example.org. pool.example.org.", "pool.example.org. loop.example.org."] == answer("loop.example.org")
    assert ["alias.example.org. web.example.org."] == answer("alias.example.org", "CNAME")


def test_aliases_in_a_circle_are_said_once_each_and_doubted():
    """No record comes twice; aliases alone, through a DNAME and to themselves; what leads nowhere is told at loading."""
    made = zone(
        "a CNAME b\nb CNAME c\nc CNAME a\nself CNAME self\ngrow DNAME x.grow\nin CNAME y.grow\nfine CNAME ns1\n"
    )
    found = {
        label: lookup(made, bytes((len(label),)) + label.encode() + made.apex, wire.A) for label in ("a", "self", "in")
    }
    owners = {label: [wire.text(rrset.owner).split(".")[0] for rrset in f.answer] for label, f in found.items()}

    assert {"a": ["a", "b", "c"], "self": ["self"]} == {label: owners[label] for label in ("a", "self")}
    assert 1 == owners["in"].count("grow")
    assert ["a", "b", "c", "self", "in"] == [w.split()[1].split(".")[0] for w in made.warnings if "has no end" in w]


def test_wildcards_answer_for_what_is_not_there():
    """RFC 4592: at any depth, never for a name that exists, NODATA for another type."""
    assert ["q.w.example.org. 10.0.0.9"] == answer("q.w.example.org")
    assert ["p.q.w.example.org. 10.0.0.9"] == answer("p.q.w.example.org")
    assert [] == answer("w.example.org")
    assert "NOERROR" == rcode("q.w.example.org", "TXT")
    assert ["*.w.example.org. 10.0.0.9"] == answer("*.w.example.org")


def test_dname_moves_what_is_below_it():
    """RFC 6672: DNAME and a CNAME made of it, then what that leads to; the DNAME's own name is not moved."""
    assert [
        "moved.example.org. web-home.example.org.",
        "x.moved.example.org. x.web-home.example.org.",
        "x.web-home.example.org. 10.0.0.4",
    ] == answer("x.moved.example.org")
    assert [] == answer("moved.example.org")
    assert "a.out.example.org. a.example.com." in answer("a.out.example.org")


def test_a_name_a_dname_makes_too_long():
    """YXDOMAIN, with the DNAME."""
    long = ".".join(["a" * 60] * 3)
    made = zone(f"m DNAME {'b' * 60}.{'c' * 60}\n")
    message = ask(made, f"{long}.m.example.org")

    assert "YXDOMAIN" == dns.rcode.to_text(message.rcode())
    assert ["DNAME"] == [dns.rdatatype.to_text(s.rdtype) for s in message.answer]


def test_a_delegation_is_referred_with_glue():
    """No AA, NS in authority, addresses of the servers below the cut; also for the glue's own name."""
    for name in ("sub.example.org", "h.sub.example.org", "ns.sub.example.org", "no.h.sub.example.org"):
        message = ask(ZONE, name)

        assert not message.flags & dns.flags.AA
        assert ([], ["sub.example.org. 300 NS"]) == (message.answer, authority(name))
        assert {"ns.sub.example.org.", "ns1.example.org."} == {s.name.to_text() for s in message.additional}


def test_the_parent_answers_for_ds():
    """RFC 4035, 3.1.4.1: at the cut DS is ours."""
    message = ask(ZONE, "sub.example.org", "DS")

    assert message.flags & dns.flags.AA
    assert ["example.org. 60 SOA"] == authority("sub.example.org", "DS")


def test_targets_go_with_their_addresses():
    """MX and SRV."""
    assert ["web.example.org."] == [s.name.to_text() for s in ask(ZONE, "mail.example.org", "MX").additional]
    assert {"web.example.org.", "six.example.org."} == {
        s.name.to_text() for s in ask(ZONE, "srv.example.org", "SRV").additional
    }


def test_any_gets_one_type():
    """RFC 8482."""
    assert ["example.org. ns1.example.org."] == answer("example.org", "ANY")


def test_an_answer_too_long_is_cut_whole_sets_at_a_time():
    """TC when the answer does not fit; never because of additional addresses."""
    big = zone("".join(f"big A 10.0.{n // 250}.{n % 250}\n" for n in range(100)))
    message = ask(big, "big.example.org", room=512)
    many = zone("".join(f"m MX 1 h{n}\nh{n} A 10.0.0.{n}\nh{n} AAAA ::{n:x}\n" for n in range(1, 20)))
    fitting = ask(many, "m.example.org", "MX", room=512)

    assert (True, []) == (bool(message.flags & dns.flags.TC), message.answer)
    assert (False, 19) == (bool(fitting.flags & dns.flags.TC), len(fitting.answer[0]))
    assert 0 < len(fitting.additional) < 38


def test_glue_that_does_not_fit_is_worth_a_second_question():
    """RFC 9471: TC."""
    made = zone("".join(f"sub NS n{n}.sub\nn{n}.sub A 10.0.0.{n}\nn{n}.sub AAAA ::{n:x}\n" for n in range(1, 14)))

    assert ask(made, "x.sub.example.org", room=512).flags & dns.flags.TC
    assert not ask(made, "x.sub.example.org", room=1232).flags & dns.flags.TC


def test_the_zones_version_is_told_when_asked():
    """RFC 9660: two labels are the zone's, it is SOA's serial, which; not kept for who does not ask. In a question it must
    hold nothing.
    """
    handler, view = StaticAnswers(ZONE), asked.View()

    def reply(name: str, *options: dns.edns.Option) -> dns.message.Message:
        packet = dns.message.make_query(name, "A", use_edns=0, options=list(options)).to_wire()
        came, query = asked.Came(asked.Transport.UDP, "127.0.0.1"), wire.parse_query(packet)
        return dns.message.from_wire(handler.reply(asked.Asked(packet, query, came, view, 0x0100, 1232)))

    for name in ("web.example.org", "no.example.org", "x.sub.example.org", "example.org"):
        given = {option.otype: option.data for option in reply(name, dns.edns.GenericOption(19, b"")).options}
        assert {19: b"\2\0\0\0\0\1"} == given, name
    assert {} == view.fast
    assert () == reply("web.example.org").options
    assert dns.rcode.FORMERR == reply("web.example.org", dns.edns.GenericOption(19, b"\2\0\0\0\0\1")).rcode()


def test_packets_that_come_again_are_answered_whole_until_the_zone_changes():
    """From the view's table, less the id; nothing of the old zone stays in it, and it is bounded."""
    handler, view = StaticAnswers(ZONE), asked.View()
    for name in ("web.example.org", "q.w.example.org", "no.example.org", "WEB.example.org"):
        packet = dns.message.make_query(name, "A", use_edns=0).to_wire()
        query = wire.parse_query(packet)
        came = asked.Came(asked.Transport.UDP, "127.0.0.1")
        reply = handler.reply(asked.Asked(packet, query, came, view, 0x0100, 1232))
        assert packet[2:] not in view.fast or view.fast[packet[2:]]() == reply[2:]

    assert 1 == len(view.fast)
    handler.replace(zone(""))
    assert {} == view.fast


def test_names_of_one_wildcard_share_its_rate():
    """Random names below it, as "there is none" has one account for the zone; names of their own have their own."""
    accounts = StaticAnswers(ZONE).account
    named = {name: wire.text(accounts(apex_of(f"{name}.example.org"))) for name in ("a.w", "b.c.w", "web", "x.out")}

    assert {
        "a.w": "*.w.example.org",
        "b.c.w": "*.w.example.org",
        "web": "web.example.org",
        "x.out": "out.example.org",
    } == named
