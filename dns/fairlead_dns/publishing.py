"""Everything that stands written in files, and everything that secondaries fetch: put behind the front, kept true."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from prometheus_client import REGISTRY

from fairlead_daemon.errors import BadSettings, FairleadError
from fairlead_daemon.logs import Log
from fairlead_daemon.main import Context
from fairlead_discovery.backends import open_registry
from fairlead_discovery.registry import Registry
from fairlead_dns import transfer_settings as told
from fairlead_dns.adapters.agreeing import Agreeing
from fairlead_dns.adapters.chronicle import Chronicle
from fairlead_dns.adapters.notifier import Notifier
from fairlead_dns.adapters.onward import Onward
from fairlead_dns.adapters.regular import READ_S, Aside
from fairlead_dns.adapters.settling import Settler
from fairlead_dns.adapters.zonefiles import Unloaded, ZoneFolder
from fairlead_dns.decisions import wire
from fairlead_dns.decisions.compose import RRset
from fairlead_dns.decisions.journal import Change, Journal, serial_of
from fairlead_dns.decisions.ledger import LedgerSource
from fairlead_dns.decisions.static import StaticAnswers, StaticSource, StaticZone
from fairlead_dns.decisions.transfer import Transfers
from fairlead_dns.decisions.tsig import KeyRing
from fairlead_dns.hiding import Hiding
from fairlead_dns.names import Names
from fairlead_dns.transfer_metrics import TransferCollector, TransferState
from fairlead_dns.transfer_settings import MEGABYTE, TransferSettings
from fairlead_dns.workers import Workers

log = Log("dns")
CLOSE_S = 2.0


@dataclass(slots=True)
class Static:
    """One zone of a file: who answers for it and what is fetched of it."""

    answers: StaticAnswers
    source: StaticSource


@dataclass(slots=True)
class Publishing:
    """Made before anything is served; raises BadSettings naming the key."""

    settings: TransferSettings
    names: Names
    context: Context
    transfers: Transfers = field(init=False)
    keys: KeyRing = field(init=False)
    notifier: Notifier = field(init=False)
    folder: ZoneFolder | None = None
    zones: dict[bytes, Static] = field(default_factory=dict)
    broken: set[bytes] = field(default_factory=set)
    hiding: Hiding = field(init=False)
    workers: Workers | None = None
    """They are told of zones and keys."""

    def __post_init__(self) -> None:
        peers = told.peers(self.settings)
        self.keys = self.names.front.keys = KeyRing(peers.keys)
        self.transfers = self.names.front.transfers = Transfers(peers.permits, self.settings.transfers_at_once)
        self.notifier = Notifier(peers.secondaries, self._soa)
        for apex, journal in self.names.ledger.journals.items():
            journal.most_changes, journal.most_bytes = self._bounds()
            self.transfers.sources[apex] = LedgerSource(self.names.ledger, apex)
        self.hiding = Hiding(self.names, lambda: (*self.zones, *self.broken))
        if self.settings.zones_dir:
            folder = Path(self.settings.zones_dir)
            if not folder.is_dir():
                raise BadSettings(f"zones_dir: {folder} is no folder")
            self.folder = ZoneFolder(folder, self._take, self._refuse)

    async def claim(self) -> None:
        """To be awaited before anything is answered."""
        if self.folder is not None:
            await self.folder.claim()

    async def start(self) -> None:
        """Reads the zone files: from here on they can be answered; until then SERVFAIL. Ends at the stop signal too, should a file hang."""
        if self.folder is None:
            return
        async with asyncio.TaskGroup() as group:
            looking, stopped = group.create_task(self.folder.look()), group.create_task(self.context.stop.wait())
            await asyncio.wait({looking, stopped}, return_when=asyncio.FIRST_COMPLETED)
            looking.cancel()
            stopped.cancel()

    async def run(self, registry: Registry, said: Path, source_ip: str) -> None:
        """`said`: see Settler; the journal and the last serial lie beside it. `source_ip`: where secondaries expect NOTIFY
        from.
        """
        self.notifier.source_ip = source_ip
        collector = TransferCollector(self._state)
        REGISTRY.register(collector)
        kept = Chronicle(self.names, said.with_suffix(".journal"), self.settings.journal_changes)
        keeps = self.settings.journal_kept and self.settings.journal_changes > 0
        try:
            async with asyncio.TaskGroup() as group:
                if keeps:
                    group.create_task(kept.run())
                group.create_task(self._give_serials(registry, said, kept if keeps else None))
                group.create_task(self.notifier.run())
                group.create_task(self._reload())
                if self.folder is not None:
                    group.create_task(self.folder.run())
                    group.create_task(self.hiding.run())
        finally:
            REGISTRY.unregister(collector)

    async def _give_serials(self, registry: Registry, said: Path, kept: Chronicle | None) -> None:
        mesos = self.settings.mesos
        resume = None if kept is None else partial(kept.resume, alone=mesos is not None)
        if mesos is not None and mesos.serials:
            await self._agree_on_serials(mesos.serials, resume)
        elif mesos is not None:
            await Settler(self.names, None, self._settled, alone=True, resume=resume).run()
        else:
            strict = bool(self.transfers.permits)
            onward = Onward(self.names, registry, said.with_suffix(".serial"))
            await onward.load()
            settler = Settler(self.names, registry, self._settled, said if strict else None, strict=strict)
            settler.onward, settler.resume = onward, resume
            async with asyncio.TaskGroup() as group:
                group.create_task(onward.run())
                group.create_task(settler.run())

    async def _agree_on_serials(self, url: str, resume: Callable[[], Awaitable[None]] | None) -> None:
        registry = await open_registry(url)
        try:
            await Agreeing(self.names, registry, self._settled, resume).run()
        finally:
            with suppress(TimeoutError, FairleadError):  # without us the session ends by itself
                async with asyncio.timeout(CLOSE_S):
                    await registry.close()

    def _state(self) -> TransferState:
        soas = {wire.text(apex): source.soa() for apex, source in self.transfers.sources.items()}
        return TransferState(
            transfers=self.transfers.counts,
            notifies=self.notifier.counts,
            serials={zone: serial_of(soa) for zone, soa in soas.items() if soa is not None},
            journals={wire.text(apex): source.journal for apex, source in self.transfers.sources.items()},
            zones=len(self.zones),
            broken=0 if self.folder is None else self.folder.broken,
            hidden={wire.text(apex): count for apex, count in self.hiding.counts.items()},
        )

    async def _reload(self) -> None:
        """SIGHUP: zone files and keys are read anew. Keys that cannot be read leave the old ones."""
        aside = Aside()
        while True:
            await self.context.reload.wait()
            self.context.reload.clear()
            if self.folder is not None:
                self.folder.again.set()
            try:
                peers = await aside.run(lambda: told.peers(self.settings), READ_S)
            except (BadSettings, TimeoutError) as error:
                log.warning("keys not read anew", why=str(error) or "keys_file takes too long to read")
                continue
            self.keys.keys, self.transfers.permits, self.notifier.keys = peers.keys, peers.permits, peers.keys
            if self.workers is not None:
                self.workers.keys_set(peers.keys.values())

    def _bounds(self) -> tuple[int, int]:
        return self.settings.journal_changes, int(self.settings.journal_mb * MEGABYTE)

    def _soa(self, apex: bytes) -> RRset | None:
        source = self.transfers.sources.get(apex)
        return None if source is None else source.soa()

    def _settled(self) -> None:
        for apex in self.names.ledger.journals:
            self.notifier.changed(apex)

    def _take(self, apex: bytes, zone: StaticZone | None, change: Change | None) -> None:
        known = self.zones.get(apex)
        if zone is None:
            self._withdraw(apex)
        elif known is not None and change is not None:
            known.source.replace(zone, change)
            known.answers.replace(zone)
            self.notifier.changed(apex)
            self._share(apex)
        elif self._is_free(apex):
            self.broken.discard(apex)
            changes, octets = self._bounds()
            made = self.zones[apex] = Static(
                StaticAnswers(zone), StaticSource(zone, Journal(changes, octets), time.time())
            )
            self.transfers.sources[apex] = self.names.files[apex] = made.source
            self.names.front.route(apex, made.answers.route)
            self.notifier.changed(apex)
            self._share(apex)

    def _refuse(self, apex: bytes) -> None:
        if apex in self.zones or not self._is_free(apex):
            return
        self.broken.add(apex)
        self.names.front.serve(apex, Unloaded())
        self._share(apex)

    def _withdraw(self, apex: bytes) -> None:
        if apex not in self.zones and apex not in self.broken:
            return
        if self.zones.pop(apex, None) is not None:
            del self.transfers.sources[apex], self.names.files[apex]
        self.broken.discard(apex)
        self.names.front.withdraw(apex)
        self._share(apex)

    def share_with(self, workers: Workers) -> None:
        """From now on, and what there is."""
        self.workers = workers
        workers.keys_set(self.keys.keys.values())
        for apex in (*self.zones, *self.broken):
            self._share(apex)

    def _share(self, apex: bytes) -> None:
        if self.workers is None:
            return
        known = self.zones.get(apex)
        if known is not None or apex in self.broken:
            self.workers.zone_put(apex, None if known is None else known.source.zone)
        else:
            self.workers.zone_gone(apex)

    def _is_free(self, apex: bytes) -> bool:
        """Whether nobody but a file's zone answers for the apex."""
        if apex in self.names.front.routes and apex not in self.zones and apex not in self.broken:
            log.warning("zone file not served: its names are answered by other settings", zone=wire.text(apex))
            return False
        return True
