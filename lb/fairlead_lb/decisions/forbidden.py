"""Ports that no service may have, whoever asks: HAProxy would hold them, or take them in a moment they are free."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from fairlead_discovery.decisions.ports import Range, holds

FIRST_ORDINARY_PORT = 1024
"""Below are the machine's own services: ssh, DNS, mail."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Forbidden:
    """`own` are HAProxy's and our own; `reserved` are those of other daemons and of tasks."""

    own: Collection[int] = ()
    reserved: tuple[Range, ...] = ()
    low_allowed: bool = False

    def why(self, port: int) -> str:
        """Empty when a service may have it."""
        if port in self.own:
            return f"service port {port} is the balancer's own"
        if why := self.reserved_why(port):
            return f"service {why}"
        if port < FIRST_ORDINARY_PORT and not self.low_allowed:
            return f"service port {port} is below {FIRST_ORDINARY_PORT} (allow_low_ports)"
        return ""

    def reserved_why(self, port: int) -> str:
        """The same of ports of others alone."""
        return f"port {port} is reserved for others (reserved_ports)" if holds(self.reserved, port) else ""

    def among(self, ports: Iterable[int]) -> set[int]:
        return {port for port in ports if self.why(port)}
