"""The UDP side: one reader callback a socket, many packets a wake-up, no task and no object a packet."""

import asyncio
import socket

from fairlead_dns.adapters.waiting import Waiters
from fairlead_dns.decisions import proxy
from fairlead_dns.decisions.acl import Acl
from fairlead_dns.decisions.asked import Came, Next, Transport
from fairlead_dns.decisions.front import Front, Waiting
from fairlead_dns.decisions.wire import reply_code
from fairlead_dns.metrics import Counts

DRAIN = 128  # packets a wake-up: about a millisecond, so that changes and TCP have their turn
PACKET_BYTES = 4096
NOTHING: dict[bytes, Next] = {}
NO_TABLES: dict[str, dict[bytes, Next]] = {}


class UdpServer:
    """Answers on one socket until closed. Measured on the way here: recvmmsg and sendmmsg through ctypes save a
    tenth of the CPU of this loop, at the price of raw pointers; plain sockets were within the aim and stayed.
    """

    def __init__(self, sock: socket.socket, front: Front, counts: Counts, waiters: Waiters) -> None:
        self._sock = sock
        self._front = front
        self._counts = counts
        self._codes = counts.replies[Transport.UDP]
        self._waiters = waiters
        self._local = sock.getsockname()[0]
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(sock.fileno(), self.drain)

    def drain(self) -> None:
        """Answers what waits in the socket, up to DRAIN packets."""
        receive, send = self._sock.recvfrom, self._sock.sendto
        table = (self._front.views.tables if self._front.limiter is None else NO_TABLES).get
        hits = 0
        try:
            for _ in range(DRAIN):
                packet, peer = receive(PACKET_BYTES)
                following = table(peer[0], NOTHING).get(packet[2:])
                if following is not None:
                    hits += 1
                    send(packet[:2] + following(), peer)
                else:
                    self._answer(packet, peer)
        except BlockingIOError:
            pass  # nothing more waits, or the send buffer is full and this reply is lost, as datagrams may be
        except OSError:
            self._counts.socket_errors += 1  # one reply lost (no route, port 0, a firewall); the rest comes next time
        self._counts.cache_hits += hits
        self._codes[0] += hits

    def close(self) -> None:
        """Answers what has come so far, and stops."""
        self._loop.remove_reader(self._sock.fileno())
        self.drain()
        self._sock.close()

    def _answer(self, packet: bytes, peer: tuple[str, int]) -> None:
        self._answer_for(packet, Came(Transport.UDP, peer[0], self._local), peer)

    def _answer_for(self, packet: bytes, came: Came, peer: tuple[str, int]) -> None:
        reply = self._front.reply(packet, came)
        if isinstance(reply, Waiting):
            self._waiters.add(reply, lambda late: self._send_late(late, peer))
        else:
            assert reply is None or isinstance(reply, bytes)  # the front streams only to who can take it
            self._send(reply, peer)

    def _send(self, reply: bytes | None, peer: tuple[str, int]) -> None:
        if reply is None:
            self._counts.silences += 1
            return
        self._codes[reply_code(reply)] += 1
        self._sock.sendto(reply, peer)

    def _send_late(self, reply: bytes | None, peer: tuple[str, int]) -> None:
        try:
            self._send(reply, peer)
        except OSError:
            self._counts.socket_errors += 1


class ProxiedUdpServer(UdpServer):
    """One where each datagram begins with a PROXY header; the reply goes back to the proxy, without one."""

    def __init__(
        self, sock: socket.socket, front: Front, counts: Counts, waiters: Waiters, trusted: Acl
    ) -> None:  # the plain one's, and whom to believe
        super().__init__(sock, front, counts, waiters)
        self._trusted = trusted

    def drain(self) -> None:
        try:
            for _ in range(DRAIN):
                packet, peer = self._sock.recvfrom(PACKET_BYTES + proxy.MOST_BYTES)
                self._pass(packet, peer)
        except BlockingIOError:
            pass
        except OSError:
            self._counts.socket_errors += 1

    def _pass(self, packet: bytes, peer: tuple[str, int]) -> None:
        try:
            header = proxy.parse(packet) if self._trusted.admits(peer[0]) else None
        except proxy.BadProxyError:
            header = None
        if header is None:
            self._counts.silences += 1
        else:
            came = Came(Transport.UDP, header.client or peer[0], header.local or self._local)
            self._answer_for(packet[header.size :], came, peer)
