"""The UDP side: one reader callback a socket, many packets a wake-up, no task and no object a packet.

When more comes than can be answered the oldest are dropped: their clients have waited longest and ask again soonest. The
kernel alone would drop the newest, and every answer would come as late as the whole queue is long.
"""

import asyncio
import socket
import struct

from fairlead_dns.adapters.waiting import Waiters
from fairlead_dns.decisions import proxy
from fairlead_dns.decisions.acl import Acl
from fairlead_dns.decisions.asked import Came, Next, Transport
from fairlead_dns.decisions.front import Front, Waiting
from fairlead_dns.decisions.wire import reply_code
from fairlead_dns.metrics import Counts

DRAIN = 128  # packets a wake-up: about a millisecond, so that changes and TCP have their turn
PACKET_BYTES = 4096
SO_MEMINFO, MEMINFO_BYTES = 55, 36
SHED_ABOVE, SHED_TO = 0.75, 0.5  # of the socket's receive buffer
SHED_STEP, SHED_STEPS = 128, 128
_meminfo = struct.Struct("II")  # bytes that wait, bytes that may
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
            self._shed()
        except BlockingIOError:
            pass  # nothing more waits, or the send buffer is full and this reply is lost, as datagrams may be
        except OSError:
            self._counts.socket_errors += 1  # one reply lost (no route, port 0, a firewall); the rest comes next time
        self._counts.cache_hits += hits
        self._codes[0] += hits

    def _shed(self) -> None:
        """Drops the oldest of what waits when it is too much. Raises BlockingIOError when nothing waits any more."""
        if self._waits() <= SHED_ABOVE:
            return
        for _ in range(SHED_STEPS):
            for _ in range(SHED_STEP):
                self._sock.recv(1)
                self._counts.shed += 1
            if self._waits() <= SHED_TO:
                return

    def _waits(self) -> float:
        """How full the receive buffer is, of 1."""
        used, allowed = _meminfo.unpack_from(self._sock.getsockopt(socket.SOL_SOCKET, SO_MEMINFO, MEMINFO_BYTES))
        return float(used / allowed)

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
            self._shed()
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
