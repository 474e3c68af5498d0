"""The rest of the authoritative must-list: serials, cookies, extended errors, hidden names, transfers, what is optional, and an
unbound in its strictest settings that resolves through the server. See test_dns_conformance.py.
"""

import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

import dns.flags
import dns.message
import dns.name
import dns.query
import dns.rcode
import dns.rdatatype
import dns.tsigkeyring
import dns.update
import dns.xfr
import dns.zone
import pytest

from harness import secondaries
from harness.conforming import BIG, Conforming, ask_each, asks
from harness.dns_clients import Question, Seen, able, run
from harness.names import DnsDaemon, ede, member, opt, publish, query, rcode
from harness.ports import free_port
from harness.servers import require
from harness.waiting import wait_until

pytestmark = [pytest.mark.needs("dig", "kdig", "drill", "delv", "unbound")]
WEB, SRV = "web.marathon.mesos", "_web._tcp.marathon.mesos"
KEY = f"{secondaries.ALGORITHM}:{secondaries.KEY}:{secondaries.SECRET}"


# --- serials and cookies (7873, 9018), on several servers --------------------------------------------------------------


def serial(port: int) -> int:
    question = Question(name="mesos", kind="SOA")
    return int(able(question)[-1].ask(port, question).data[0].split()[2])


def same_serial(*ports: int) -> int:
    """0 while they differ."""
    said = {serial(port) for port in ports}
    return said.pop() if len(said) == 1 else 0


@pytest.fixture(scope="module")
def replica(served_names: Conforming, tmp_path_factory: pytest.TempPathFactory) -> Iterator[DnsDaemon]:
    """A second server of the same registry and settings."""
    second = DnsDaemon(
        tmp_path_factory.mktemp("replica"),
        registry=served_names.registry,
        port=free_port(),
        http_port=free_port(),
        id="two",
        **served_names.settings(),
    )
    try:
        yield second.start().wait_ready("replica", lambda: second.get("/ready")["ready"])
    finally:
        second.stop()


def test_serials_rise_across_restarts_and_are_one_on_all_replicas(served_names: Conforming, replica: DnsDaemon) -> None:
    """SOA/NS: the same content has the same serial on two servers; a change is a later one, after a restart too."""
    ports = served_names.port, replica.port
    first = wait_until("both say one serial", lambda: same_serial(*ports), within_s=30)
    replica.stop()
    served_names.doing(lambda registry: publish(registry, member(200, name="later")))
    replica.start().wait_ready("replica", lambda: replica.get("/ready")["ready"])
    for port in ports:
        wait_until("the serial is later", lambda port=port: serial(port) > first, within_s=30)
    wait_until("both say one serial", lambda: same_serial(*ports), within_s=30)


def test_cookies_are_good_on_every_replica(served_names: Conforming, replica: DnsDaemon) -> None:
    """7873/9018: SipHash with a secret that replicas share: dig calls the cookie of one good, the other one keeps it."""
    texts = [run(require("dig"), "@127.0.0.1", "-p", str(served_names.port), WEB, "+cookie")]
    given = cookie(texts[0])
    texts.append(run(require("dig"), "@127.0.0.1", "-p", str(replica.port), WEB, f"+cookie={given}"))

    assert ([48, 48], given) == ([len(cookie(text)) for text in texts], cookie(texts[1]))
    assert "(good)" in texts[0]
    assert 48 == len(cookie(run(require("kdig"), "@127.0.0.1", "-p", str(replica.port), WEB, "+cookie")))


def cookie(text: str) -> str:
    return text.partition("COOKIE: ")[2].split()[0]


# --- 8914 -------------------------------------------------------------------------------------------------------------


@asks("www.example.com", edns=0)
def test_extended_error_20(seen: Seen) -> None:
    """8914: 20, Not Authoritative, for names that are not ours."""
    assert ("REFUSED", ("EDE",)) == (seen.rcode, seen.options)
    assert "20" in seen.text.partition("EDE")[2].splitlines()[0]


