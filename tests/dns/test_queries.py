"""Consul's prepared queries from files."""

import json
from pathlib import Path
from typing import Any

import pytest

from fairlead_daemon.errors import BadSettings
from fairlead_discovery.records import Discovery, Member
from fairlead_discovery.snapshots import Snapshot, Trust
from fairlead_dns.decisions.naming import Dialect, Rules
from fairlead_dns.decisions.queries import read_query
from fairlead_dns.names import Names
from fairlead_dns.naming_settings import NamingSettings, read_queries
from harness.names import ask, authority, data, member, node_name

CONSUL = Dialect(kind="consul", datacenter="eu", nearest=("us", "asia"))
APEXES = (b"\5mesos\0", b"\6consul\0")
Query = dict[str, Any]


def serving(query: Query, *members: Member) -> Names:
    made = Names(Rules(dialects=(CONSUL,)), authority(apexes=APEXES))
    made.take_queries((each, CONSUL) for each in read_query(json.dumps(query).encode()))
    return publish(made, *members)


def publish(made: Names, *members: Member) -> Names:
    nodes = {node_name(m): m for m in members}
    made.take_snapshot(Snapshot(revision=1, trust=Trust.LIVE, members={"marathon:/web": nodes} if nodes else {}))
    return made


def answered(made: Names, name: str = "front.query.consul", kind: str = "A") -> list[str]:
    return data(ask(made.answers, name, kind))


def at(number: int, region: str, tags: str = "", **changes: Any) -> Member:
    return member(number, region=region, discovery=Discovery(labels={"FAIRLEAD_DNS_TAGS": tags}), **changes)


PLAIN: Query = {"Name": "Front", "Service": {"Service": "web"}}


def test_a_query_answers_with_its_service() -> None:
    """A and SRV, by both forms of the name, with the TTL it asks for."""
    made = serving({**PLAIN, "DNS": {"TTL": "10s"}}, at(0, "eu"))

    srv = ["1 1 31000 0a000001.addr.eu.consul."]
    assert [["10.0.0.1"]] * 2 == [answered(made, n) for n in ("front.query.consul", "front.query.eu.consul")]
    assert [srv] * 2 == [answered(made, n, "SRV") for n in ("front.query.consul", "_front._tcp.query.consul")]
    assert 10 == ask(made.answers, "front.query.consul").rr[0].ttl


@pytest.mark.parametrize(
    ("failover", "expected"),
    [
        ({}, []),
        ({"NearestN": 1}, ["10.0.0.2"]),
        ({"Datacenters": ["asia", "us"]}, ["10.0.0.3"]),
        ({"NearestN": 1, "Datacenters": ["asia"]}, ["10.0.0.2"]),
        ({"Targets": [{"Datacenter": "mars"}, {"Datacenter": "asia"}]}, ["10.0.0.3"]),
    ],
)
def test_another_data_centre_answers_when_ours_has_none(failover: Query, expected: list[str]) -> None:
    """The nearest ones first, then those that are named, in their order."""
    query = {"Name": "front", "Service": {"Service": "web", "Failover": failover}}
    made = serving(query, at(0, "eu"), at(1, "us"), at(2, "asia"))
    before = answered(made)
    publish(made, at(1, "us"), at(2, "asia"))

    assert (["10.0.0.1"], expected) == (before, answered(made))


def test_ours_answer_again_when_they_are_back() -> None:
    """Failover lasts as long as it must."""
    made = serving({"Name": "front", "Service": {"Service": "web", "Failover": {"NearestN": 1}}}, at(1, "us"))
    before = answered(made)
    publish(made, at(0, "eu"), at(1, "us"))
    after = answered(made)
    publish(made)

    assert (["10.0.0.2"], ["10.0.0.1"], []) == (before, after, answered(made))


def test_tags_choose() -> None:
    """All that are asked for and none that is not wanted."""
    query = {"Name": "front", "Service": {"Service": "web", "Tags": ["blue", "!old"]}}

    assert ["10.0.0.1"] == answered(serving(query, at(0, "eu", "blue"), at(1, "eu", "blue,old"), at(2, "eu")))


def test_a_port_that_is_asked_for_as_a_tag_is_the_one_answered() -> None:
    """Ports' names count as tags."""
    query = {"Name": "front", "Service": {"Service": "web", "Tags": ["http"]}}

    assert ["1 1 31000 0a000001.addr.eu.consul."] == answered(serving(query, at(0, "eu")), kind="SRV")


def test_only_passing_leaves_out_who_warns() -> None:
    """Consul's `OnlyPassing`; without it a member that warns answers too."""
    warns = at(1, "eu", status="WARNING")
    found = [
        answered(serving({"Name": "front", "Service": {"Service": "web", "OnlyPassing": p}}, at(0, "eu"), warns))
        for p in (False, True)
    ]

    assert [["10.0.0.1", "10.0.0.2"], ["10.0.0.1"]] == found


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", "truncated"),
        ('{"Name": "a"}', "Service"),
        ('{"Name": "a", "Service": {"Service": 3}}', r"Expected `str`, got `int` - at `\$.Service.Service`"),
        ('{"Name": "", "Service": {"Service": "w"}}', "give each query a Name"),
        ('{"Name": "a", "Service": {"Service": "w"}, "Template": {"Type": "name_prefix_match"}}', "templates"),
        ('{"Name": "%%", "Service": {"Service": "w"}}', "no DNS label"),
        ('{"Name": "a", "Service": {"Service": "w", "Connect": true}}', "Connect"),
        ('{"Name": "a", "Service": {"Service": "w", "Failover": {"Targets": [{"PeerName": "x"}]}}}', "peers"),
        ('{"Name": "a", "Service": {"Service": "w"}, "DNS": {"TTL": "soon"}}', "DNS.TTL"),
        ('{"Name": "a", "Service": {"Service": "w"}, "DNS": {"TTL": "99999999999999h"}}', "longer than 7 days"),
    ],
)
def test_what_cannot_be_served_is_refused(tmp_path: Path, text: str, reason: str) -> None:
    """By file and reason: a query that is half understood would answer wrongly."""
    (tmp_path / "q.json").write_text(text)
    settings = NamingSettings(dialects=(Dialect(kind="consul", queries=(str(tmp_path),)),))

    with pytest.raises(BadSettings, match=reason) as caught:
        read_queries(settings)

    assert str(tmp_path / "q.json") in str(caught.value)


def test_files_and_folders_of_queries_are_read(tmp_path: Path) -> None:
    """One query or a list in a file; two of one name are refused."""
    (tmp_path / "a.json").write_text(json.dumps([PLAIN, {**PLAIN, "Name": "other"}]))
    (tmp_path / "b.json").write_text(json.dumps({**PLAIN, "Name": "third"}))
    settings = NamingSettings(dialects=(Dialect(kind="consul", queries=(str(tmp_path),)),))
    names = [query.name for query, _ in read_queries(settings)]
    (tmp_path / "c.json").write_text(json.dumps({**PLAIN, "Name": "THIRD"}))

    assert ["Front", "other", "third"] == names
    with pytest.raises(BadSettings, match="THIRD is there twice"):
        read_queries(settings)
