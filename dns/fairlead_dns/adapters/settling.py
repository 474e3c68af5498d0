"""Gives serials to what the names hold: at each revision of the registry, when it may be said (decisions/settling.py)."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from uuid import uuid4

from fairlead_daemon.errors import Conflict, FairleadError
from fairlead_daemon.files import replace_file
from fairlead_daemon.logs import Log
from fairlead_discovery import paths
from fairlead_discovery.records import Cluster, decode
from fairlead_discovery.registry import Put, Registry
from fairlead_discovery.snapshots import Trust
from fairlead_dns.adapters.onward import Onward
from fairlead_dns.decisions.settling import OWN, Shared, Standing, Verdict, digest, judge, parse_shared
from fairlead_dns.names import Names

log = Log("dns")
READ_S = 5.0
AGAIN_S = 0.25
LOOSE_S = 5.0
NOTHING = digest({}, repr([]))
"""Of no framework, agent or master: there is no need to write that into anybody's registry."""


def shared_path(names: Names) -> str:
    """Where name servers of the same settings keep the digest of what comes from no commit."""
    us = names.authority
    said = repr((names.rules, us.apexes, us.ttl_s, us.negative_ttl_s))
    return paths.below(paths.NAME_SERIALS, sha256(said.encode()).hexdigest()[:16])


def own_digest(names: Names) -> str:
    """Of what a restart may change: settings, the records they give, the program."""
    own = {who: sorted(records) for who, records in names.sources.others.items() if who.startswith((*OWN, "settings"))}
    return sha256(
        repr((version("fairlead"), shared_path(names), names.authority, sorted(own.items()))).encode()
    ).hexdigest()


async def _read(registry: Registry, path: str) -> tuple[Shared | None, int]:
    """What stands there, and the registry's revision: a snapshot holds what its revision says, and on ZooKeeper perhaps
    of the next ones too. When the revision is still the same after it was read, it holds no more.
    """
    node, cluster, clock = await asyncio.gather(
        registry.read(path), registry.read(paths.CLUSTER), registry.read(paths.REVISION)
    )
    base = decode(Cluster, cluster.data, place=paths.CLUSTER).base if cluster is not None else 0
    shared = None if node is None else parse_shared(node.data.decode("ascii", "replace"))
    return shared, base + (clock.version if clock is not None else 0)


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError):
        return ""


