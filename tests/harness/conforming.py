"""One `fairlead dns` with everything that conformance is about, on a registry of its own, and a strict unbound that asks it."""

import asyncio
import shutil
import sys
from collections.abc import Callable, Coroutine, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from fairlead_discovery.backends import open_registry
from fairlead_discovery.records import Address, Agent, Discovery, Ips, Port, encode
from fairlead_discovery.registry import Registry
from harness import secondaries
from harness.certificates import self_signed
from harness.dns_clients import Question, Seen, able, run
from harness.names import DnsDaemon, member, publish
from harness.ports import free_port
from harness.servers import Server
from harness.upstreams import unbound
from harness.waiting import wait_until

REGISTRYD = (
    "import sys; from fairlead_daemon.main import main; from fairlead_discovery.registryd import DAEMON;"
    " sys.exit(main(DAEMON, sys.argv[1:]))"
)
BIG = 100
"""Instances of the service `big`: too many for a datagram."""
WIDE = 40
"""Addresses of each family of the one instance of `wide`: one set of them goes along with an SRV answer, the other not."""
IDLE_S = 4.0
"""How long a TCP connection may be idle."""
COOKIES = "0123456789abcdef0123456789abcdef"
ZONE = """$TTL 60
@ SOA ns root {serial} 60 1 86400 5
@ NS ns
ns A 127.0.0.1
*.wild A 10.8.0.1
there.wild A 10.8.0.2
deep.below.wild TXT "here"
number A 10.8.1.{serial}
"""
STRICT = (
    "  harden-below-nxdomain: yes\n  use-caps-for-id: yes\n  qname-minimisation: yes\n  qname-minimisation-strict: yes\n"
    "  harden-glue: yes\n  harden-referral-path: yes\n  harden-large-queries: yes\n  deny-any: yes\n"
    "  local-zone: test. nodefault\n  local-zone: 10.in-addr.arpa. nodefault\n"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Conforming:
    """`secondary`: a port whose address is told of new serials. `tls`: where DNS over TLS is."""

    daemon: DnsDaemon
    folder: Path
    registry: str
    tls: int
    secondary: int

    @property
    def port(self) -> int:
        return self.daemon.port

    def doing(self, body: Callable[[Registry], Coroutine[Any, Any, Any]]) -> Any:
        async def run() -> Any:
            registry = await open_registry(self.registry)
            try:
                return await body(registry)
            finally:
                await registry.close()

        return asyncio.run(run())

    def write_zone(self, serial: int) -> None:
        (self.folder / "zones" / "new").write_text(ZONE.format(serial=serial))
        (self.folder / "zones" / "new").replace(self.folder / "zones" / "file.test.zone")

    def settings(self) -> dict[str, Any]:
        """But for the ports."""
        return {
            "nsid": "ns-1",
            "cookie_secrets": str(self.folder / "secrets"),
            "zones_dir": str(self.folder / "zones"),
            "keys_file": str(self.folder / "keys"),
            "transfers": [f"127.0.0.0/8 key:{secondaries.KEY}"],
            "reverse_zones": ["10.in-addr.arpa"],
            "dialects": [{"kind": "svcb"}, {"kind": "dns_sd"}],
            "records": ["alias CNAME web.marathon", "txt TXT hello"],
            "allow_query": ["127.0.0.1/32"],
            "tcp_idle_s": IDLE_S,
            "certificate": str(self.folder / "cert.pem"),
            "certificate_key": str(self.folder / "key.pem"),
        }


async def fill(registry: Registry) -> None:
    """Services `web`, `pod` (addresses of its own, both families), `big` and `wide`; one agent."""
    pod = member(
        7,
        name="pod",
        discovery=Discovery(name="pod", given=True),
        ports=(Port(index=0, number=443, host_port=31007, name="https", protocols=("tcp",)),),
        ips=Ips(host=("10.0.0.8",), netinfo=("10.9.0.1", "fd00::1")),
    )
    big = [
        member(
            n,
            name="big",
            serviceEndpoint=Address(host=f"10.1.0.{n + 1}", port=31000),
            ips=Ips(host=(f"10.1.0.{n + 1}",)),
        )
        for n in range(BIG)
    ]
    await publish(registry, member(0), member(1), pod, *big)
    wide = member(
        8,
        name="wide",
        discovery=Discovery(name="wide", given=True),
        ips=Ips(netinfo=(*(f"10.2.0.{n}" for n in range(WIDE)), *(f"fd00::2:{n:x}" for n in range(WIDE)))),
    )
    await publish(registry, wide)
    agent = Agent(id="a-S0", host="10.0.0.1", port=5051, boot_id="b", hostname="box1")
    await registry.write("/fairlead/agents/a-S0", encode(agent))


@contextmanager
def conforming(folder: Path) -> Iterator[Conforming]:
    self_signed(folder)
    (folder / "zones").mkdir()
    (folder / "secrets").write_text(COOKIES)
    (folder / "keys").write_text(secondaries.KEYS)
    (folder / "keys").chmod(0o600)
    (folder / "reg").mkdir()
    url, secondary, tls = f"local:{folder}/reg/r.sock", free_port(), free_port()
    sets = (f"registry={url}", f"data_dir={folder}/reg", "token=off")
    command = [sys.executable, "-c", REGISTRYD, *(part for s in sets for part in ("--set", s))]
    registry = Server(command, log=folder / "registry.log")
    with ExitStack() as stack:
        stack.callback(registry.stop)
        registry.start().wait_ready("registry", (folder / "reg" / "r.sock").exists)
        made = Conforming(daemon=None, folder=folder, registry=url, tls=tls, secondary=secondary)  # type: ignore[arg-type]  # below
        made.write_zone(1)
        daemon = DnsDaemon(
            folder,
            registry=url,
            port=free_port(),
            http_port=free_port(),
            listen_tls=[f"127.0.0.1:{tls}"],
            secondaries=[f"127.0.0.1:{secondary}"],
            **made.settings(),
        )
        made = Conforming(daemon=daemon, folder=folder, registry=url, tls=tls, secondary=secondary)
        stack.callback(daemon.stop)
        daemon.start()
        made.doing(fill)
        daemon.wait_serving()
        whole = Question(name="big.marathon.mesos", tcp=True)
        wait_until("everything is answered", lambda: len(able(whole)[-1].ask(made.port, whole).answer) == BIG)
        wait_until("the agent is answered", lambda: daemon.answers("slave.mesos"))
        yield made


@contextmanager
def strictly_resolving(served: Conforming) -> Iterator[int]:
    """An unbound in its strictest settings that asks us. Gives its port."""
    port = free_port()
    zones = "".join(
        f'stub-zone:\n  name: "{zone}"\n  stub-addr: 127.0.0.1@{served.port}\n'
        for zone in ("mesos", "file.test", "10.in-addr.arpa")
    )
    shutil.rmtree(served.folder / "unbound", ignore_errors=True)
    (served.folder / "unbound").mkdir()
    server = unbound(served.folder / "unbound", port, zones, server=STRICT).start()
    try:
        probe = ("dig", "@127.0.0.1", "-p", str(port), "mesos", "SOA", "+time=1", "+tries=1")
        server.wait_ready("unbound", lambda: "status: NOERROR" in run(*probe))
        yield port
    finally:
        server.stop()


def asks(name: str, kind: str = "A", **how: Any) -> pytest.MarkDecorator:
    """The test gets `seen`, what a client saw of the answer; once for each client that can ask this."""
    question = Question(name=name, kind=kind, **how)
    cases = [pytest.param((client, question), id=client.name) for client in able(question)]
    assert cases, f"no client can ask {question}"
    return pytest.mark.parametrize("seen", cases, indirect=True)


def ask_each(served: Conforming, name: str, kind: str = "A", **how: Any) -> dict[str, Seen]:
    """By client."""
    question = Question(name=name, kind=kind, **how)
    return {client.name: client.ask(served.port, question) for client in able(question)}
