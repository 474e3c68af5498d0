"""Whose machines' balancers are asked, and where: followed in the registry, while `mesh_between` is set."""

import asyncio
from collections.abc import Callable, Iterator, Mapping
from ipaddress import ip_address

from fairlead_daemon.errors import BadSettings, Refused
from fairlead_daemon.logs import Log
from fairlead_discovery import paths
from fairlead_discovery.decisions import identity
from fairlead_discovery.records import Balancer, decode
from fairlead_discovery.registry import Node, Registry
from fairlead_discovery.snapshots import Snapshot
from fairlead_lb.adapters import machine
from fairlead_lb.decisions.between import Between, doors
from fairlead_lb.settings import LbSettings, balancer_id

EVERYWHERE = ("0.0.0.0", "::")  # compared with, not bound
log = Log("lb.between")


def check(settings: LbSettings) -> None:
    """Raises BadSettings naming the key."""
    if settings.mesh_between and not settings.node:
        raise BadSettings("mesh_between: for node balancers alone: kills wait for what others have connections to")
    me = f"{identity.BALANCER}:{balancer_id(settings)}"
    if settings.mesh_between and identity.common_name(me) != identity.word(me):
        raise BadSettings(f"id: {balancer_id(settings)}: too long for mesh_between, 55 characters at the most")


def registration(settings: LbSettings, admin: str) -> Balancer:
    """How the house knows this balancer."""
    me = balancer_id(settings)
    if not settings.mesh_between:
        return Balancer(id=me, admin=admin, node=settings.node)
    at = settings.mesh_bind or settings.bind or settings.host
    return Balancer(
        id=me,
        admin=admin,
        node=True,
        mesh_host="" if at in EVERYWHERE else at,
        mesh_port=settings.mesh_port,
        hosts=settings.machine or tuple(sorted(h for h in machine.addresses() if not ip_address(h).is_loopback)),
    )


class Doors:
    """`use` is told what is known. A machine once seen is not forgotten: whether its balancer answers, HAProxy's checks
    say, and a registry that comes back empty must not take away all servers of all services.
    """

    def __init__(self, settings: LbSettings, me: Balancer, use: Callable[[Between], None]) -> None:
        self._me = me
        self._own = frozenset(settings.machine or machine.addresses())
        self._use = use
        self._wanted = settings.mesh_between
        self._known = asyncio.Event()
        self._waiting: Snapshot | None = None
        self._offer: Callable[[Snapshot], None] = lambda _: None

    def after(self, offer: Callable[[Snapshot], None]) -> Callable[[Snapshot], None]:
        """The same, but what comes before machines are known waits: without them there would be no servers."""
        self._offer = offer
        return self._take if self._wanted else offer

    def _take(self, snapshot: Snapshot) -> None:
        if self._known.is_set():
            self._offer(snapshot)
        else:
            self._waiting = snapshot

    async def run(self, registry: Registry) -> None:
        """For ever."""
        if not self._wanted:
            await asyncio.Event().wait()
        own = self._me.mesh_host or None
        seen = {host: (own or host, self._me.mesh_port) for host in self._own}
        async for nodes in registry.follow(paths.BALANCERS):
            others = [one for one in _balancers(nodes) if one.id != self._me.id]
            seen = {**seen, **_others(others, self._own)}
            self._use(Between(own=self._own, doors=seen))
            if not self._known.is_set():
                self._known.set()
                log.info("machines are asked through their balancers", machines=len(seen) - len(self._own) + 1)
            if self._waiting is not None:
                waiting, self._waiting = self._waiting, None
                self._offer(waiting)


def _others(records: list[Balancer], own: frozenset[str]) -> Mapping[str, tuple[str, int]]:
    return {host: door for host, door in doors(records).items() if host not in own}


def _balancers(nodes: Mapping[str, Node]) -> Iterator[Balancer]:
    """What cannot be read is not asked."""
    for name, node in nodes.items():
        try:
            yield decode(Balancer, node.data, place=f"{paths.BALANCERS}/{name}")
        except Refused as error:
            log.warning("a balancer's record is left out", reason=str(error))
