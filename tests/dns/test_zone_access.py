"""`zone_access`: what a zone has reaches only those who may ask for it, by whatever way an answer leads there."""

import dnslib
import pytest
from dnslib import CNAME, QTYPE, RR, A

from fairlead_discovery.records import Discovery
from fairlead_dns.decisions import wire
from fairlead_dns.decisions.acl import Acl, Views, parse_networks
from fairlead_dns.decisions.asked import Came, Transport
from fairlead_dns.decisions.compose import CNAME as ALIAS
from fairlead_dns.decisions.forward import Forwarding
from fairlead_dns.decisions.forward_own import OurNames
from fairlead_dns.decisions.forward_wire import Reply, read_reply
from fairlead_dns.decisions.front import Front
from fairlead_dns.decisions.naming import Record
from fairlead_dns.decisions.static import StaticAnswers
from harness.forwarding import KEY, QUESTION, asked, at_once, fly, forwarding
from harness.masters import zone
from harness.names import member, names, opt, query, rcode

INSIDE, OUTSIDE = "10.0.0.9", "127.0.0.1"
SECRET = "10.9.9.9"
ZONE = zone("""
y.int A 10.9.9.9
open.int A 10.9.9.8
ns.int A 10.9.9.9
alias CNAME y.int
twice CNAME alias
moved DNAME int
lost CNAME none.int
mail MX 10 y.int
srv SRV 0 0 80 y.int
both SRV 0 0 80 y.int
both SRV 0 0 80 ns1
sub NS ns.int
*.wild CNAME y.int
partly CNAME open.int
""")


def acl(*networks: str) -> Acl:
    return Acl(parse_networks(networks))


def name(text: str) -> bytes:
    return wire.parse_text(text) or b""


def front(**rules: Acl) -> Front:
    """example.org, of which `int` is for 10.0.0.0/8 alone and in it `open` for all; `rules`: `_` stands for a dot."""
    given = {name(zone_.replace("_", ".")): rule for zone_, rule in rules.items()}
    zones = given or {name("int.example.org"): acl("10.0.0.0/8"), name("open.int.example.org"): acl("any")}
    made = Front(lambda: 0.0, views=Views(zones=zones, recursion=acl("any")))
    made.route(ZONE.apex, StaticAnswers(ZONE).route)
    return made


def ask(made: Front, client: str, text: str, kind: str = "A", transport: Transport = Transport.UDP) -> dnslib.DNSRecord:
    raw = made.reply(query(text, kind, opt=opt()), Came(transport, client))
    assert isinstance(raw, bytes)
    return dnslib.DNSRecord.parse(raw)


def taken(made: Forwarding, packet: bytes) -> Reply:
    """As the adapter takes it."""
    return read_reply(packet, QUESTION, made.terms(KEY))


def said(*answers: RR) -> bytes:
    """An upstream's reply to `www.example A`."""
    made = dnslib.DNSRecord.parse(query("www.example")).reply(ra=1, aa=0)
    made.add_answer(*answers)
    return bytes(made.pack())


def told(reply: dnslib.DNSRecord) -> list[str]:
    """Every record's data, OPT apart."""
    return [str(rr.rdata) for rr in (*reply.rr, *reply.auth, *reply.ar) if rr.rtype != wire.OPT]


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        *(("alias", "A"), ("twice", "A"), ("y.moved", "A"), ("x.wild", "A")),
        *(("mail", "MX"), ("srv", "SRV"), ("x.sub", "A")),
    ],
)
@pytest.mark.parametrize("transport", [Transport.UDP, Transport.TCP])
def test_no_answer_leads_into_a_zone_of_others(text: str, kind: str, transport: Transport) -> None:
    """Aliases of every sort, additional data, glue: what stands in the open zone is told, the rest only to those inside;
    whoever asked first, also when the packet comes again.
    """
    for order in ((INSIDE, OUTSIDE), (OUTSIDE, INSIDE)):
        made = front()
        for client in (*order, *order):
            reply = ask(made, client, f"{text}.example.org", kind, transport)

            assert ("NOERROR", client == INSIDE) == (rcode(reply), SECRET in told(reply))
            assert any("int" in each for each in told(reply)) or text == "y.moved"


