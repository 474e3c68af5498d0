"""What the HTTP watch API says of a service: endpoints as JSON, how an answer is told from the one before, waits.

index  98-3fa2b1c4-live   the revision at which this server first saw the endpoints, their digest, how far to believe them
ETag   W/"3fa2b1c4-live"
"""

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

import msgspec

from fairlead_daemon.errors import BadSettings
from fairlead_discovery.decisions.trust import Confirmed
from fairlead_discovery.records import Address, Discovery, Member, TaskRef
from fairlead_discovery.snapshots import Trust

NONE = "none"
"""The digest of a service that is not there."""
NAMES = 200
"""Names that one stream may ask for."""
UNITS_S: Mapping[str, float] = {"ms": 0.001, "s": 1.0, "m": 60.0, "": 1.0}


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """One endpoint as it is told. `port` is the port of the name that was asked for, `ports` are all that have one."""

    service: str
    host: str
    port: int
    ports: Mapping[str, Address] = msgspec.field(default_factory=dict)
    health: Literal["healthy"] = "healthy"
    """What is not healthy is not published; how old that word is, `trust` and `age_s` of the answer say."""
    weight: float = 1.0
    zone: str = ""
    region: str = ""
    shard: int | None = None
    task: str
    name: str
    """The task's."""
    discovery: str = ""
    """The name in its DiscoveryInfo."""
    framework: str
    agent: str


def told(service: str, member: Member, at: Address) -> Found:
    """`at`: where the asked port is reached."""
    return Found(
        service=service,
        host=at.host,
        port=at.port,
        ports=member.additionalEndpoints,
        weight=member.weight,
        zone=member.zone,
        region=member.region,
        shard=member.shard,
        task=member.task.id,
        name=member.task.name,
        discovery=member.discovery.name,
        framework=member.task.framework,
        agent=member.task.agent,
    )


def member_of(found: Found) -> Member:
    """As much of the member as a program needs that finds services."""
    return Member(
        serviceEndpoint=Address(host=found.host, port=found.port),
        additionalEndpoints=found.ports,
        status="ALIVE",
        shard=found.shard,
        task=TaskRef(id=found.task, name=found.name, framework=found.framework, framework_id="", agent=found.agent),
        discovery=Discovery(name=found.discovery),
        zone=found.zone,
        region=found.region,
        weight=found.weight,
    )


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """What is told of services at once. `whole`: what is not named is not there. `more`: the rest comes next, and
    nothing of it counts before that.
    """

    cluster: str
    revision: int
    trust: Trust
    why: str = ""
    age_s: float = 0.0
    whole: bool = False
    more: bool = False
    services: Mapping[str, tuple[Found, ...]] = msgspec.field(default_factory=dict)
    gone: tuple[str, ...] = ()
    bare: bool = False
    """The whole registry is empty, routes and all."""
    left: tuple[str, ...] = ()
    """With a whole: tasks that have left in order, lately."""
    confirmed: Confirmed | None = None
    """What a person said last of what to believe."""


# --- which answer it is ------------------------------------------------------------------------------------------------


def digest(parts: Iterable[bytes]) -> str:
    """8 hex characters."""
    total = hashlib.sha256()
    for part in parts:
        total.update(part)
    return total.hexdigest()[:8]


@dataclass(frozen=True, slots=True)
class Index:
    """Servers that see the same endpoints say the same digest, whichever revision each of them first saw it at."""

    revision: int
    digest: str
    trust: str

    def __str__(self) -> str:
        return f"{self.revision}-{self.digest}-{self.trust}"

    @property
    def etag(self) -> str:
        return f'W/"{self.digest}-{self.trust}"'


_NUMBER = r"-?[0-9]{1,19}"
"""Of 64 bits, as far as that goes: Python refuses to read thousands of digits."""
_INDEX = re.compile(
    rf"(?:(?P<revision>{_NUMBER})|(?:{_NUMBER}-)?(?P<digest>[0-9a-f]{{8}}|none)-(?P<trust>[a-z]{{1,20}}))\Z"
)


def parsed(asked: str) -> re.Match[str]:
    """An index, an ETag's inside, or a revision alone. Raises BadSettings for what is none of them."""
    found = _INDEX.match(asked)
    if found is None:
        raise BadSettings(f"index: {asked[:60]!r} is no index, as an answer gives it")
    return found


def differs(asked: str, now: Index) -> bool:
    """Whether there is news for who knows `asked`; a revision alone counts for one server. Raises as `parsed`."""
    found = parsed(asked)
    if found["revision"] is not None:
        return now.revision > int(found["revision"])
    return (found["digest"], found["trust"]) != (now.digest, now.trust)


def version(text: str) -> int:
    """A revision or version alone. Raises BadSettings."""
    found = _INDEX.match(text)
    if found is None or found["revision"] is None:
        raise BadSettings(f"index: {text[:60]!r} is no version, a number of at most 19 digits")
    return int(found["revision"])


def resumed(last: str) -> tuple[str, int]:
    """`<instance>-<number>`, as a stream's ids are; ("", -1) for what is none."""
    instance, _, number = last.rpartition("-")
    found = re.fullmatch(_NUMBER, number)
    return (instance, int(number)) if found else ("", -1)


def of_etags(header: str) -> str:
    """`W/"3fa2b1c4-live", "x"` -> `3fa2b1c4-live`: the first that may be ours, "" when there is none."""
    for part in header.split(","):
        inner = part.strip().removeprefix("W/").strip('"')
        if _INDEX.match(inner):
            return inner
    return ""


def seconds(text: str) -> float:
    """`30s`, `500ms`, `1m`, `30`. Raises BadSettings."""
    found = re.fullmatch(r"(\d{1,9}(?:\.\d{1,9})?)(ms|s|m|)", text)
    if found is None:
        raise BadSettings(f"wait: {text[:60]!r} is no duration, as 30s")
    return float(found[1]) * UNITS_S[found[2]]
