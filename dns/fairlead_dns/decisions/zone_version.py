"""The zone's serial beside an answer, for clients that ask for it (ZONEVERSION, RFC 9660)."""

from collections.abc import Callable
from dataclasses import replace

from fairlead_dns.decisions import wire
from fairlead_dns.decisions.asked import Asked, error

ZONEVERSION = 19
OPTION_BYTES = 10
SOA_SERIAL = 0


def wish_of(asked: Asked) -> bytes | None:
    """What the client's option holds, None when it has none. It must hold nothing."""
    edns = asked.query.edns
    if edns is None or edns.plain:
        return None
    return next((data for code, data in edns.options if code == ZONEVERSION), None)


def reply_with(asked: Asked, reply: Callable[[Asked], bytes], apex: bytes, serial: int) -> bytes:
    """What `reply` gives, made to leave room, and the option: how many of the name's labels are the zone's, that it is
    SOA's serial, which. For who has the wish; FORMERR when the wish holds anything.
    """
    if wish_of(asked):
        return error(asked, wire.FORMERR)
    said = bytes((len(wire.labels(apex)), SOA_SERIAL)) + serial.to_bytes(4, "big")
    made = reply(replace(asked, room=asked.room - OPTION_BYTES))
    return wire.with_options(made, wire.option(ZONEVERSION, said))
