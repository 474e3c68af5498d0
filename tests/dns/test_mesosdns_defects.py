"""What Mesos-DNS got wrong on the wire and over HTTP, and this server must not, and its HTTP quirks.

One test a defect, numbered as they were found; of the ninth, slow forwarding, there is more in test_forward*.py.
"""

import asyncio
import json
import struct
from pathlib import Path

import aiohttp
import dnslib

from fairlead_discovery.records import Discovery, Ips, Member
from fairlead_dns.decisions import wire
from fairlead_dns.decisions.naming import Dialect
from fairlead_dns.naming_settings import MesosSource
from harness.mesos_pages import MesosPages
from harness.names import ask, data, member, names, opt, opt_of, publish, query, raw_reply, rcode
from harness.naming import running
from harness.upstreams import always, lying

MANY = [member(n) for n in range(40)]
WEB, SRV = "web.marathon.mesos", "_web._tcp.marathon.mesos"


def test_edns_of_the_client_decides_the_size_and_is_answered() -> None:
    """1: own answers were cut at 512 bytes and carried no OPT."""
    made = names(*MANY).answers
    reply = ask(made, WEB, opt=opt(1232))

    assert (40, 0) == (len(reply.rr), reply.header.tc)
    assert opt_of(reply) is not None


def test_the_soa_stands_at_the_apex_and_in_the_right_section() -> None:
    """2: its owner was the name asked for, and it stood in AUTHORITY."""
    made = names(member()).answers
    apex, nothing = ask(made, "mesos", "SOA"), ask(made, "nope.marathon.mesos")

    assert ["mesos.", "mesos."] == [str(apex.rr[0].rname), str(nothing.auth[0].rname)]
    assert (0, 0) == (len(apex.auth), len(ask(made, WEB, "SOA").rr))
    assert 1 == len(ask(made, "mesos", "NS").rr)


def test_the_minimum_of_the_soa_is_used() -> None:
    """3: SOAMinttl was read and never used."""
    reply = ask(names(member(), negative_ttl_s=3).answers, "nope.mesos")

    assert (3, 3) == (reply.auth[0].ttl, reply.auth[0].rdata.times[-1])


def test_a_missing_srv_can_be_cached() -> None:
    """4: it was NOERROR without SOA, even for names that are not there."""
    made = names(member()).answers
    there, nowhere = ask(made, WEB, "SRV"), ask(made, "_nope._tcp.marathon.mesos", "SRV")

    assert [("NOERROR", 1), ("NXDOMAIN", 1)] == [(rcode(r), len(r.auth)) for r in (there, nowhere)]


def test_a_name_with_names_below_it_exists() -> None:
    """5: it was NXDOMAIN, which makes resolvers deny all below it."""
    made = names(member()).answers

    assert {"NOERROR"} == {rcode(ask(made, name)) for name in ("_tcp.marathon.mesos", "marathon.mesos", "slave.mesos")}


def test_the_case_that_was_asked_comes_back() -> None:
    """6: the owner came back in lower case."""
    raw = raw_reply(names(member()).answers, query("wEb.MaraTHon.mESos"))

    assert raw is not None
    assert "wEb.MaraTHon.mESos." == str(dnslib.DNSRecord.parse(raw).rr[0].rname)


def test_all_addresses_of_a_target_go_along() -> None:
    """7: one A and one AAAA for each target."""
    pod = member(discovery=Discovery(name="web"), ips=Ips(netinfo=("10.9.0.1", "10.9.0.2", "fd00::1", "fd00::2")))
    reply = ask(names(pod).answers, SRV, "SRV", opt=opt(1232))

    assert {"10.9.0.1", "10.9.0.2", "fd00::1", "fd00::2"} == {str(rr.rdata) for rr in reply.ar if rr.rtype != wire.OPT}


async def test_many_questions_of_one_connection_are_under_way_at_once(tmp_path: Path) -> None:
    """8: one at a time on each TCP connection. Here ten are sent before the first reply is read."""
    async with running(tmp_path) as dns:
        await publish(dns.registry, member())
        await dns.until(WEB, ["10.0.0.1"])
        reader, writer = await asyncio.open_connection("127.0.0.1", dns.port)
        for number in range(10):
            packet = query(WEB, number=number)
            writer.write(struct.pack("!H", len(packet)) + packet)
        async with asyncio.timeout(10):
            seen = set()
            for _ in range(10):
                size = int.from_bytes(await reader.readexactly(2), "big")
                seen.add(int.from_bytes((await reader.readexactly(size))[:2], "big"))
        writer.close()
        await writer.wait_closed()

    assert set(range(10)) == seen


async def test_a_silent_resolver_is_passed_by_and_answers_are_kept(tmp_path: Path) -> None:
    """9: resolvers were asked one after the other, each to its timeout, for every question anew."""
    async with lying(lambda _packet, _tcp: None) as silent, lying(always("192.0.2.7")) as good:
        resolvers = [str(silent.place), str(good.place)]
        async with running(tmp_path, resolvers=resolvers, local_zones=False) as dns:
            await dns.until("www.example.com", ["192.0.2.7"])
            asked = len(good.seen)
            again = [await dns.knows("www.example.com") for _ in range(5)]

    assert ([["192.0.2.7"]] * 5, asked) == (again, len(good.seen))


