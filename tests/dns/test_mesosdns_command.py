"""`mesos-dns -config=FILE`: an old unit file and an old config start this server."""

import asyncio
import json
import ssl
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import dnslib
import pytest

from fairlead_daemon.decisions.go_flags import UsageError
from fairlead_daemon.errors import Unavailable
from fairlead_discovery.decisions.dns_labels import task_hash
from fairlead_dns.adapters.mesos_master import MesosMaster
from fairlead_dns.decisions.mesosdns_flags import Asked, read
from fairlead_dns.mesosdns_command import main
from fairlead_dns.naming_settings import MesosSource
from harness.certificates import self_signed
from harness.mesos_pages import MesosPages
from harness.names import DnsDaemon
from harness.ports import free_port
from harness.servers import Server
from harness.waiting import eventually, wait_until

COMMAND = [sys.executable, "-m", "fairlead_dns.mesosdns_command"]


@pytest.mark.parametrize(
    ("line", "asked"),
    [
        ("", Asked()),
        ("-config=/etc/mesos-dns/config.json", Asked("/etc/mesos-dns/config.json")),
        ("--config=x", Asked("x")),
        ("-config x -v 1", Asked("x", verbose=1)),
        ("-v=2 -config=a=b", Asked("a=b", verbose=2)),
        ("-version", Asked(version=True)),
        ("-version=false", Asked()),
        (
            "-logtostderr -stderrthreshold=INFO -log_dir /var/log",
            Asked(passed_over=("log_dir", "logtostderr", "stderrthreshold")),
        ),
    ],
)
def test_flags_are_read_as_go_reads_them(line: str, asked: Asked) -> None:
    """One dash or two, the value after `=` or a blank, switches without one."""
    assert asked == read(line.split())


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("config.json", "'config.json' is no flag"),
        ("-confg=x", "flag provided but not defined: -confg"),
        ("-config", "flag needs an argument: -config"),
        ("-v=much", "invalid value 'much' for flag -v"),
        ("-version=maybe", "invalid boolean value 'maybe' for -version"),
        ("-", "'-' is no flag"),
    ],
)
def test_what_is_no_command_line_is_said(line: str, why: str) -> None:
    """In Go's words, where it has some."""
    with pytest.raises(UsageError) as caught:
        read(line.split())

    assert why == str(caught.value)


def test_verbosity() -> None:
    """Two is our debug, the others say no more than we say anyway."""
    assert [["--mesos-dns-config", "c"], ["--mesos-dns-config", "c", "--set", "log_level=debug"]] == [
        Asked("c", verbose=1).arguments(),
        Asked("c", verbose=2).arguments(),
    ]


def test_the_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    """`-version` alone, nothing else, as scripts read it."""
    assert (0, f"{version('fairlead')}\n") == (main(["-version"]), capsys.readouterr().out)


