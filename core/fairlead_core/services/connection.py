"""Finding the leading master and staying subscribed to it: for ever, with growing pauses."""

import asyncio
import random
import socket
from collections.abc import Mapping
from contextlib import aclosing
from typing import Any

import aiohttp

from fairlead_core.services.adapters.mesos import Subscription, subscribe
from fairlead_core.services.settings import ServicesSettings
from fairlead_core.services.term import Term
from fairlead_daemon.backoff import Backoff
from fairlead_daemon.errors import FairleadError, Refused, Unavailable
from fairlead_daemon.logs import Log
from fairlead_daemon.web import Health
from fairlead_discovery.leaders import masters
from fairlead_discovery.registry import Registry

log = Log("services.master")
BACKOFF = Backoff(first_s=0.1, most_s=5.0)
REMOVED = "Framework has been removed"
"""Mesos' words to a framework id that it will never take again."""


class Masters:
    """Where the leading master is: `host:port`, or several to try in turn."""

    def __init__(self, settings: ServicesSettings) -> None:
        self.addresses: tuple[str, ...] = tuple(a.strip() for a in settings.master.split(",") if a.strip())
        self.changed = asyncio.Event()
        self._fixed = bool(self.addresses)

    async def follow(self, registry: Registry) -> None:
        """Keeps `addresses` right; returns at once when they are a setting."""
        if self._fixed:
            return
        async with aclosing(masters(registry)) as found:  # type: ignore[type-var]  # it is an async generator
            async for info in found:
                self.addresses = () if info is None else (f"{info.address.ip}:{info.address.port}",)
                self.changed.set()

    async def wait(self, seconds: float) -> None:
        """Until they change, at most so long."""
        try:
            async with asyncio.timeout(seconds):
                await self.changed.wait()
        except TimeoutError:
            pass
        self.changed.clear()


async def stay_subscribed(term: Term, master: Masters, session: aiohttp.ClientSession, health: Health) -> None:
    """Raises Conflict when the registry refuses our leadership; every other trouble is tried again."""
    attempt = 0
    while True:
        if not master.addresses:
            health.wait("master", "no leading master is known")
            await master.wait(5.0)
            continue
        address = master.addresses[attempt % len(master.addresses)]
        try:
            subscription = await subscribe(session, address, framework_info(term))
        except (Unavailable, Refused) as error:
            await _forget_if_removed(term, error)
            health.wait("master", str(error))
            log.warning("not subscribed", master=address, why=str(error))
        else:
            try:
                if await _listen(term, subscription, health):
                    attempt = 0
            except (Unavailable, Refused) as error:
                await _forget_if_removed(term, error)
                log.warning("disconnected", master=address, why=str(error))
                health.wait("master", str(error))
            finally:
                term.on_disconnected()
                subscription.close()
        await master.wait(BACKOFF.delay_s(attempt, chance=random.random()))  # noqa: S311  # jitter
        attempt += 1


async def _listen(term: Term, subscription: Subscription, health: Health) -> bool:
    """Until the stream ends; True when it had begun."""
    async with aclosing(subscription.events()) as events:  # type: ignore[type-var]  # it is an async generator
        async for event in events:
            kind = event.get("type")
            if kind == "SUBSCRIBED":
                await term.on_subscribed(subscription)
                health.ready("master")
                log.info("subscribed", master=subscription.url, framework=subscription.framework_id)
            elif kind == "ERROR":
                raise Refused(str((event.get("error") or event).get("message", "the master ended the subscription")))
            else:
                term.on_event(event)
    return term.delivery.subscription is subscription


async def _forget_if_removed(term: Term, error: FairleadError) -> None:
    """A framework that was torn down lost its tasks with it: begin as a new one. Only the master's own word counts."""
    if term.framework_id and isinstance(error, Refused) and REMOVED in str(error):
        log.error("the master removed this framework; it registers anew", framework=term.framework_id, why=str(error))
        try:
            await term.forget_framework()
        except Unavailable as trouble:
            log.warning("framework not forgotten yet", why=str(trouble))


def framework_info(term: Term) -> Mapping[str, Any]:
    settings = term.settings
    info: dict[str, Any] = {
        "user": settings.task_user,
        "name": settings.framework,
        "failover_timeout": settings.failover_timeout_s,
        "checkpoint": True,
        "hostname": socket.gethostname(),
        "roles": [settings.role],
        "capabilities": [{"type": t} for t in ("PARTITION_AWARE", "TASK_KILLING_STATE", "MULTI_ROLE")],
    }
    if term.framework_id:
        info["id"] = {"value": term.framework_id}
    return info