def test_whether_a_name_is_there_is_not_told() -> None:
    """An alias to nothing in it looks like one to something; what a resolver asks next is refused."""
    made = front()
    lost, alias = (ask(made, OUTSIDE, f"{each}.example.org") for each in ("lost", "alias"))

    assert [("NOERROR", 1, 0)] * 2 == [(rcode(each), len(each.rr), len(each.auth)) for each in (lost, alias)]
    assert "NXDOMAIN" == rcode(ask(made, INSIDE, "lost.example.org"))
    assert "REFUSED" == rcode(ask(made, OUTSIDE, "y.int.example.org"))


def test_what_is_beside_it_and_open_within_it_is_told() -> None:
    """One of two targets; a zone inside the closed one that is for all."""
    made = front()

    assert "10.0.0.1" in told(ask(made, OUTSIDE, "both.example.org", "SRV"))
    assert SECRET not in told(ask(made, OUTSIDE, "both.example.org", "SRV"))
    assert "10.9.9.8" in told(ask(made, OUTSIDE, "partly.example.org"))


def test_the_root_is_a_zone_too() -> None:
    """`.` closes all that has no rule of its own."""
    made = front(_=acl("10.0.0.0/8"), ns1_example_org=acl("any"))
    asked_ = [(client, text) for text in ("alias", "ns1") for client in (INSIDE, OUTSIDE)]

    assert ["NOERROR", "REFUSED", "NOERROR", "NOERROR"] == [
        rcode(ask(made, client, f"{text}.example.org")) for client, text in asked_
    ]


@pytest.mark.parametrize("transport", [Transport.UDP, Transport.TCP])
def test_names_of_endpoints_lead_into_no_zone_of_others(transport: Transport) -> None:
    """SRV whose targets lie in `slave.mesos`, and a record of the settings; prebuilt for one, they are not given to the other."""
    for order in ((INSIDE, OUTSIDE), (OUTSIDE, INSIDE)):
        made = names(member(0, discovery=Discovery(name="web")))
        made.take_records((Record(name("w.mesos"), ALIAS, name("web.marathon.mesos"), 60),))
        target = wire.srv_target(next(iter(made.zone.sets(name("_web._tcp.marathon.mesos"))[wire.SRV])))
        closed = {target: acl("10.0.0.0/8"), name("web.marathon.mesos"): acl("10.0.0.0/8")}
        made.front.views.zones = closed
        for client in (*order, *order):
            srv = ask(made.front, client, "_web._tcp.marathon.mesos", "SRV", transport)
            alias = ask(made.front, client, "w.mesos", "A", transport)

            assert (1, client == INSIDE) == (len(srv.rr), "10.0.0.1" in told(srv))
            assert (client == INSIDE, 0) == ("10.0.0.1" in told(alias), len(alias.auth))
            assert "web.marathon.mesos." in told(alias)


def test_what_upstreams_say_leads_into_no_zone_of_others() -> None:
    """Into a zone of ours, by an alias of ours; into one that is forwarded, from the cache too, and never prebuilt."""
    open_, shut = "www.example", "x.corp.example"
    made, ours = forwarding(), front(int_example_org=acl("10.0.0.0/8"), corp_example=acl("10.0.0.0/8"))
    made.own = OurNames(ours)
    inside, outside = (asked(open_, view=ours.views.of(client)) for client in (INSIDE, OUTSIDE))
    chain = (RR(open_, QTYPE.CNAME, ttl=300, rdata=CNAME(shut)), RR(shut, QTYPE.A, ttl=300, rdata=A(SECRET)))
    replies = [fly(made, outside, taken(made, said(*chain)))]
    replies += [at_once(made, each, 1.0) for each in (inside, outside, outside)]

    assert [False, True, False, False] == [SECRET in told(reply) for reply in replies]
    assert [("REFUSED", 1), ("NOERROR", 2)] == [(rcode(reply), len(reply.rr)) for reply in replies[:2]]
    assert not ours.views.of(OUTSIDE).fast
    made = forwarding()
    made.own = OurNames(ours)
    onward = RR(open_, QTYPE.CNAME, ttl=300, rdata=CNAME("alias.example.org"))
    assert SECRET not in told(fly(made, outside, taken(made, said(onward))))
    assert SECRET in told(at_once(made, inside, 1.0))
