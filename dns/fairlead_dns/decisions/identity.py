"""What the server says of itself when it is asked: NSID (RFC 5001) and the CHAOS names; by default nothing."""

from dataclasses import dataclass

from fairlead_dns.decisions import wire
from fairlead_dns.decisions.asked import EDE_NOT_AUTHORITATIVE, EDNS_BYTES, Asked, error

NSID = 3
VERSIONS = (b"\7version\4bind\0", b"\7version\6server\0")
SERVERS = (b"\10hostname\4bind\0", b"\2id\6server\0")


@dataclass(frozen=True, slots=True)
class Identity:
    """`nsid`: what NSID gives, empty for nothing. `chaos`: CHAOS names' texts; a name that is not in it is refused."""

    nsid: bytes = b""
    chaos: tuple[tuple[bytes, str], ...] = ()

    def reply(self, asked: Asked) -> bytes:
        """To a question of class CH."""
        query, text = asked.query, dict(self.chaos).get(asked.query.name)
        if text is None:
            return error(asked, wire.REFUSED, ede=EDE_NOT_AUTHORITATIVE)
        if query.kind not in (wire.TXT, wire.ANY):
            return error(asked, wire.NOERROR)
        data = text.encode()[:255]
        answer = wire.pointer(wire.HEADER_BYTES) + wire.rr(wire.TXT, wire.CH, 0, bytes((len(data),)) + data)
        opt = b"" if query.edns is None else wire.opt_record(EDNS_BYTES, do=query.edns.do)
        counts = wire.header(wire.QR | wire.AA | asked.flags, 1, 0, bool(opt))
        return asked.packet[:2] + counts + query.question + answer + opt


def told(version: str, server: str) -> tuple[tuple[bytes, str], ...]:
    """The CHAOS names of a server that does not hide."""
    return (*((name, version) for name in VERSIONS), *((name, server) for name in SERVERS))
