"""The mesh of one balancer: its own identity, kept fresh, and HAProxy believing and showing today's while it runs."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from fairlead_daemon.errors import BadSettings, FairleadError, Refused, Unavailable
from fairlead_daemon.logs import Log
from fairlead_daemon.tokens import token_path
from fairlead_discovery import paths
from fairlead_discovery.decisions import identity as identities_of
from fairlead_discovery.identities import Asking, Identity, Trust, keep_fresh
from fairlead_discovery.records import decode
from fairlead_discovery.registry import Registry
from fairlead_lb import metrics
from fairlead_lb.adapters import socket_cli
from fairlead_lb.certificates import say
from fairlead_lb.decisions import certificates, trust
from fairlead_lb.decisions.values import Frame
from fairlead_lb.settings import LbSettings, balancer_id, lb_folder

log = Log("lb.mesh")
LOOK_S = 2.0
AUDIT_S = 10.0
FRAMEWORK = "balancer"


@dataclass(slots=True)
class MeshSide:
    """`bodies` beside the loop; `framed` once there is an identity, also one of an earlier run."""

    settings: LbSettings
    place: Identity
    asking: Asking
    problem: str = ""
    """Why HAProxy does not have today's identity; told in `/status`."""
    _bundle: str = ""
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def trust_domain(self) -> str:
        """Of our certificate; "" while there is none."""
        seen = self.place.seen()
        uris = [u.removeprefix("spiffe://").partition("/")[0] for u in seen.uris] if seen is not None else []
        return uris[0] if uris else ""

    @property
    def ready(self) -> bool:
        return bool(self.trust_domain)

    def framed(self, frame: Frame) -> Frame:
        return msgspec.structs.replace(
            frame,
            identity=str(self.place.folder) if self.ready else "",
            identity_name=identities_of.common_name(self.asking.service),
        )

    def told(self) -> dict[str, Any]:
        """For `/mesh`."""
        seen = self.place.seen()
        return {
            "service": self.asking.service,
            "spiffe_id": seen.uris[0] if seen is not None and seen.uris else "",
            "not_after_s": seen.not_after_s if seen is not None else 0,
            "authority": self.asking.authority,
            "problem": self.problem or ("" if seen is not None else "no identity yet; `fairlead ca` gives it"),
        }

    def bodies(
        self,
        registry: Registry,
        socket: Callable[[], Path | str | None],
        came: Callable[[], None],
        worn: Callable[[], None],
    ) -> Iterator[Awaitable[None]]:
        """`socket`: of a worker that has the mesh; `came`: told when there is an identity for the first time; `worn`:
        told while that worker has today's identity and does not show it.
        """

        def changed() -> None:
            self._changed.set()
            came()

        yield self._follow_trust(registry)
        yield keep_fresh(self.place, self.asking, lambda: self._bundle, changed)
        yield self._follow(socket, worn)

    async def _follow_trust(self, registry: Registry) -> None:
        """For ever: whom the registry says to believe. What cannot be read changes nothing."""
        said = ""
        while True:
            try:
                async with asyncio.timeout(5):
                    node = await registry.read(paths.TRUST)
                if node is not None:
                    self._bundle = decode(Trust, node.data, place=paths.TRUST).bundle
                    trust.fingerprints(self._bundle)
                said = ""
            except (FairleadError, TimeoutError, ValueError) as error:
                self._bundle = ""
                if not said and isinstance(error, Refused | ValueError):
                    said = str(error)
                    log.warning("roots of trust cannot be read", reason=said)
            await asyncio.sleep(LOOK_S)

    async def _follow(self, socket: Callable[[], Path | str | None], worn: Callable[[], None]) -> None:
        """For ever: HAProxy has our files, compared every few seconds."""
        while True:
            self._changed.clear()
            place = socket()
            if place is not None and self.ready:
                try:
                    if await self._apply(place):
                        worn()
                except (Unavailable, Refused) as error:
                    self.problem = str(error)
                    log.debug("identity is not applied", reason=str(error))
            try:
                async with asyncio.timeout(AUDIT_S if place is not None and not self.problem else 0.5):
                    await self._changed.wait()
            except TimeoutError:
                pass

    async def _apply(self, socket: Path | str) -> bool:
        """Whether it has forgotten where our identity is shown: HAProxy before 3.2 does, at each change of whom to
        believe, and takes later identities without showing them. Raises Unavailable, Refused.
        """
        folder = str(self.place.folder)
        mine = certificates.parse("identity.pem", self.place.file.read_text(encoding="ascii"))
        bundle = self.place.bundle_file.read_text(encoding="ascii")
        served = certificates.served(await socket_cli.ask(socket, f"show ssl cert {folder}/identity.pem"))
        believed = trust.told(await socket_cli.ask(socket, f"show ssl ca-file {folder}/bundle.pem"))
        rows = list(trust.changes(mine, served.fingerprint, bundle, believed, folder))
        for row in rows:
            await say(socket, row)
        if rows:
            served = certificates.served(await socket_cli.ask(socket, f"show ssl cert {folder}/identity.pem"))
            believed = trust.told(await socket_cli.ask(socket, f"show ssl ca-file {folder}/bundle.pem"))
            log.info("identity turned", roots=len(believed), not_after_s=round(served.not_after_s))
        if left := list(trust.changes(mine, served.fingerprint, bundle, believed, folder)):
            raise Refused(f"haproxy does not take {len(left)} of identity and roots")
        self.problem = ""
        metrics.IDENTITY_EXPIRY.set(served.not_after_s)
        if (seen := self.place.seen()) is not None:
            metrics.IDENTITY_LIFE.set(seen.not_after_s - seen.not_before_s)
        return served.unused


def mesh_side(settings: LbSettings) -> MeshSide:
    """Raises BadSettings naming the key."""
    if not settings.identity_authority.startswith(("http://", "https://")):
        raise BadSettings(f"identity_authority: {settings.identity_authority}: expected http://host:port")
    service = f"{FRAMEWORK}:{balancer_id(settings)}"
    asking = Asking(authority=settings.identity_authority, service=service, token_file=token_path(settings))
    return MeshSide(settings=settings, place=Identity(lb_folder(settings) / "identity"), asking=asking)