def test_extended_error_18(served_names: Conforming) -> None:
    """8914: 18, Prohibited, for clients that may not ask."""
    for tool, how in (("dig", "-b"), ("kdig", "-b")):
        text = run(require(tool), "@127.0.0.1", "-p", str(served_names.port), how, "127.0.0.9", WEB, "+edns=0")

        assert ("REFUSED" in text, "18 (Prohibited)" in text) == (True, True), text


def test_extended_errors_14_22_and_23(tmp_path: Path) -> None:
    """8914: 14, Not Ready, before the first sight of the registry; 22 and 23 for upstreams that are silent or not there.
    7766: meanwhile a reply overtakes one that waits.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        daemon = DnsDaemon(
            tmp_path,
            registry=f"local:{tmp_path}/none.sock",
            port=free_port(),
            http_port=free_port(),
            patience_s=1,
            zone_resolvers={
                "silent.example": [f"127.0.0.1:{silent.getsockname()[1]}"],
                "closed.example": [f"127.0.0.1:{free_port()}"],
            },
        )
        daemon.start()
        try:
            wait_until("it replies", lambda: daemon.ask(WEB))
            found = {name: daemon.ask(name, opt=opt()) for name in (WEB, "www.silent.example", "www.closed.example")}
            text = run(require("dig"), "@127.0.0.1", "-p", str(daemon.port), WEB)
            order = replies_in_order(daemon.port, "late.silent.example", WEB)
        finally:
            daemon.stop()

    assert {WEB: ("SERVFAIL", 14), "www.silent.example": ("SERVFAIL", 22), "www.closed.example": ("SERVFAIL", 23)} == {
        name: (rcode(reply), ede(reply)) for name, reply in found.items()
    }
    assert "EDE: 14 (Not Ready)" in text
    assert [2, 1] == order


def replies_in_order(port: int, *names: str) -> list[int]:
    """Which of the questions (1, 2 …) of one TCP connection are answered first."""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as stream, stream.makefile("rb") as read:
        for number, name in enumerate(names, start=1):
            packet = query(name, number=number)
            stream.sendall(len(packet).to_bytes(2, "big") + packet)
        replies = [read.read(int.from_bytes(read.read(2), "big")) for _ in names]
    return [int.from_bytes(reply[:2], "big") for reply in replies]


def test_extended_error_3(served_names: Conforming, tmp_path: Path) -> None:
    """8914: 3, Stale Answer, for what was kept on disk when the registry is out of sight; 19 for what is not there."""
    kept = served_names.folder / "dns-one.snapshot"
    wait_until("the names are on disk", lambda: b"web.0" in kept.read_bytes(), within_s=30)
    shutil.copy(kept, tmp_path)
    daemon = DnsDaemon(tmp_path, registry=f"local:{tmp_path}/none.sock", port=free_port(), http_port=free_port())
    daemon.start()
    try:
        wait_until("it answers from disk", lambda: daemon.answers(WEB), within_s=20)
        port = str(daemon.port)
        texts = [run(require("dig"), "@127.0.0.1", "-p", port, name) for name in (WEB, "nope.mesos")]
    finally:
        daemon.stop()

    assert ["EDE: 3 (Stale Answer)" in texts[0], "EDE: 19 (Stale NXDOMAIN Answer)" in texts[1]] == [True, True], texts


# --- 5001, CHAOS ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["version.bind", "version.server", "id.server", "hostname.bind", "authors.bind"])
def test_server_names_are_hidden(served_names: Conforming, name: str) -> None:
    """5001, CH TXT: hidden by default. (NSID is with RFC 8906's.)"""
    found = {client: seen.rcode for client, seen in ask_each(served_names, name, "TXT", klass="CH").items()}

    assert dict.fromkeys(("dig", "kdig", "drill", "dnspython"), "REFUSED") == found


# --- 5936, 1995, 1996, 8945, 2136 -------------------------------------------------------------------------------------


def dig(served: Conforming, *words: str, key: str = KEY) -> str:
    how = ("-y", key) if key else ()
    return run(require("dig"), "@127.0.0.1", "-p", str(served.port), *how, "+time=15", "+tries=1", *words)


def soas(text: str) -> list[int]:
    """Serials in the order in which they came."""
    rows = [line.split() for line in text.splitlines() if line and not line.startswith(";")]
    return [int(row[6]) for row in rows if row[3] == "SOA"]


@pytest.mark.parametrize("tool", ["dig", "kdig", "drill"])
def test_a_zone_is_transferred_whole(served_names: Conforming, tool: str) -> None:
    """5936: AXFR over TCP, signed, SOA first and last, every record of the name `big`."""
    if tool == "drill":
        key = f"{secondaries.KEY}:{secondaries.SECRET}:{secondaries.ALGORITHM}"
        text = run(require(tool), "-p", str(served_names.port), "-y", key, "mesos", "@127.0.0.1", "AXFR")
    else:
        text = run(require(tool), "@127.0.0.1", "-p", str(served_names.port), "-y", KEY, "mesos", "AXFR")
    said = soas(text)

    assert (2, 1) == (len(said), len(set(said))), text[-500:]
    assert BIG == text.count("\nbig.marathon.mesos.")


def test_what_is_transferred_is_what_is_answered(served_names: Conforming) -> None:
    """5936: dnspython reads the zone as one; every set in it is given, the same, to who asks for it."""
    ring = dns.tsigkeyring.from_text({secondaries.KEY: (secondaries.ALGORITHM, secondaries.SECRET)})
    zone = dns.zone.from_xfr(
        dns.query.xfr("127.0.0.1", "mesos", port=served_names.port, keyring=ring, lifetime=30, relativize=False),
        relativize=False,
    )
    asked = 0
    for name, kind in (
        ("web.marathon.mesos.", "A"),
        (f"{SRV}.", "SRV"),
        ("pod.marathon.mesos.", "AAAA"),
        ("_big._udp.marathon.slave.mesos.", "SRV"),
        ("slave.mesos.", "A"),
        ("_https.pod.marathon.mesos.", "SVCB"),
        ("txt.mesos.", "TXT"),
        ("mesos.", "NS"),
    ):
        reply = dns.query.tcp(dns.message.make_query(name, kind), "127.0.0.1", port=served_names.port, timeout=15)
        held = zone.find_rdataset(name, kind)
        asked += 1

        assert (name, {d.to_text() for d in held}, held.ttl) == (
            name,
            {d.to_text() for d in reply.answer[0]},
            reply.answer[0].ttl,
        )
    assert asked == 8
    assert len({str(name) for name in zone.nodes}) > 2 * BIG


@pytest.mark.parametrize(
    ("words", "key", "said"),
    [
        (("mesos", "AXFR"), "", "; Transfer failed."),
        (("mesos", "AXFR"), f"{secondaries.ALGORITHM}:{secondaries.KEY}:{'A' * 43}=", "BADSIG"),
        (("mesos", "AXFR"), f"{secondaries.ALGORITHM}:other.key:{secondaries.SECRET}", "BADKEY"),
        (("mesos", "SOA"), KEY, "NOERROR"),
    ],
)
def test_transfers_are_for_those_who_may(served_names: Conforming, words: tuple[str, ...], key: str, said: str) -> None:
    """8945 and the ACL: nobody without the key, and whose signature does not hold hears why."""
    assert said in dig(served_names, *words, key=key)


def test_axfr_is_not_for_datagrams(served_names: Conforming) -> None:
    """5936: over UDP it is refused."""
    asked = Question(name="mesos", kind="AXFR")
    wanted = dns.message.make_query("mesos", "AXFR")

    assert "REFUSED" == dns.rcode.to_text(
        dns.query.udp(wanted, "127.0.0.1", port=served_names.port, timeout=15).rcode()
    )
    assert asked.kind == "AXFR"


def told_of(secondary: socket.socket, zone: str, serial: int) -> dns.message.Message | None:
    """The next message, if it is about that."""
    message = dns.message.from_wire(secondary.recv(4096))
    soa = message.answer[0][0] if message.answer else None
    return message if str(message.question[0].name) == zone and soa is not None and soa.serial == serial else None


def test_a_change_is_told_and_fetched_as_a_change(served_names: Conforming) -> None:
    """1995 and 1996: NOTIFY of the new serial, again until it is answered; IXFR gives the change alone; who has the
    newest hears the SOA alone; who is older than the journal gets the zone.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as secondary:
        secondary.bind(("127.0.0.1", served_names.secondary))
        secondary.settimeout(30)
        served_names.write_zone(2)
        heard = wait_until("the new serial is told", lambda: told_of(secondary, "file.test.", 2), within_s=60)

    assert (4, True) == (heard.opcode(), bool(heard.flags & dns.flags.AA))
    changes = [
        line.split() for line in dig(served_names, "file.test", "IXFR=1").splitlines() if line and line[0] != ";"
    ]
    rows = [(row[3], row[4] if row[3] == "A" else row[6]) for row in changes if row[3] in ("SOA", "A")]
    assert [("SOA", "2"), ("SOA", "1"), ("A", "10.8.1.1"), ("SOA", "2"), ("A", "10.8.1.2"), ("SOA", "2")] == rows
    assert [2] == soas(dig(served_names, "file.test", "IXFR=2"))
    assert "there.wild.file.test." in dig(served_names, "file.test", "IXFR=4294967000")


def test_updates_are_refused(served_names: Conforming) -> None:
    """2136: UPDATE gets REFUSED, over UDP and TCP, and changes nothing."""
    update = dns.update.UpdateMessage("mesos")
    update.add("evil", 60, "A", "192.0.2.1")
    for ask in (dns.query.udp, dns.query.tcp):
        assert "REFUSED" == dns.rcode.to_text(ask(update, "127.0.0.1", port=served_names.port, timeout=15).rcode())

    assert "NXDOMAIN" == ask_each(served_names, "evil.mesos")["dig"].rcode


def test_notifies_of_strangers_are_not_for_us(served_names: Conforming) -> None:
    """1996: we are nobody's secondary: NOTIMP."""
    notify = dns.message.make_query("mesos", "SOA")
    notify.set_opcode(4)

    assert "NOTIMP" == dns.rcode.to_text(dns.query.udp(notify, "127.0.0.1", port=served_names.port, timeout=15).rcode())


# --- optional: 9460, 6763, 9660, 7858, 9103 ---------------------------------------------------------------------------


def test_svcb(served_names: Conforming) -> None:
    """9460: `_https.pod…` SVCB and HTTPS with the port, as dig and dnspython read them."""
    text = dig(served_names, "pod.marathon.mesos", "HTTPS", key="")
    reply = dns.query.udp(
        dns.message.make_query("_https.pod.marathon.mesos", "SVCB"), "127.0.0.1", port=served_names.port, timeout=15
    )

    assert "port=443" in text
    assert 'port="443"' in reply.answer[0].to_text()


def test_dns_sd(served_names: Conforming) -> None:
    """6763: the service type is listed, its instances have SRV and TXT."""
    listed = dig(served_names, "_services._dns-sd._udp.mesos", "PTR", "+short", key="").split()
    (instance, *_) = dig(served_names, "_https._tcp.mesos", "PTR", "+short", key="").split()

    assert "_https._tcp.mesos." in listed
    assert " 443 " in dig(served_names, instance, "SRV", "+short", key="")
    assert "TXT" in dig(served_names, instance, "TXT", key="").partition("ANSWER SECTION")[2]


def test_zone_version(served_names: Conforming) -> None:
    """9660: the serial beside the answer."""
    (soa,) = soas(dig(served_names, "mesos", "SOA", "+noall", "+answer", key=""))
    told = dig(served_names, WEB, "+ednsopt=19", key="")

    assert f"01 00 {soa.to_bytes(4, 'big').hex(' ')}" in told


def test_dns_over_tls(served_names: Conforming) -> None:
    """7858: dig and kdig, the latter with the certificate checked."""
    trusted = (f"+tls-ca={served_names.folder / 'cert.pem'}", "+tls-hostname=dns.test")
    texts = [
        run(require(tool), "@127.0.0.1", "-p", str(served_names.tls), "+tls", *how, WEB)
        for tool, how in (("dig", ()), ("kdig", trusted))
    ]

    assert [True, True] == ["10.0.0.1" in text for text in texts]


def test_transfers_over_tls(served_names: Conforming) -> None:
    """9103: the whole zone, signed, over TLS."""
    text = run(require("kdig"), "@127.0.0.1", "-p", str(served_names.tls), "+tls", "-y", KEY, "file.test", "AXFR")

    assert 2 == len(soas(text))


# --- a validating client, and a resolver in between -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "kind", "said"),
    [(WEB, "A", "10.0.0.1"), ("nope.mesos", "A", "ncache nxdomain"), (WEB, "AAAA", "ncache nxrrset")],
)
def test_delv_reads_us(served_names: Conforming, name: str, kind: str, said: str) -> None:
    """BIND's validating client finds nothing to complain of; the zone is not signed."""
    text = run(require("delv"), "@127.0.0.1", "-p", str(served_names.port), "-i", name, kind)

    assert said in text


