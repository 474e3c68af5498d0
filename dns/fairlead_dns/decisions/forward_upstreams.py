"""Upstreams: how they are written, how each is doing, in which order they are asked, which names go to which.

A circuit a server. Closed: used. Suspect, after three failures on end: used when no other is, and probed at once, since
it may have been the names' fault. Open, when the probe fails too: not used; a probe goes out after each pause (half
open), which grows from half a second to five, and the first reply closes it.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from ipaddress import ip_address
from typing import Literal

from fairlead_daemon.errors import BadSettings
from fairlead_dns.decisions import wire

Transport = Literal["udp", "tcp", "tls"]
PORTS: Mapping[Transport, int] = {"udp": 53, "tcp": 53, "tls": 853}
FAILURES = 3
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 5.0
LOOP_PAUSE_S = 60.0
"""An upstream that sends our questions back to us is left alone for so long."""
FIRST_HEDGE_S, LEAST_HEDGE_S, MOST_HEDGE_S = 0.1, 0.02, 0.4
FORGETTING = 0.98
"""What an unused upstream's round trip is multiplied by at each of another's answers, so that it is tried again."""
CASELESS_TIMES = 3


class Circuit(Enum):
    CLOSED = "closed"
    SUSPECT = "suspect"
    OPEN = "open"


@dataclass(frozen=True, slots=True)
class Place:
    """Where an upstream is. `name`: whom its certificate must name; its address when empty."""

    ip: str
    port: int
    transport: Transport = "udp"
    name: str = ""

    def __str__(self) -> str:
        host = f"[{self.ip}]" if ":" in self.ip else self.ip
        prefix = "" if self.transport == "udp" else f"{self.transport}://"
        return f"{prefix}{host}:{self.port}" + (f"#{self.name}" if self.name else "")


def parse_place(option: str, text: str) -> Place:
    """`10.0.0.1`, `10.0.0.1:53`, `[fd00::1]:53`, `tcp://10.0.0.1`, `tls://10.0.0.1:853#dns.example`.

    Raises BadSettings naming the option.
    """
    scheme, _, rest = text.rpartition("://")
    address, sign, name = rest.partition("#")
    transport = {"": "udp", "udp": "udp", "tcp": "tcp", "tls": "tls"}.get(scheme)
    found = _host_and_port(address)
    if transport is None or found is None or (sign and (transport != "tls" or not name or not wire.parse_text(name))):
        raise BadSettings(f"{option}: {text!r} is no upstream, expected ip[:port], tcp://ip or tls://ip[:port][#name]")
    ip, port = found
    chosen: Transport = transport  # type: ignore[assignment]  # the table's values are exactly these
    return Place(ip, port or PORTS[chosen], chosen, name.rstrip("."))


def _host_and_port(text: str) -> tuple[str, int] | None:
    host, port = text, "0"
    if text.startswith("["):
        host, _, after = text[1:].partition("]")
        port = after.removeprefix(":") or "0"
    elif text.count(":") == 1:
        host, _, port = text.partition(":")
    try:
        ip = str(ip_address(host))
    except ValueError:
        return None
    if not port.isascii() or not port.isdigit() or int(port) > 65535:
        return None
    return ip, int(port)


def resolv_conf(text: str) -> list[Place]:
    """The nameserver lines of /etc/resolv.conf that can be read."""
    found = []
    for line in text.splitlines():
        words = line.split()
        if len(words) >= 2 and words[0] == "nameserver" and "%" not in words[1]:
            try:
                found.append(parse_place("resolv.conf", words[1]))
            except BadSettings:
                continue
    return found


# --- one upstream's health --------------------------------------------------------------------------------------------


@dataclass(slots=True, eq=False)
class Upstream:
    """Owned by one task. Times in seconds; `now_s` is any clock that only goes forward."""

    place: Place
    circuit: Circuit = Circuit.CLOSED
    trip_s: float = 0.0
    """Smoothed round trip; 0: unknown."""
    wander_s: float = 0.0
    failures: int = 0
    pause_s: float = 0.0
    probe_at_s: float = 0.0
    """When it is probed, unless it is closed."""
    probing: bool = False
    looping: bool = False
    loops: int = 0
    plain: bool = False
    """It has called our EDNS a format error: it is asked without."""
    caseless: int = 0
    """How often on end it has folded our question's case."""

    def answered(self, took_s: float) -> None:
        """It has replied, whatever it said: RFC 6298's smoothing."""
        if not self.trip_s:
            self.trip_s, self.wander_s = took_s, took_s / 2
        else:
            self.wander_s += (abs(took_s - self.trip_s) - self.wander_s) / 4
            self.trip_s += (took_s - self.trip_s) / 8
        self._close()

    def overtaken(self, after_s: float, now_s: float) -> None:
        """Another answered first, so far this one has not: it may be dead, which only waiting on would have shown."""
        self.trip_s = max(self.trip_s, after_s)
        self.failed(now_s)

    def failed(self, now_s: float) -> None:
        """No reply in time, or none that can be read, or the network's refusal."""
        self.failures += 1
        if self.circuit is Circuit.CLOSED and self.failures >= FAILURES:
            self.circuit, self.probe_at_s = Circuit.SUSPECT, now_s

    def probe_failed(self, now_s: float) -> None:
        self.probing = False
        self.circuit = Circuit.OPEN
        self.pause_s = min(max(FIRST_PAUSE_S, 2 * self.pause_s), LONGEST_PAUSE_S)
        self.probe_at_s = now_s + self.pause_s

    def looped(self, now_s: float) -> None:
        """One of our own questions came back to us through it."""
        self.looping, self.probing, self.circuit = True, False, Circuit.OPEN
        self.loops += 1
        self.probe_at_s = now_s + LOOP_PAUSE_S

    def due(self, now_s: float) -> bool:
        """Whether a probe is to go out now; one at a time."""
        return self.circuit is not Circuit.CLOSED and not self.probing and now_s >= self.probe_at_s

    def hedge_s(self) -> float:
        """After how long without a reply another is asked as well."""
        if not self.trip_s:
            return FIRST_HEDGE_S
        return min(max(self.trip_s + 4 * self.wander_s, LEAST_HEDGE_S), MOST_HEDGE_S)

    @property
    def keeps_case(self) -> bool:
        return self.caseless < CASELESS_TIMES

    def _close(self) -> None:
        self.failures, self.pause_s, self.probing = 0, 0.0, False
        if not self.looping:
            self.circuit = Circuit.CLOSED

    def probe_answered(self, took_s: float) -> None:
        """And without having come round to ourselves meanwhile."""
        self.looping = False
        self.answered(took_s)


