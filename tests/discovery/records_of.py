"""Members, leaving records and their paths, as the tests of discovery need them."""

from fairlead_discovery import paths
from fairlead_discovery.records import Address, Leaving, Member, Reason, Route, TaskRef, encode
from fairlead_discovery.registry import Change, Create, Delete, Put

WEB = "marathon:/shop/web"


def member(number: int, *, agent: str = "a1") -> Member:
    return Member(
        serviceEndpoint=Address(host="10.0.0.1", port=31000 + number),
        task=TaskRef(id=f"t{number}", name="web", framework="marathon", framework_id="f", agent=agent),
        status="ALIVE",
    )


def path(number: int, *, service: str = WEB, agent: str = "a1") -> str:
    data = encode(member(number, agent=agent))
    return paths.member(service, paths.member_name(f"t{number}", data))


def publish(number: int, *, service: str = WEB, agent: str = "a1") -> Change:
    return Create(path(number, service=service, agent=agent), encode(member(number, agent=agent)))


def withdraw(number: int, *, service: str = WEB, agent: str = "a1") -> Change:
    return Delete(path(number, service=service, agent=agent))


def leave(number: int, *, service: str = WEB, reason: Reason = Reason.KILL) -> Change:
    record = Leaving(task=f"t{number}", service=service, member="", reason=reason, deadline_s=0.0)
    return Put(paths.leaving(f"t{number}"), encode(record))


def route(service: str = WEB) -> Change:
    return Put(paths.route(service), encode(Route(service=service)))
