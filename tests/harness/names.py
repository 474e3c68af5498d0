"""For tests of the DNS server: endpoints to publish, questions to ask, replies to read, the daemon as a process."""

import json
import socket
import struct
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import dnslib

from fairlead_discovery import paths
from fairlead_discovery.records import Address, Discovery, Ips, Member, Port, Portless, TaskRef, encode
from fairlead_discovery.registry import Create, Delete, Registry
from fairlead_discovery.snapshots import Snapshot, Trust
from fairlead_dns.decisions import wire
from fairlead_dns.decisions.answer import Answers, Authority
from fairlead_dns.decisions.asked import Came, Transport
from fairlead_dns.decisions.front import Front
from fairlead_dns.decisions.naming import Rules
from fairlead_dns.names import Names
from harness.servers import Server

RUN = (
    "import sys; from fairlead_daemon.main import main; from fairlead_dns.daemon import DAEMON;"
    " sys.exit(main(DAEMON, sys.argv[1:]))"
)
TYPES = {name: number for number, name in dnslib.QTYPE.forward.items()}
ASKED_BY = Transport.UDP
"""What `ask` and `raw_reply` come by; a test may set another."""
OPT_PLAIN = b"\0\0\x29\x04\xd0\0\0\0\0\0\0"


def task(number: int = 0, *, name: str = "web", framework: str = "marathon", agent: str = "") -> TaskRef:
    return TaskRef(
        id=f"{name}.{number}", name=name, framework=framework, framework_id="f-1", agent=agent or f"20140803-S{number}"
    )


def member(number: int = 0, *, name: str = "web", discovery: Discovery | None = None, **changes: Any) -> Member:
    """Instance `number` on agent 10.0.x.y with one port; without DiscoveryInfo unless given."""
    host = f"10.0.{number // 250}.{number % 250 + 1}"
    values: dict[str, Any] = {
        "serviceEndpoint": Address(host=host, port=31000 + number),
        "task": task(number, name=name),
        "discovery": discovery or Discovery(),
        "ports": (Port(index=0, number=80, host_port=31000 + number, name="http"),),
        "ips": Ips(host=(host,)),
        "status": "ALIVE",
    }
    return Member(**{**values, **changes})


def snapshot(
    *members: Member, revision: int = 1, trust: Trust = Trust.LIVE, portless: tuple[Portless, ...] = ()
) -> Snapshot:
    services: dict[str, dict[str, Member]] = {}
    for each in members:
        services.setdefault(f"marathon:{each.task.name}", {})[node_name(each)] = each
    tasks = {paths.portless_name(p.task.id, encode(p)): p for p in portless}
    return Snapshot(
        revision=revision, trust=trust, members=services, portless={"marathon:batch": tasks} if tasks else {}
    )


def node_name(each: Member) -> str:
    return paths.member_name(each.task.id, encode(each))


async def publish(registry: Registry, *members: Member) -> int:
    """As the master does."""
    return await registry.commit(
        [Create(paths.member(f"marathon:{m.task.name}", node_name(m)), encode(m)) for m in members]
    )


async def withdraw(registry: Registry, *members: Member) -> int:
    return await registry.commit([Delete(paths.member(f"marathon:{m.task.name}", node_name(m))) for m in members])


def authority(**changes: Any) -> Authority:
    values: dict[str, Any] = {"apexes": (b"\5mesos\0",), "mname": b"\3ns1\5mesos\0", "rname": b"\4root\3ns1\5mesos\0"}
    return Authority(**{**values, **changes})


def names(*members: Member, rules: Rules | None = None, **changes: Any) -> Names:
    """What a server knows that has seen one snapshot, and its own name."""
    made = Names(rules or Rules(), authority(**changes))
    made.take_own("ns1.mesos", ("127.0.0.1",))
    made.take_snapshot(snapshot(*members))
    return made


def query(
    name: str, kind: str | int = "A", *, number: int = 4711, flags: int = 0x0100, opt: bytes = b"", klass: int = 1
) -> bytes:
    """A packet, case as given. `opt` is the OPT record's bytes, counted."""
    wanted = TYPES[kind] if isinstance(kind, str) else kind
    labels = [part.encode() for part in name.removesuffix(".").split(".") if part]
    question = b"".join(bytes((len(part),)) + part for part in labels) + b"\0" + struct.pack("!HH", wanted, klass)
    return struct.pack("!HHHHHH", number, flags, 1, 0, 0, 1 if opt else 0) + question + opt