@dataclass(slots=True, eq=False)
class Group:
    """The upstreams of one zone, `.` for all the rest."""

    zone: bytes
    upstreams: Sequence[Upstream]
    race: bool = True
    """By round trip, a second one asked when the first is late; otherwise in the order written, one after another."""

    def order(self) -> list[Upstream]:
        """Whom to ask, best first. Empty: all circuits are open."""
        closed = [u for u in self.upstreams if u.circuit is Circuit.CLOSED]
        usable = closed or [u for u in self.upstreams if u.circuit is Circuit.SUSPECT]
        return sorted(usable, key=lambda u: u.trip_s) if self.race else usable

    def answered_by(self, upstream: Upstream) -> None:
        for other in self.upstreams:
            if other is not upstream:
                other.trip_s *= FORGETTING


@dataclass(frozen=True, slots=True)
class Zones:
    """Which upstreams a name goes to: those of the longest zone that holds it."""

    groups: Mapping[bytes, Group] = field(default_factory=dict)

    def find(self, name: bytes, starts: Sequence[int]) -> Group | None:
        """`starts`: the offsets of the name's labels."""
        for start in (*starts, len(name) - 1):
            if (group := self.groups.get(name[start:])) is not None:
                return group
        return None

    def upstreams(self) -> list[Upstream]:
        return [upstream for group in self.groups.values() for upstream in group.upstreams]


def without_ourselves(places: Iterable[Place], own: Iterable[tuple[str, int]]) -> list[Place]:
    """An upstream that is us would be asked for ever. Order kept, each once."""
    mine = set(own)
    return [place for place in dict.fromkeys(places) if (place.ip, place.port) not in mine]