@dataclass(slots=True)
class Settler:
    """`registry` None: the revision is its content's serial at once, for we are `alone` with a source that is none."""

    names: Names
    registry: Registry | None
    settled: Callable[[], None]
    """Called when there is something new to fetch."""
    said: Path | None = None
    """File with the digest of what only settings and this program decide. Another one than last time is a new content
    at an old revision, so that the revision is raised first."""
    alone: bool = False
    resume: Callable[[], Awaitable[None]] | None = None
    """Puts the ledger back to where it stood before we were started; awaited once, before anything is settled."""
    strict: bool = True
    """Somebody may fetch: no serial is said before it is agreed upon, and the registry is read for each. Else it is asked
    only when frameworks, agents or masters have changed, to raise the revision, and not waited for beyond LOOSE_S.
    """
    onward: Onward | None = None
    """Sees to it that serials rise where the registry has begun anew."""
    _path: str = field(init=False)
    _own: tuple[int, str] = (-1, "")
    _agreed: str = ""
    _differ_since_s: float | None = None
    _commits: int = 0
    _unsure: bool = False
    _waits_since_s: float | None = None

    def __post_init__(self) -> None:
        self._path = shared_path(self.names)

    async def run(self) -> None:
        while True:
            await self.names.applied.wait()
            self.names.applied.clear()
            if self.names.applying or self.names.answers.trust is None:
                continue  # the end of it sets `applied` again
            if self.resume is not None:
                resume, self.resume = self.resume, None
                if self.onward is not None:
                    await self.onward.hear()
                await resume()
                self.names.applied.set()  # much may have changed meanwhile
                continue
            if self.registry is None:
                await self._settle()
                continue
            if self.names.answers.trust is not Trust.LIVE:
                await self._settle_first()
                continue
            why = "another revision is on the way"
            try:
                done = await self._agree(self.registry)
            except (FairleadError, OSError) as error:
                log.debug("serial not settled", why=str(error))
                done, why = False, str(error)
            if done or await self._gives_up(why):
                self._waits_since_s = None
            else:
                await self._soon()

    async def _gives_up(self, why: str) -> bool:
        """A registry that takes no word of ours (it is closed to us, say) is no reason to stand still where nobody
        fetches: what has changed is then under the revision's serial.
        """
        now_s = asyncio.get_running_loop().time()
        if self._waits_since_s is None:
            self._waits_since_s = now_s
        if self.strict or now_s - self._waits_since_s < LOOSE_S:
            return False
        log.warning("serial not agreed upon with the registry", serial=self.names.serial_now, why=why)
        self._agreed = self._own_digest()
        await self._settle()
        return True

    async def _soon(self) -> None:
        try:
            async with asyncio.timeout(AGAIN_S):
                await self.names.applied.wait()
        except TimeoutError:
            self.names.applied.set()

    async def _agree(self, registry: Registry) -> bool:
        """Reads what stands in the registry, after the revision that is applied was seen, and acts on it."""
        counted = self.names.version
        own = self._own_digest()
        if not self.strict and own == self._agreed:
            return await self._settle_onward()
        async with asyncio.timeout(READ_S):
            shared, revision = await _read(registry, self._path)
        if self.names.version != counted or self.names.applying or revision != self.names.snapshot.revision:
            return False
        if self._unsure or self.said is not None:
            await self._raise_once(registry)
            return False
        nothing = not self.strict and shared is None and own == NOTHING
        match Verdict.SETTLE if nothing else self._judged(own, shared):
            case Verdict.SETTLE:
                self._agreed, self._differ_since_s, self._commits = own, None, 0
                return await self._settle_onward()
            case Verdict.COMMIT:
                await self._commit(registry, own)
        return False

    async def _commit(self, registry: Registry, own: str) -> None:
        if self._commits:
            log.warning("the other name servers give other names", revision=self.names.snapshot.revision)
        self._commits += 1
        said = Shared(digest=own, mark=uuid4().hex[:16])
        async with asyncio.timeout(READ_S):
            revision = await registry.commit([Put(self._path, said.text.encode())])
            node = await registry.read(self._path)
            if node is not None and node.data == said.text.encode():
                whole = replace(said, since=revision)
                with suppress(Conflict):  # another server has just committed: its word counts
                    await registry.write(self._path, whole.text.encode(), expect=node.version)
        self.names.applied.set()

    async def _raise_once(self, registry: Registry) -> None:
        says = own_digest(self.names)
        known = says if self.said is None else await asyncio.to_thread(_text, self.said)
        if self._unsure or known != says:
            async with asyncio.timeout(READ_S):
                await registry.commit([])
        if self.said is not None:
            await asyncio.to_thread(replace_file, self.said, says.encode())
        self.said, self._unsure = None, False
        self.names.applied.set()

    def _judged(self, own: str, shared: Shared | None) -> Verdict:
        now_s = asyncio.get_running_loop().time()
        if self._differ_since_s is None:
            self._differ_since_s = now_s
        return judge(
            Standing(
                own=own,
                revision=self.names.snapshot.revision,
                shared=shared,
                news=self._agreed not in {own, ""},
                waited_s=now_s - self._differ_since_s,
                commits=self._commits,
            )
        )

    def _own_digest(self) -> str:
        """Made anew only when something but the registry's commits has changed."""
        if self._own[0] != self.names.others_version:
            self._own = (
                self.names.others_version,
                digest(self.names.sources.others, repr(sorted(self.names.queries.known.items()))),
            )
            self._commits, self._differ_since_s = 0, None
        return self._own[1]

    async def _settle_onward(self) -> bool:
        if self.onward is not None and not await self.onward.allows():
            return False
        await self._settle()
        return True

    async def _settle_first(self) -> None:
        """Out of sight or not believed from the start: what was kept on disk is better for secondaries than nothing. But
        nobody says that it is what others gave this serial to, so that afterwards the revision is raised.
        """
        if self.names.ledger.serial is None:
            self._unsure = self.strict
            await self._settle()
        elif not self.strict:
            await self._settle()

    async def _settle(self) -> None:
        for moved in self.names.settling(alone=self.alone):
            if moved:
                self.settled()
            await asyncio.sleep(0)  # queries have their turn