def opt(size: int = 1232, *, version: int = 0, flags: int = 0, options: bytes = b"") -> bytes:
    return b"\0" + struct.pack("!HHBBHH", 41, size, 0, version, flags, len(options)) + options


def option(code: int, data: bytes = b"") -> bytes:
    return struct.pack("!HH", code, len(data)) + data


def ask(answers: Answers, name: str, kind: str | int = "A", *, tcp: bool = False, **how: Any) -> dnslib.DNSRecord:
    """The reply, read by a codec that is not ours."""
    raw = raw_reply(answers, query(name, kind, **how), tcp=tcp)
    assert raw is not None
    return dnslib.DNSRecord.parse(raw)


def front(answers: Answers) -> Front:
    """A server of these answers alone, open to everyone."""
    made = Front(time.time)
    for apex in answers.zone.apexes:
        made.serve(apex, answers)
    return made


def raw_reply(answers: Answers, packet: bytes, *, tcp: bool = False) -> bytes | None:
    """What such a server says to a packet."""
    raw = front(answers).reply(packet, Came(Transport.TCP if tcp else ASKED_BY, "127.0.0.1"))
    assert raw is None or isinstance(raw, bytes)
    return raw


def rcode(reply: dnslib.DNSRecord) -> str:
    return str(dnslib.RCODE[reply.header.rcode])


def data(reply: dnslib.DNSRecord, kind: str = "") -> list[str]:
    """The answers' data as text, sorted."""
    return sorted(str(rr.rdata) for rr in reply.rr if not kind or rr.rtype == TYPES[kind])


def opt_of(reply: dnslib.DNSRecord) -> Any:
    """The one OPT of a reply, None when there is none."""
    found = [rr for rr in reply.ar if rr.rtype == wire.OPT]
    assert len(found) <= 1
    return found[0] if found else None


def ede(reply: dnslib.DNSRecord) -> int | None:
    """The extended error's code (RFC 8914)."""
    record = opt_of(reply)
    codes = [int.from_bytes(o.data[:2], "big") for o in record.rdata if o.code == 15] if record else []
    return codes[0] if codes else None


def ask_udp(port: int, packet: bytes, *, host: str = "127.0.0.1", wait_s: float = 10.0) -> bytes:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(wait_s)
        sock.connect((host, port))  # so that a closed port is an error at once
        sock.send(packet)
        return sock.recv(65535)


def _toml(value: object) -> str:
    """JSON is TOML but for tables."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)} = {_toml(each)}" for key, each in value.items()) + "}"
    if isinstance(value, list):
        return f"[{', '.join(map(_toml, value))}]"
    return json.dumps(value)


class DnsDaemon(Server):
    """`fairlead dns` on a private port. `http_port` and `port` are given by the test."""

    def __init__(self, folder: Path, *, registry: str, port: int, http_port: int, **settings: object) -> None:
        self.port = port
        self.http_port = http_port
        told = {
            "registry": registry,
            "data_dir": str(folder),
            "listen": [f"127.0.0.1:{port}"],
            "port": http_port,
            "token": "off",
            "id": "one",
            **settings,
        }
        sets = [part for key, value in told.items() for part in ("--set", f"{key}={_toml(value)}")]
        super().__init__([sys.executable, "-c", RUN, *sets], log=folder / f"dns-{told['id']}.log")

    def ask(self, name: str, kind: str = "A", **how: Any) -> dnslib.DNSRecord:
        return dnslib.DNSRecord.parse(ask_udp(self.port, query(name, kind, **how)))

    def answers(self, name: str, kind: str = "A") -> list[str]:
        return data(self.ask(name, kind))

    def get(self, path: str) -> Any:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.http_port}{path}", timeout=15) as response:
            return json.loads(response.read())

    def metric(self, line_start: str) -> float:
        """Value of the first sample whose line begins so."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.http_port}/metrics", timeout=15) as response:
            for line in response.read().decode().splitlines():
                if line.startswith(line_start):
                    return float(line.rsplit(" ", 1)[1])
        raise AssertionError(f"no metric {line_start}")

    def wait_serving(self) -> "DnsDaemon":
        self.wait_ready("dns", lambda: self.get("/ready")["ready"])
        return self