def test_a_wrong_line_and_a_wrong_file_are_exit_code_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With the reason."""
    (tmp_path / "c.json").write_text('{"ttl": "x"}')
    codes = main(["-vv"]), main([f"-config={tmp_path}/none"]), main([f"-config={tmp_path}/c.json"])
    said = capsys.readouterr().err

    assert (2, 2, 2) == codes
    for text in ("not defined: -vv", "usage: mesos-dns", "No such file", "ttl: Expected `int`"):
        assert text in said


class Old(DnsDaemon):
    """What an old unit file starts: only its `-config` is given."""

    def __init__(self, folder: Path, config: dict[str, Any]) -> None:
        self.port, self.http_port = config["port"], config["httpport"]
        (folder / "config.json").write_text(json.dumps(config))
        home = {"HOME": str(folder), "XDG_STATE_HOME": str(folder), "XDG_DATA_HOME": str(folder)}
        line = [*COMMAND, f"-config={folder / 'config.json'}", "-v=1"]
        Server.__init__(self, line, log=folder / "mesos-dns.log", env=home)


def private(folder: Path) -> tuple[ssl.SSLContext, dict[str, str]]:
    """A master's side that wants a client certificate, and the keys of a client's config that has it."""
    for name in ("master", "client"):
        (folder / name).mkdir()
        self_signed(folder / name, name)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(folder / "client" / "cert.pem"))
    context.load_cert_chain(folder / "master" / "cert.pem", folder / "master" / "key.pem")
    context.verify_mode = ssl.CERT_REQUIRED
    files = {"caCertFile": "master/cert.pem", "certFile": "client/cert.pem", "keyFile": "client/key.pem"}
    return context, {key: str(folder / file) for key, file in files.items()}


async def test_an_old_config_serves_an_old_cluster(tmp_path: Path) -> None:
    """A process, a master over TLS that wants a client certificate and Basic: names, TTL, SOA, weights and the HTTP API."""
    context, files = private(tmp_path)
    config = {
        "refreshSeconds": 1,
        "domain": "dcos",
        "port": free_port(),
        "httpport": free_port(),
        "listener": "127.0.0.1",
        "HTTPListener": "127.0.0.1",
        "resolvers": [],
        "externalon": False,
        "SOAMname": "ns9.dcos",
        "SOARname": "ops.dcos",
        "SOARefresh": 61,
        "SOARetry": 601,
        "SOAExpire": 86401,
        "srvRecordDefaultWeight": 7,
        "IPSources": ["host"],
        "mesosHTTPSOn": True,
        "mesosAuthentication": "basic",
        "mesosCredentials": {"principal": "dns", "secret": "s3cret"},
        **files,
    }
    async with MesosPages(context) as master:
        master.tasks, master.wants = {"web": 1}, "dns:s3cret"
        server = Old(tmp_path, {**config, "masters": [master.place]})
        server.start()
        try:

            async def answered() -> bool:
                return await asyncio.to_thread(server.answers, "web.marathon.dcos") == ["10.0.0.1"]

            await eventually("the task is answered", answered, within_s=30)
            replies = [await asyncio.to_thread(server.ask, *asked) for asked in ASKED]
            pages = {path: await asyncio.to_thread(server.get, f"/v1/{path}") for path in PAGES}
        finally:
            code = await asyncio.to_thread(server.stop)

    told = pages.pop("axfr"), pages.pop("config")
    assert (0, PAGES) == (code, {**pages, "axfr": None, "config": None})
    assert_dns(replies)
    assert ("dcos", 60, 1, "ns9.dcos.") == tuple(told[0][key] for key in ("Domain", "TTL", "RefreshSeconds", "Mname"))
    assert ["10.0.0.1"] == told[0]["Records"]["As"]["web.marathon.dcos."]
    assert ("s3cret" in json.dumps(told), True) == (False, told[1]["MesosHTTPSOn"])


ASKED = (("web.marathon.dcos",), ("_web._tcp.marathon.dcos", "SRV"), ("dcos", "SOA"), ("leader.dcos",))
HASH = f"web-{task_hash('web.1')}-s1"
PAGES: dict[str, Any] = {
    "version": {
        "Service": "Mesos-DNS",
        "Version": version("fairlead"),
        "URL": "https://github.com/mesosphere/mesos-dns",
    },
    "hosts/web.marathon.dcos": [{"host": "web.marathon.dcos.", "ip": "10.0.0.1"}],
    "hosts/nope.dcos": [{"host": "", "ip": ""}],
    "services/_web._tcp.marathon.dcos.": [
        {
            "service": "_web._tcp.marathon.dcos.",
            "host": f"{HASH}.marathon.slave.dcos.",
            "ip": "10.0.0.1",
            "port": "31000",
        }
    ],
    "services/_nope._tcp.marathon.dcos": [{"service": "", "host": "", "ip": "", "port": ""}],
    "axfr": None,
    "config": None,
}


def assert_dns(replies: list[dnslib.DNSRecord]) -> None:
    address, service, soa, leader = (reply.rr[0] for reply in replies)
    assert (60, 7, 31000) == (address.ttl, service.rdata.weight, service.rdata.port)
    assert ("ns9.dcos.", "ops.dcos.", (61, 601, 86401)) == (
        str(soa.rdata.mname),
        str(soa.rdata.rname),
        tuple(soa.rdata.times[1:4]),
    )
    assert "127.0.0.1" == str(leader.rdata)


async def test_a_master_that_wants_a_certificate_gets_none_of_others(tmp_path: Path) -> None:
    """Without `certFile` the master turns us away; a master of another authority is not believed. Both are named."""
    context, files = private(tmp_path)
    async with MesosPages(context) as master:
        own = MesosSource(masters=(master.place,), https=True, ca_file=files["caCertFile"], timeout_s=5)
        other = MesosSource(
            masters=(master.place,), https=True, cert_file=files["certFile"], key_file=files["keyFile"], timeout_s=5
        )
        for source, why in ((own, master.place), (other, "certificate verify failed")):
            asking = MesosMaster(source)
            with pytest.raises(Unavailable, match=why) as caught:
                await asking.state()
            await asking.close()

            assert master.place in str(caught.value)


def test_http_alone(tmp_path: Path) -> None:
    """`dnson: false`: the HTTP API is there, nothing listens for DNS, and it ends in order."""
    port = free_port()
    config = {"dnson": False, "masters": ["127.0.0.1:1"], "resolvers": [], "port": port, "httpport": free_port()}
    server = Old(tmp_path, {**config, "HTTPListener": "127.0.0.1"})
    server.start()
    try:
        told = wait_until("it answers", lambda: server.get("/v1/config"), within_s=30)
        with pytest.raises(ConnectionRefusedError):
            server.ask("mesos")
    finally:
        code = server.stop()

    assert (0, "mesos", 0) == (code, told["Domain"], told["Port"])


def test_the_command_is_installed() -> None:
    """Beside `fairlead`, where pip puts commands."""
    found = Path(sys.executable).parent / "mesos-dns"
    if not found.exists():
        pytest.skip("this environment was installed before the command was there")

    assert (
        version("fairlead")
        == subprocess.run([found, "-version"], capture_output=True, text=True, check=True).stdout.strip()
    )
