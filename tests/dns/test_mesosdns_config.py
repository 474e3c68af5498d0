"""Mesos-DNS' config.json, read as it is."""

import json
from pathlib import Path
from typing import Any

import pytest

from fairlead_daemon.errors import BadSettings
from fairlead_daemon.settings import load
from fairlead_dns.decisions.mesosdns_config import KNOWN, Mapped, read
from fairlead_dns.mesosdns_file import beneath, notes
from fairlead_dns.settings import DnsSettings

EVERY = {
    "zk": "zk://10.101.160.15:2181,10.101.160.16:2181/mesos",
    "masters": ["10.101.160.15:5050", "10.101.160.16:5050"],
    "zkDetectionTimeout": 0,
    "refreshSeconds": 30,
    "stateTimeoutSeconds": 120,
    "timeout": 3,
    "ttl": 20,
    "domain": "Cluster.",
    "port": 5353,
    "listener": "10.101.160.17",
    "dnson": True,
    "httpon": True,
    "externalon": True,
    "recurseon": True,
    "httpport": 8124,
    "HTTPListener": "127.0.0.1",
    "resolvers": ["169.254.169.254", "10.0.0.1:5300"],
    "zoneResolvers": {"weave.": ["172.17.0.1"]},
    "SOAMname": "ns7.cluster.",
    "SOARname": "ops.cluster.",
    "SOARefresh": 61,
    "SOARetry": 601,
    "SOAExpire": 86401,
    "SOAMinttl": 3,
    "IPSources": ["docker", "host"],
    "enforceRFC952": True,
    "srvRecordDefaultWeight": 7,
    "SetTruncateBit": True,
    "EnumerationOn": False,
    "mesosHTTPSOn": True,
    "caCertFile": "ca.pem",
    "certFile": "us.pem",
    "keyFile": "us.key",
    "mesosAuthentication": "basic",
    "mesosCredentials": {"principal": "dns", "secret": "s3cret"},
    "iamConfigFile": "",
}


def mapped(**given: Any) -> Mapped:
    return read(json.dumps(given).encode(), place="config.json")


def test_every_key_has_a_place() -> None:
    """All of Mesos-DNS' keys, and none else."""
    assert {key.lower() for key in EVERY} == set(KNOWN)


def test_every_key_is_taken() -> None:
    """A file that says all: each value under our key, and nothing to be said about it."""
    found = mapped(**EVERY)

    assert {
        "domain": "cluster",
        "ttl_s": 20,
        "soa_mname": "ns7.cluster",
        "soa_rname": "ops.cluster",
        "soa_refresh_s": 61,
        "soa_retry_s": 601,
        "soa_expire_s": 86401,
        "negative_ttl_s": 3,
        "listen": ("10.101.160.17:5353",),
        "port": 8124,
        "host": "127.0.0.1",
        "mesos_dns_api": True,
        "enumeration": False,
        "resolvers": ("169.254.169.254", "10.0.0.1:5300"),
        "zone_resolvers": {"weave": ("172.17.0.1",)},
        "patience_s": 3.0,
        "ip_sources": ("docker", "host"),
        "enforce_rfc952": True,
        "srv_weight": 7,
    } == found.values
    assert {
        "zk": EVERY["zk"],
        "masters": ("10.101.160.15:5050", "10.101.160.16:5050"),
        "refresh_s": 30.0,
        "timeout_s": 120.0,
        "https": True,
        "ca_file": "ca.pem",
        "cert_file": "us.pem",
        "key_file": "us.key",
        "credentials_file": "config.json",
    } == found.mesos
    assert () == found.notes


def test_an_empty_file_is_mesos_dns_as_it_comes() -> None:
    """Its own defaults, where clients see them."""
    found = mapped()

    assert ("mesos", ("0.0.0.0:53",), 8123, "0.0.0.0", ("8.8.8.8",), ("netinfo", "mesos", "host")) == tuple(
        found.values[key] for key in ("domain", "listen", "port", "host", "resolvers", "ip_sources")
    )
    assert ["resolvers: not given, so other names are asked of 8.8.8.8, as Mesos-DNS did"] == list(found.notes)


@pytest.mark.parametrize(
    ("zk", "known"),
    [
        ("zk://h1,h2:2182/mesos", "zk://h1:2181,h2:2182/mesos"),
        ("zk://10.0.0.1/a/b", "zk://10.0.0.1:2181/a/b"),
        ("zk://[fd00::1],[fd00::2]:2182/mesos/", "zk://[fd00::1]:2181,[fd00::2]:2182/mesos/"),
    ],
)
def test_zookeeper_has_a_default_port(zk: str, known: str) -> None:
    """2181, of each host that says none."""
    assert known == mapped(zk=zk).mesos["zk"]


def test_dns_can_be_off() -> None:
    """Then there is HTTP alone."""
    assert () == mapped(dnson=False).values["listen"]


