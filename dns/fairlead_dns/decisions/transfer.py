"""Zone transfers: whole (AXFR, RFC 5936) and what has changed (IXFR, RFC 1995), as messages made one at a time."""

import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Protocol
from weakref import WeakSet

from fairlead_dns.decisions import wire
from fairlead_dns.decisions.acl import Acl
from fairlead_dns.decisions.asked import EDE_NOT_READY, EDE_PROHIBITED, EDNS_BYTES, Asked, Handled, error
from fairlead_dns.decisions.compose import Packer, RRset
from fairlead_dns.decisions.journal import Change, Journal, later, serial_of

MESSAGE_BYTES = 16_000  # few names are out of a pointer's reach (16,384), and no message holds the loop for long
NOTAUTH = 9


@dataclass(slots=True)
class Counts:
    """Since the start: zones sent whole, only what changed, refused to who may not, put off because too many ran."""

    whole: int = 0
    incremental: int = 0
    refused: int = 0
    put_off: int = 0


class View(Protocol):
    """A zone at one serial. `records` gives every set but the SOA, once."""

    @property
    def soa(self) -> RRset: ...

    def records(self) -> Iterator[RRset]: ...


class Source(Protocol):
    """What is transferred."""

    @property
    def journal(self) -> Journal: ...

    def soa(self) -> RRset | None:
        """None: nothing is known yet."""
        ...

    def view(self) -> View:
        """Stays as it is for whoever holds it, though changes go on."""
        ...


@dataclass(frozen=True, slots=True)
class Permit:
    """Clients of these networks; with a key, only messages signed with it."""

    networks: Acl
    key: bytes | None = None

    def admits(self, client: str, key: bytes | None) -> bool:
        return (self.key is None or self.key == key) and self.networks.admits(client)


class _Running:
    """A transfer's view, for as long as its messages are read."""

    def __init__(self, view: View) -> None:
        self.view = view


@dataclass(slots=True)
class Transfers:
    """The front's handler for AXFR and IXFR, of all zones. At most `most` whole zones at once."""

    permits: tuple[Permit, ...] = ()
    most: int = 8
    sources: dict[bytes, Source] = field(default_factory=dict)
    """By apex."""
    counts: Counts = field(default_factory=Counts)
    _running: "WeakSet[_Running]" = field(default_factory=WeakSet)

    def reply(self, asked: Asked) -> Handled:
        if not any(permit.admits(asked.came.client, asked.key) for permit in self.permits):
            self.counts.refused += 1
            return error(asked, wire.REFUSED, ede=EDE_PROHIBITED)
        source = self.sources.get(asked.query.name)
        if source is None:
            return error(asked, NOTAUTH)
        soa = source.soa()
        if soa is None:
            return error(asked, wire.SERVFAIL, ede=EDE_NOT_READY)
        if asked.query.kind == wire.AXFR:
            return self._whole(asked, source)
        serial = asked_serial(asked.packet)
        return error(asked, wire.FORMERR) if serial is None else self._incremental(asked, source, soa, serial)

    def _whole(self, asked: Asked, source: Source) -> Handled:
        if len(self._running) >= self.most:
            self.counts.put_off += 1
            return error(asked, wire.SERVFAIL)
        self.counts.whole += 1
        running = _Running(source.view())
        self._running.add(running)
        return messages(asked, _all(running))

    def _incremental(self, asked: Asked, source: Source, soa: RRset, serial: int) -> Handled:
        streams = asked.came.transport.streams
        if not later(serial_of(soa), serial):
            return next(messages(asked, [soa]))
        changes = source.journal.since(serial, serial_of(soa))
        if changes is None:
            return self._whole(asked, source) if streams else next(messages(asked, [soa]))
        if streams:
            self.counts.incremental += 1
            return messages(asked, _differences(soa, changes))
        both = list(islice(messages(asked, _differences(soa, changes), room=asked.room), 2))
        if len(both) > 1:
            return next(messages(asked, [soa]))  # too much for a datagram: the client asks again over TCP
        self.counts.incremental += 1
        return both[0]


def messages(asked: Asked, sets: Iterable[RRset], *, room: int = MESSAGE_BYTES) -> Iterator[bytes]:
    """The sets in order, in as few messages as hold them, never one without a record; the first echoes the question."""
    edns = asked.query.edns
    opt = b"" if edns is None else wire.opt_record(EDNS_BYTES, do=edns.do)
    room = min(room, asked.room) - len(opt)
    number, flags = asked.packet[:2], wire.QR | wire.AA | asked.flags
    packer = Packer(asked.query.question, room, asked.query.name)
    for rrset in sets:
        for data in rrset.data:
            if not packer.add(0, rrset.owner, rrset.kind, rrset.ttl_s, data):
                yield packer.message(number, flags, opt)
                packer = Packer(b"", asked.room - len(opt))  # one record may be larger than our messages are
                packer.add(0, rrset.owner, rrset.kind, rrset.ttl_s, data)
                packer.room = room
    yield packer.message(number, flags, opt)


def asked_serial(packet: bytes) -> int | None:
    """The serial in the SOA that an IXFR question carries in its authority section; None when it carries none."""
    questions, answers, authorities, _ = struct.unpack_from("!HHHH", packet, 4)
    if questions != 1 or answers or authorities != 1:
        return None
    at = _past_name(packet, _past_name(packet, wire.HEADER_BYTES) + 4)
    kind, _, _, length = struct.unpack_from("!HHIH", packet, at)
    end = at + 10 + length
    if kind != wire.SOA or length < 22 or end > len(packet):
        return None
    return int.from_bytes(packet[end - 20 : end - 16], "big")


def _all(running: _Running) -> Iterator[RRset]:
    yield running.view.soa
    yield from running.view.records()
    if not getattr(running.view, "outrun", False):
        yield running.view.soa


def _differences(soa: RRset, changes: Sequence[Change]) -> Iterator[RRset]:
    yield soa
    for change in changes:
        yield change.before
        for name in change.names:
            yield from name.removed()
        yield change.after
        for name in change.names:
            yield from name.added()
    yield soa


def _past_name(packet: bytes, at: int) -> int:
    """In a packet that was accepted, so that it ends."""
    while packet[at]:
        if packet[at] >= 0xC0:
            return at + 2
        at += 1 + packet[at]
    return at + 1
