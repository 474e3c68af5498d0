"""Certificates of this agent's tasks: asked for through the master, renewed at half of their life while a task runs."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import ParamSpec, TypeVar

from fairlead_core.agent import metrics
from fairlead_core.agent.adapters import identity_files
from fairlead_core.agent.adapters.accounts import Account
from fairlead_core.agent.decisions.identities import Had, Wish, due
from fairlead_core.agent.settings import AgentSettings
from fairlead_daemon.errors import Conflict, FairleadError, Refused, Unavailable
from fairlead_daemon.logs import Log
from fairlead_discovery import paths
from fairlead_discovery.adapters import x509
from fairlead_discovery.identities import Answer, Trust, fitting, fresh_request
from fairlead_discovery.records import decode
from fairlead_discovery.registry import Registry

LOOK_S = 2.0
AGAIN_S = 1.0
RETRY_S = 5.0
ANSWER_LIMIT_S = 5.0
Sign = Callable[[str, str, str], Awaitable[Answer]]
"""Framework id, task id, signing request; raises Unavailable, Conflict, Refused."""
log = Log("agent.identity")
P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """Whose identity it is, and where it lies."""

    framework_id: str
    task_id: str
    sandbox: Path
    account: Account


class Identities:
    """One an agent. `sign` asks the leading master; `bundle` is whom the registry says to believe, "" while unknown."""

    def __init__(self, settings: AgentSettings) -> None:
        self.settings = settings
        self.sign: Sign = _nobody
        self.bundle = ""

    async def follow(self, registry: Registry) -> None:
        """For ever. What cannot be read changes nothing."""
        said = ""
        while True:
            try:
                async with asyncio.timeout(ANSWER_LIMIT_S):
                    node = await registry.read(paths.TRUST)
                if node is not None:
                    text = decode(Trust, node.data, place=paths.TRUST).bundle
                    self.bundle = x509.joined(x509.split(text))
                said = ""
            except (FairleadError, TimeoutError) as error:
                if not said and isinstance(error, Refused):
                    said = str(error)
                    log.warning("roots of trust cannot be read", why=said)
            await asyncio.sleep(LOOK_S)


class TaskIdentity:
    """Of one task. `first()` before it starts, `keep()` while it runs; the files alone say what there is."""

    def __init__(self, identities: Identities, holder: Holder) -> None:
        self._all = identities
        self._holder = holder
        self._had: Had | None = None

    async def first(self, wish: Wish) -> None:
        """Raises Refused when a task that needs one gets none within `identity_wait_s`."""
        try:
            async with asyncio.timeout(self._all.settings.identity_wait_s if wish is Wish.NEEDED else ANSWER_LIMIT_S):
                await self._until_had(patient=wish is Wish.NEEDED)
        except TimeoutError:
            self._missing(wish, "the identity authority did not answer in time")
        except FairleadError as error:
            self._missing(wish, str(error))

    async def _until_had(self, *, patient: bool) -> None:
        while True:
            try:
                await self._renew()
            except (Unavailable, Conflict) as error:
                if not patient:
                    raise
                log.info("no identity yet", task=self._holder.task_id, why=str(error))
                await asyncio.sleep(AGAIN_S)
            else:
                return

    def _missing(self, wish: Wish, why: str) -> None:
        metrics.IDENTITIES.labels("failed").inc()
        if wish is Wish.NEEDED:
            raise Refused(f"no identity: {why}")
        log.warning("started without an identity", task=self._holder.task_id, why=why)

    async def keep(self) -> None:
        """For ever."""
        if self._had is None:
            self._had = await asyncio.to_thread(identity_files.found, self._holder.sandbox)
        failed = False
        while True:
            wait_s = LOOK_S
            try:
                if due(self._had, time.time()) or await self._unbelieved():
                    await self._renew()
                    failed = False
            except FairleadError as error:
                metrics.IDENTITIES.labels("failed").inc()
                if not failed:
                    log.warning("identity not renewed", task=self._holder.task_id, why=str(error))
                failed, wait_s = True, RETRY_S
            await asyncio.sleep(wait_s * random.uniform(0.8, 1.2))  # noqa: S311  # jitter

    async def _unbelieved(self) -> bool:
        """Roots that the registry tells are written down; whether ours is by none of them. Raises Refused."""
        had, told = self._had, self._all.bundle
        if had is None or not told or told == had.bundle:
            return False
        await whole(identity_files.keep_roots, self._holder.sandbox, self._holder.account, told)
        self._had = Had(not_before_s=had.not_before_s, not_after_s=had.not_after_s, chain=had.chain, bundle=told)
        return not x509.verified(had.chain, told)

    async def _renew(self) -> None:
        holder = self._holder
        key, csr = fresh_request()
        answer = fitting(key, await self._all.sign(holder.framework_id, holder.task_id, csr), of="the master")
        self._had = await whole(identity_files.keep, holder.sandbox, holder.account, key, answer)
        metrics.IDENTITIES.labels("issued").inc()
        log.info("identity is fresh", task=holder.task_id, spiffe_id=answer.spiffe_id)


async def whole(work: Callable[P, T], *given: P.args, **named: P.kwargs) -> T:
    """In a thread. Who is cancelled meanwhile ends only after it: then no file comes any more."""
    running = asyncio.ensure_future(asyncio.to_thread(work, *given, **named))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        await asyncio.wait([running])
        raise


async def _nobody(_framework_id: str, _task_id: str, _csr: str) -> Answer:
    raise Unavailable("no master leads")