@pytest.mark.parametrize(
    ("name", "kind", "code", "data"),
    [
        ("web.marathon.mesos", "A", "NOERROR", ["10.0.0.1", "10.0.0.2"]),
        ("WEB.Marathon.MESOS", "A", "NOERROR", ["10.0.0.1", "10.0.0.2"]),
        ("pod.marathon.mesos", "AAAA", "NOERROR", ["fd00::1"]),
        ("web.marathon.mesos", "AAAA", "NOERROR", []),
        ("nope.marathon.mesos", "A", "NXDOMAIN", []),
        ("below.nope.marathon.mesos", "A", "NXDOMAIN", []),
        ("marathon.mesos", "A", "NOERROR", []),
        ("_tcp.marathon.mesos", "TXT", "NOERROR", []),
        ("alias.mesos", "A", "NOERROR", ["10.0.0.1", "10.0.0.2", "web.marathon.mesos."]),
        ("web.marathon.mesos", "TYPE1000", "NOERROR", []),
        ("ns1.mesos", "A", "NOERROR", ["127.0.0.1"]),
        ("1.0.9.10.in-addr.arpa", "PTR", "NOERROR", None),
        ("any.wild.file.test", "A", "NOERROR", ["10.8.0.1"]),
        ("x.below.wild.file.test", "A", "NXDOMAIN", []),
    ],
)
def test_the_strictest_resolver_believes_us(
    served_names: Conforming, strict: int, name: str, kind: str, code: str, data: list[str] | None
) -> None:
    """harden-below-nxdomain, use-caps-for-id, qname-minimisation-strict and more: every answer comes through."""
    asked = Question(name=name, kind=kind, rd=True)
    for client in able(asked):
        seen = client.ask(strict, asked)

        assert (client.name, code) == (client.name, seen.rcode)
        assert (len(seen.data) == 1) if data is None else (data == seen.data)


@pytest.mark.parametrize(("name", "kind"), [("big.marathon.mesos", "A"), ("_big._tcp.marathon.mesos", "SRV")])
def test_what_is_cut_comes_through_whole(strict: int, name: str, kind: str) -> None:
    """Through unbound, which comes back over TCP."""
    asked = Question(name=name, kind=kind, rd=True, tcp=True)

    assert [BIG] * 4 == [len(client.ask(strict, asked).answer) for client in able(asked)]


def test_a_srv_target_resolves_through_it(strict: int) -> None:
    """What RabbitMQ's and other clients do: SRV, then the target's A, then the address's PTR, which leads back."""

    def data(name: str, kind: str) -> list[str]:
        return able(Question(name=name, rd=True))[0].ask(strict, Question(name=name, kind=kind, rd=True)).data

    target = data("_https._pod._tcp.marathon.mesos", "SRV")[0].split()[3]

    assert ["10.9.0.1"] == data(target, "A")
    assert [target] == data("1.0.9.10.in-addr.arpa", "PTR")