def test_keys_are_taken_in_any_case() -> None:
    """As Go's decoder takes them."""
    assert mapped(DOMAIN="x", SoaMname="y", refreshseconds=9) == mapped(domain="x", SOAMname="y", refreshSeconds=9)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"SOAMinttl": 60}, "SOAMinttl: Mesos-DNS never used it"),
        ({"zkDetectionTimeout": 30}, "zkDetectionTimeout: no exit without a leader"),
        ({"recurseon": False}, "recurseon: the RA bit says what is true"),
        ({"SetTruncateBit": False}, "SetTruncateBit: a cut answer always says so"),
        ({"mesosCredentials": {"principal": "a", "secret": "b"}}, "mesosCredentials: not used"),
        ({"dnsOnn": True}, "dnsOnn: no key of Mesos-DNS"),
    ],
)
def test_what_has_no_meaning_is_said(given: dict[str, Any], said: str) -> None:
    """In words, by the key."""
    assert [True] == [note.startswith(said) for note in mapped(resolvers=[], **given).notes]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"port": "53"}, "port: Expected `int`, got `str`"),
        ({"dnson": 1}, "dnson: Expected `bool`, got `int`"),
        ({"masters": "10.0.0.1:5050"}, "masters: Expected `array`, got `str`"),
        ({"masters": ["leader"]}, "masters: 'leader' is not host:port"),
        ({"zoneResolvers": {"a": "8.8.8.8"}}, "zoneResolvers: Expected `array`, got `str`"),
        ({"port": 70000}, "port: 70000 is not between 0 and 65,535"),
        ({"ttl": -1}, "ttl: -1 is not between"),
        ({"IPSources": ["host", "moon"]}, "IPSources: 'moon' is none of"),
        ({"IPSources": []}, "IPSources: empty"),
        ({"zk": "10.0.0.1:2181"}, "zk: '10.0.0.1:2181' is not as zk://"),
        ({"mesosAuthentication": "iam"}, "mesosAuthentication: iam is not spoken"),
        ({"mesosAuthentication": "magic"}, "mesosAuthentication: 'magic'"),
        ({"mesosAuthentication": "basic"}, "mesosCredentials: basic needs principal and secret"),
    ],
)
def test_wrong_values_are_refused_by_key(given: dict[str, Any], said: str) -> None:
    """With the file and the key."""
    with pytest.raises(BadSettings) as caught:
        mapped(**given)

    assert str(caught.value).startswith(f"config.json: {said}")


def test_null_is_as_not_given() -> None:
    """As in Go."""
    assert mapped() == mapped(domain=None, resolvers=None)


def settings(folder: Path, *sets: str, **given: Any) -> DnsSettings:
    file = folder / "config.json"
    file.write_text(json.dumps(given))
    return load(DnsSettings, overrides=(f"mesos_dns_config={file}", *sets), beneath=beneath)


def test_what_is_set_here_counts(tmp_path: Path) -> None:
    """Also where it is what would be there anyway."""
    found = settings(tmp_path, 'listen=["127.0.0.1:8053"]', "ttl_s=9", ttl=20, domain="x")

    assert (("127.0.0.1:8053",), 9, "x") == (found.listen, found.ttl_s, found.domain)


def test_a_master_is_the_source_unless_a_registry_is(tmp_path: Path) -> None:
    """`zk` or `masters` alone make it so; beside a registry that is set they are not used, which is said."""
    alone = settings(tmp_path, masters=["m:5050"], resolvers=[])
    with_registry = settings(tmp_path, "registry=memory:x", masters=["m:5050"], resolvers=[])

    assert alone.mesos is not None
    assert (("m:5050",), 60.0, None) == (alone.mesos.masters, alone.mesos.refresh_s, with_registry.mesos)
    assert [(), ("zk, masters: not used, names come from the registry memory:x",)] == [
        notes(alone),
        notes(with_registry),
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"port": 53, "PORT": 54}', "PORT: there as port too"),
        ('{"zoneResolvers": {"a": ["10.0.0.1"], "A.": ["10.0.0.2"]}}', "zoneResolvers.A.: there as a too"),
        ('{"listener": "x"}', "listener: 'x' is no address"),
    ],
)
def test_what_can_be_meant_in_two_ways_or_in_none_is_refused(text: str, said: str) -> None:
    """By file and key."""
    with pytest.raises(BadSettings, match=said):
        read(text.encode(), place="config.json")


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    """And one that is no JSON."""
    broken = tmp_path / "broken.json"
    broken.write_text("{")

    for file, said in ((tmp_path / "none.json", "No such file"), (broken, "truncated")):
        with pytest.raises(BadSettings, match=said) as caught:
            load(DnsSettings, overrides=(f"mesos_dns_config={file}",), beneath=beneath)
        assert str(file) in str(caught.value)
