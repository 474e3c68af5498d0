"""Our own names, seen by the forwarder: an upstream's answer may lead to one, and only we know what it has."""

from dataclasses import dataclass, replace

from fairlead_dns.decisions import wire
from fairlead_dns.decisions.asked import STREAM_BYTES, Asked, Transport
from fairlead_dns.decisions.forward_chain import above
from fairlead_dns.decisions.forward_records import expanded, records
from fairlead_dns.decisions.forward_wire import Reply
from fairlead_dns.decisions.front import Front, Route


@dataclass(frozen=True, slots=True, eq=False)
class OurNames:
    """What the front routes to others than the forwarder. See forward_chain.OwnZones."""

    front: Front

    def has(self, name: bytes) -> bool:
        return self._route(name) is not None

    def below(self, name: bytes) -> bool:
        """Generous: a label that ends like `name` counts too."""
        return any(apex.endswith(name) for apex, route in self.front.routes.items() if not route.recursive)

    def reply(self, asked: Asked, name: bytes) -> Reply:
        """What this client gets of `name`: ANSWER and AUTHORITY with whole owners, for they stand behind others."""
        route = self._route(name)
        question = name + asked.query.question[-4:]
        if asked.view.closed(name):
            return Reply(wire.REFUSED)
        packet = asked.packet[:2] + wire.header(asked.flags & wire.RD) + question
        query = wire.parse_query(packet)
        came = replace(asked.came, transport=Transport.TCP)
        onward = replace(asked, packet=packet, query=query, came=came, room=STREAM_BYTES)
        said = route.handler.reply(onward) if route is not None else None
        return _whole(said, question) if isinstance(said, bytes) else Reply(wire.SERVFAIL)

    def _route(self, name: bytes) -> Route | None:
        for apex in (name, *above(name)):
            route = self.front.routes.get(apex)
            if route is not None:
                return None if route.recursive else route
        return None


def _whole(said: bytes, question: bytes) -> Reply:
    kept = [r for r in records(said, wire.HEADER_BYTES + len(question)) if r.section < 2]
    made, ttls = expanded(said, kept)
    answers = sum(r.section == 0 for r in kept)
    return Reply(said[3] & 15, (answers, len(kept) - answers, 0), made, len(made), ttls)
