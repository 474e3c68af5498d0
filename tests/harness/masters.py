"""For tests of static zones: master files as text, zones made of them, questions to the handler."""

from collections.abc import Mapping

import dns.message

from fairlead_dns.decisions import asked, wire
from fairlead_dns.decisions.masterfile import BadZoneError, Entry, parse
from fairlead_dns.decisions.static import StaticAnswers, StaticZone, compile_zone

HEAD = "$TTL 300\n@ IN SOA ns1 root 1 3600 600 86400 60\n@ NS ns1\nns1 A 10.0.0.1\n"


def apex_of(name: str) -> bytes:
    found = wire.parse_text(name)
    assert found is not None
    return found


def entries(text: str, *, apex: str = "example.org", others: Mapping[str, str] | None = None) -> tuple[Entry, ...]:
    """Records of a file called `zone`; `others` are the files it may include."""
    files = {"zone": text, **(others or {})}

    def read(file: str) -> str:
        if file not in files:
            raise BadZoneError(f"{file}: no such file")
        return files[file]

    return parse("zone", apex_of(apex), read)


def zone(text: str, *, apex: str = "example.org", head: str = HEAD) -> StaticZone:
    return compile_zone(apex_of(apex), entries(head + text, apex=apex))


def ask(made: StaticZone, name: str, kind: str = "A", *, room: int = 1232, edns: bool = True) -> dns.message.Message:
    """The handler's reply, read by dnspython."""
    message = dns.message.make_query(name, kind, use_edns=0 if edns else -1)
    packet = message.to_wire()
    came = asked.Came(asked.Transport.UDP, "127.0.0.1")
    query = wire.parse_query(packet)
    reply = StaticAnswers(made).reply(asked.Asked(packet, query, came, asked.View(), 0x0100, room))
    return dns.message.from_wire(reply)
