"""UDP and TCP of the DNS server on real sockets of the loopback interface, in this process."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import dnslib

from fairlead_dns.adapters.gate import Gate
from fairlead_dns.adapters.sockets import bind
from fairlead_dns.adapters.tcp import Limits, TcpServer
from fairlead_dns.adapters.udp import UdpServer
from fairlead_dns.adapters.waiting import Waiters
from fairlead_dns.decisions.asked import Transport
from fairlead_dns.metrics import Counts
from fairlead_dns.names import Names
from harness.names import member, names

WEB = "web.marathon.mesos"


class Served:
    """One port, both transports."""

    def __init__(self, made: Names, limits: Limits) -> None:
        self.counts = Counts()
        self.waiters = Waiters(most=100, patience_s=60)
        (pair,) = bind("listen", "127.0.0.1:0")
        self.port = pair.place.port
        assert pair.udp is not None
        self.udp = UdpServer(pair.udp, made.front, self.counts, self.waiters)
        self.tcp = TcpServer(made.front, self.counts, limits, self.waiters)
        self.listener = pair.stream


@asynccontextmanager
async def serving(
    made: Names | None = None, *, connections: int = 8, per_client: int = 8, idle_s: float = 30
) -> AsyncIterator[Served]:
    served = Served(made or names(member()), Limits(connections=connections, per_client=per_client, idle_s=idle_s))
    accepting = Gate(served.listener, Transport.TCP, served.tcp.protocol).open()
    sweeping = asyncio.ensure_future(served.tcp.sweep())
    yield served
    sweeping.cancel()
    accepting.cancel()
    served.udp.close()
    served.tcp.close()
    await asyncio.sleep(0)


def framed(*packets: bytes) -> bytes:
    return b"".join(len(p).to_bytes(2, "big") + p for p in packets)


async def read_reply(reader: asyncio.StreamReader) -> dnslib.DNSRecord:
    async with asyncio.timeout(5):
        size = int.from_bytes(await reader.readexactly(2), "big")
        return dnslib.DNSRecord.parse(await reader.readexactly(size))


async def is_closed(reader: asyncio.StreamReader) -> bool:
    async with asyncio.timeout(5):
        try:
            return await reader.read() == b""
        except ConnectionError:
            return True


async def udp_client(port: int) -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.setblocking(False)
    sock.connect(("127.0.0.1", port))
    return sock


async def receive(sock: socket.socket) -> bytes:
    async with asyncio.timeout(5):
        return await asyncio.get_running_loop().sock_recv(sock, 65535)


async def now(value: bool) -> bool:
    return value
