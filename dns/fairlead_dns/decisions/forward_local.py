"""Names that mean something only here, or nothing anywhere: answered by us, never sent on.

RFC 6303 (reverse names of private networks, with RFC 7793), RFC 6761 (localhost, invalid, test), RFC 6762 (local),
RFC 7686 (onion), RFC 8375 (home.arpa), RFC 9476 (alt).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from fairlead_dns.decisions import wire
from fairlead_dns.decisions.forward_wire import Reply

TTL_S = 10_800
NOBODY = b"\6nobody\7invalid\0"
TIMERS_S = (3600, 1200, 604_800, TTL_S)
OWNER = b"\xc0\x0c"
LOCALHOST = b"\x09localhost\0"
ADDRESSES = {wire.A: b"\x7f\0\0\1", wire.AAAA: bytes(15) + b"\1"}
NO_SUCH = ("invalid", "test", "local", "onion", "alt", "home.arpa")
REVERSE_6 = ("d.f", "8.e.f", "9.e.f", "a.e.f", "b.e.f", "8.b.d.0.1.0.0.2")


def _zones() -> Iterator[str]:
    yield from NO_SUCH
    yield from (f"{first}.in-addr.arpa" for first in ("0", "10", "127", "254.169", "168.192", "255.255.255.255"))
    yield from (f"{second}.172.in-addr.arpa" for second in range(16, 32))
    yield from (f"{second}.100.in-addr.arpa" for second in range(64, 128))
    yield from (f"{net}.in-addr.arpa" for net in ("2.0.192", "100.51.198", "113.0.203"))
    yield from (f"{net}.ip6.arpa" for net in REVERSE_6)
    yield from (f"{last}.{'0.' * 31}ip6.arpa" for last in (0, 1))


def _wired(text: str) -> bytes:
    wired = wire.parse_text(text)
    assert wired is not None
    return wired


ZONES: frozenset[bytes] = frozenset({LOCALHOST, *map(_wired, _zones())})
LOOPBACKS = frozenset(wire.reverse(address) for address in ADDRESSES.values())


@dataclass(frozen=True, slots=True)
class Local:
    """The local zone of a name."""

    start: int
    """Where it begins in the name."""

    @classmethod
    def find(cls, name: bytes, starts: Sequence[int]) -> "Local | None":
        for start in starts:
            if name[start:] in ZONES:
                return cls(start)
        return None

    def reply(self, name: bytes, kind: int) -> Reply:
        """What RFC 6303 and 6761 say: addresses of localhost, its PTR, the zone's own SOA and NS, else nothing."""
        zone = name[self.start :]
        data = self._data(name, kind)
        if data is not None:
            return Reply(wire.NOERROR, (1, 0, 0), record := wire.record(OWNER, kind, TTL_S, data), len(record))
        soa = wire.record(wire.pointer(wire.HEADER_BYTES + self.start), wire.SOA, TTL_S, _soa(zone))
        return Reply(wire.NOERROR if self._exists(name) else wire.NXDOMAIN, (0, 1, 0), soa, len(soa))

    def _data(self, name: bytes, kind: int) -> bytes | None:
        if name[self.start :] == LOCALHOST and kind in ADDRESSES:
            return ADDRESSES[kind]
        if name in LOOPBACKS and kind == wire.PTR:
            return LOCALHOST
        if self.start == 0 and kind == wire.SOA:
            return _soa(name)
        return name if self.start == 0 and kind == wire.NS else None

    def _exists(self, name: bytes) -> bool:
        """Names under localhost have its addresses (RFC 6761, 6.3)."""
        if self.start == 0 or name in LOOPBACKS or name[self.start :] == LOCALHOST:
            return True
        return any(loopback.endswith(name) for loopback in LOOPBACKS)


def _soa(zone: bytes) -> bytes:
    return wire.soa_rdata(zone, NOBODY, 1, TIMERS_S)
