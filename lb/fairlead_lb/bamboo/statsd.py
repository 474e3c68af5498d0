"""Bamboo's counters by UDP, for those who have graphs of them."""

import asyncio
import contextlib
import socket
from collections.abc import Callable

from prometheus_client import REGISTRY

LOOK_S = 1.0


def reading(metric: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(metric, labels) or 0.0


class StatsD:
    """Fire and forget: a counter that is lost is lost."""

    def __init__(self, address: str, prefix: str) -> None:
        host, _, port = address.rpartition(":")
        self._address = (host.strip("[]"), int(port))
        self._prefix = prefix
        self._transport: asyncio.DatagramTransport | None = None

    def count(self, name: str, amount: int = 1) -> None:
        if amount > 0:
            self._send(f"{self._prefix}{name}:{amount}|c")

    def time(self, name: str, took_s: float) -> None:
        self._send(f"{self._prefix}{name}:{max(0, round(took_s * 1000))}|ms")

    def _send(self, line: str) -> None:
        if self._transport is not None:
            self._transport.sendto(line.encode())

    async def run(self, applied: Callable[[], int]) -> None:
        """For ever: HAProxy's reloads under Bamboo's names. `applied`: the revision HAProxy serves."""
        loop = asyncio.get_running_loop()
        while self._transport is None:
            with contextlib.suppress(OSError, socket.gaierror):
                self._transport, _ = await loop.create_datagram_endpoint(
                    asyncio.DatagramProtocol, remote_addr=self._address
                )
            await asyncio.sleep(LOOK_S if self._transport is None else 0)
        self.count("restart")
        last = _Reading(applied())
        try:
            while True:
                await asyncio.sleep(LOOK_S)
                now = _Reading(applied())
                self._tell(last, now)
                last = now
        finally:
            self._transport.close()

    def _tell(self, last: "_Reading", now: "_Reading") -> None:
        self.count("haproxy.reload.marathon.reloaded", int(now.done - last.done))
        self.count("haproxy.reload.error", int(now.refused - last.refused))
        if now.done == last.done and now.revision > last.revision:
            self.count("haproxy.reload.skipped")
        if now.changes > last.changes:
            self.time("haproxy.reload.marathon.duration", (now.spent_s - last.spent_s) / (now.changes - last.changes))


class _Reading:
    def __init__(self, revision: int) -> None:
        self.revision = revision
        self.done = reading("fairlead_lb_reloads_total", result="done")
        self.refused = reading("fairlead_lb_reloads_total", result="refused")
        self.changes = reading("fairlead_lb_apply_seconds_count")
        self.spent_s = reading("fairlead_lb_apply_seconds_sum")
