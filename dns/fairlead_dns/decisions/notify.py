"""NOTIFY (RFC 1996): telling secondaries that there is a new serial. Pure: messages, and how often they are sent again."""

from fairlead_dns.decisions import wire
from fairlead_dns.decisions.compose import Packer, RRset

NOTIFY = 4 << 11
RETRIES_S = (1.0, 2.0, 4.0, 8.0, 15.0)
"""How long each try waits for its reply. After the last one the secondary finds out by itself (SOA's refresh)."""


def message(number: int, soa: RRset) -> bytes:
    """The request: SOA asked for, and the SOA there is as a hint in the answer section."""
    question = soa.owner + wire.SOA.to_bytes(2, "big") + wire.IN.to_bytes(2, "big")
    packer = Packer(question, wire.POINTER_LIMIT, soa.owner)
    packer.add(0, soa.owner, wire.SOA, soa.ttl_s, soa.data[0])
    return packer.message(number.to_bytes(2, "big"), NOTIFY | wire.AA)


def reply_code(request: bytes, reply: bytes) -> int | None:
    """The code of the reply to a request of ours; None when it is none."""
    if len(reply) < wire.HEADER_BYTES or reply[:2] != request[:2]:
        return None
    flags = reply[2] << 8 | reply[3]
    if not flags & wire.QR or flags & wire.OPCODE_MASK != NOTIFY:
        return None
    return flags & 15