async def test_changes_are_heard_of_and_not_asked_for(tmp_path: Path) -> None:
    """10: the whole state was read again and again, at the master's cost. A registry's names wait for no interval,
    and there is none.
    """
    async with running(tmp_path) as dns:
        await publish(dns.registry, member())
        await dns.until(WEB, ["10.0.0.1"])

        assert 0 == (await dns.get("/v1/axfr"))["RefreshSeconds"]


async def test_nobody_is_a_resolver_by_default(tmp_path: Path) -> None:
    """11: it was an open resolver, without metrics and without PTR."""
    pod = member(ips=Ips(host=("10.0.0.1",), netinfo=("172.16.0.2",)))
    async with running(tmp_path) as dns:
        await publish(dns.registry, pod)
        await dns.until(WEB, ["172.16.0.2"])
        foreign = await dns.ask("example.com")
        _, metrics = await dns.text("/metrics")

        assert ("REFUSED", 0) == (rcode(foreign), foreign.header.ra)
        assert 1 == len(await dns.knows("2.0.16.172.in-addr.arpa", "PTR"))
        assert "fairlead_dns_queries_total" in metrics


def test_only_a_cut_answer_says_that_it_is_cut() -> None:
    """12: TC was set when only additional records were left out."""
    made = names(*MANY[:7]).answers
    whole, additional_cut = ask(made, SRV, "SRV", opt=opt(1232)), ask(made, SRV, "SRV")

    assert (7, 7) == (len(whole.rr), len(additional_cut.rr))
    assert (0, True) == (additional_cut.header.tc, len(additional_cut.ar) < len(whole.ar))


def test_the_serial_says_the_content() -> None:
    """13: it was the clock at each reload. Here two servers of one revision have one serial, whenever they read it."""
    first, second = names(member()), names(member())

    assert [1, 1] == [ask(each.answers, "mesos", "SOA").rr[0].rdata.times[0] for each in (first, second)]


async def test_the_config_page_shows_no_secret(tmp_path: Path) -> None:
    """14: it showed the credentials. Beside that it says what is in force, by Mesos-DNS' keys."""
    credentials = tmp_path / "c.json"
    credentials.write_text(json.dumps({"principal": "dns", "secret": "s3cret"}))
    async with MesosPages() as master:
        mesos = MesosSource(masters=(master.place,), refresh_s=60.0, credentials_file=str(credentials))
        async with running(tmp_path, mesos=mesos, resolvers=("127.0.0.9",), srv_weight=3) as dns:
            _, text = await dns.text("/v1/config")
            await dns.until("slave.mesos", ["10.0.0.1", "10.0.0.2", "10.0.0.3"])
            page = await dns.get("/v1/config")

    assert ("s3cret" in text, [master.place], 60) == (False, page["Masters"], page["RefreshSeconds"])
    assert (["127.0.0.9"], True, 3, 8) == (
        page["Resolvers"],
        page["ExternalOn"],
        page["SRVRecordDefaultWeight"],
        len(str(page["SOASerial"])) - 2,
    )


async def test_http_quirks_that_clients_rely_on(tmp_path: Path) -> None:
    """Wild labels, a list of one empty object, ports as text, 501; only the main domain's names in /v1/axfr."""
    web = member(discovery=Discovery(name="web"))
    async with running(tmp_path, dialects=(Dialect(kind="consul"),)) as dns:
        await publish(dns.registry, web)
        await dns.until(WEB, ["10.0.0.1"])

        wild = await dns.get("/v1/services/_web.*._tcp.marathon.mesos.")
        assert ("_web.*._tcp.marathon.mesos.", "80", "10.0.0.1") == tuple(wild[0][k] for k in ("service", "port", "ip"))
        assert [{"host": "", "ip": ""}] == await dns.get("/v1/hosts/nope.mesos")
        assert [{"service": "", "host": "", "ip": "", "port": ""}] == await dns.get("/v1/services/nope")
        assert 501 == (await dns.text(f"/v1/hosts/{WEB}/ports"))[0]
        every = (await dns.get("/v1/axfr"))["Records"]
        assert ({"As", "AAAAs", "SRVs"}, []) == (set(every), [n for n in every["As"] if not n.endswith(".mesos.")])
        (framework,) = (await dns.get("/v1/enumerate"))["frameworks"]
        assert ("marathon", ["web.0"]) == (framework["name"], [t["id"] for t in framework["tasks"]])
        assert {"name", "id", "records"} == set(framework["tasks"][0])
        assert {"Service": "Mesos-DNS"}.items() <= (await dns.get("/v1/version")).items()


async def test_the_http_api_can_be_off(tmp_path: Path) -> None:
    """Mesos-DNS' httpon; health and metrics stay."""
    async with running(tmp_path, mesos_dns_api=False) as dns, aiohttp.ClientSession() as session:
        statuses = []
        for path in ("/v1/version", "/health"):
            async with session.get(dns.url(path)) as response:
                statuses.append(response.status)

    assert [404, 200] == statuses


def test_a_host_name_is_never_an_address() -> None:
    """A name published as an address gave NOERROR without an answer, and hid over HTTP that nothing was there."""
    named: Member = member(ips=Ips(host=("box1",)))

    assert [] == data(ask(names(named).answers, WEB))
