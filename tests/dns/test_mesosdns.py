"""Mesos-DNS' HTTP answers, shapes and quirks."""

from fairlead_discovery.decisions import dns_labels as labels
from fairlead_discovery.records import Discovery, Ips
from fairlead_dns.decisions import mesosdns
from fairlead_dns.decisions.naming import Rules
from harness.names import member, names

INFO = Discovery(name="web")
INSTANCE = f"web-{labels.task_hash('web.0')}-s0.marathon.mesos."


def test_hosts_lists_name_and_address() -> None:
    """The host has its final dot; case and dot of the question do not matter."""
    zone = names(member(), member(1)).zone

    rows = [{"host": "web.marathon.mesos.", "ip": ip} for ip in ("10.0.0.1", "10.0.0.2")]
    assert [rows, rows] == [mesosdns.hosts(zone, n) for n in ("Web.marathon.mesos", "web.marathon.mesos.")]


def test_nothing_found_is_one_empty_row() -> None:
    """Compatible clients test for exactly that."""
    zone = names().zone

    assert [{"host": "", "ip": ""}] == mesosdns.hosts(zone, "nope.mesos")
    assert [{"service": "", "host": "", "ip": "", "port": ""}] == mesosdns.services(zone, "_x._tcp.mesos")


def test_a_name_that_cannot_be_is_not_found() -> None:
    """No label, too long: one empty row, no error."""
    assert [[mesosdns.NO_HOST]] * 3 == [mesosdns.hosts(names().zone, n) for n in ("a..b", "x" * 64, "." * 300)]


def test_services_lists_ports_as_strings() -> None:
    """`service` is the text as given; the wild label is taken out."""
    zone = names(member(discovery=INFO)).zone

    rows = mesosdns.services(zone, "_web.*._tcp.marathon.mesos")

    assert [{"service": "_web.*._tcp.marathon.mesos", "host": INSTANCE, "ip": "10.0.0.1", "port": "80"}] == rows


def test_services_give_one_row_a_family() -> None:
    """The first A and the first AAAA of each target."""
    zone = names(member(discovery=INFO, ips=Ips(netinfo=("10.9.0.2", "10.9.0.1", "fd00::1")))).zone

    assert ["10.9.0.1", "fd00::1"] == [row["ip"] for row in mesosdns.services(zone, "_web._tcp.marathon.mesos")]


def test_axfr_lists_all() -> None:
    """As, AAAAs and SRVs by dotted name."""
    zone = names(member(discovery=INFO, ips=Ips(host=("10.0.0.1", "fd00::1")))).zone

    shown = mesosdns.axfr(zone, [*zone.names, b"\4gone\5mesos\0"])

    assert ["As", "AAAAs", "SRVs"] == list(shown)
    assert (["10.0.0.1"], ["fd00::1"], [f"{INSTANCE}:80"]) == (
        shown["As"]["web.marathon.mesos."],
        shown["AAAAs"]["web.marathon.mesos."],
        shown["SRVs"]["_web._tcp.marathon.mesos."],
    )


def test_enumerate_groups_records_by_task_and_framework() -> None:
    """One entry a framework, its tasks with every record they give."""
    shown = mesosdns.enumerate_tasks([member(), member(1)], Rules())

    assert {"marathon": ["web.0", "web.1"]} == {name: [t["id"] for t in tasks] for name, tasks in shown.items()}
    assert {"name": "web.marathon.mesos.", "host": "10.0.0.1", "rtype": "A"} in shown["marathon"][0]["records"]
