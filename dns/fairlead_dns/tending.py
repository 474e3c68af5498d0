"""What is looked after beside the zone: the announced TTL, the files of prepared queries, what a person must be told."""

import asyncio
import os
from collections.abc import Mapping
from pathlib import Path

from fairlead_daemon.errors import BadSettings, FairleadError
from fairlead_daemon.logs import Log
from fairlead_discovery import paths
from fairlead_discovery.records import NameServer, encode
from fairlead_discovery.registry import Announcement, Registry
from fairlead_dns.adapters.regular import READ_S, Aside
from fairlead_dns.names import Names
from fairlead_dns.naming_settings import NamingSettings, query_files, read_queries

log = Log("dns")
WITHDRAW_S = 2.0
LOOK_S = 1.0
TOLD = 20  # names a turn: a person who has read so many looks at the metric


async def announce(registry: Registry, server: NameServer, names: Names) -> None:
    """Kills wait for our answers to be forgotten for as long as this stands. `server` has the least of its TTLs.

    A service's larger TTL is given out only once it is announced; it is announced until the last answer that had it is
    forgotten.
    """
    names.allow_ttl(server.largest_ttl_s)
    path = paths.below(paths.NAME_SERVERS, f"{server.id}.{os.getpid()}")  # two processes may share an id
    announcement = await registry.announce(path, encode(server))
    try:
        await _keep_announced(announcement, server, names)
    finally:
        try:
            async with asyncio.timeout(WITHDRAW_S):
                await announcement.end()
        except (TimeoutError, FairleadError) as error:
            log.warning("not ended in time", what="announcement", why=str(error))


async def _keep_announced(announcement: Announcement, server: NameServer, names: Names) -> None:
    least_s = said_s = server.largest_ttl_s
    lower_since_s = 0.0
    while True:
        await asyncio.sleep(LOOK_S)
        wanted_s = max(least_s, names.largest_service_ttl_s)
        now_s = asyncio.get_running_loop().time()
        if wanted_s >= said_s:
            lower_since_s = 0.0
        elif not lower_since_s:
            lower_since_s = now_s
            names.allow_ttl(wanted_s)
        if wanted_s > said_s or (lower_since_s and now_s - lower_since_s > said_s):
            record = NameServer(id=server.id, address=server.address, largest_ttl_s=wanted_s)
            try:
                await announcement.update(encode(record))
            except FairleadError as error:  # out of sight: what stands there stands, and is tried again
                log.warning("TTL not announced", ttl_s=wanted_s, why=str(error))
                continue
            said_s, lower_since_s = wanted_s, 0.0
        names.allow_ttl(min(wanted_s, said_s))


async def tell(names: Names) -> None:
    """Logs what has come to share a name, or was too long for a label. The metrics say how many there are."""
    told: set[str] = set()
    while True:
        await asyncio.sleep(LOOK_S)
        collisions, cut = names.sources.claims.collisions(), names.sources.claims.shortened()
        told &= {*collisions, *cut}
        for name in [n for n in collisions if n not in told][:TOLD]:
            log.warning("a name is shared, each has one of its own beside it", name=name, services=collisions[name])
            told.add(name)
        for who in [w for w in cut if w not in told][:TOLD]:
            log.warning("no names of DNS as they are, cut", who=who, names=cut[who])
            told.add(who)


async def follow_queries(settings: NamingSettings, names: Names) -> None:
    """Reads the files again when one has changed; what cannot be served is logged, and what was served stays."""
    aside = Aside()
    seen = _stamps(settings)
    while True:
        await asyncio.sleep(LOOK_S)
        try:
            now = await aside.run(lambda: _stamps(settings), READ_S)
            if now == seen:
                continue
            seen = now
            names.take_queries(await aside.run(lambda: read_queries(settings), READ_S))
            log.info("prepared queries read", queries=len(names.queries.known))
        except BadSettings as error:
            log.warning("prepared queries refused, the old ones stay", why=str(error))
        except TimeoutError:
            seen = {}
            log.warning("prepared queries take too long to read, the old ones stay")


def _stamps(settings: NamingSettings) -> Mapping[Path, tuple[int, int]]:
    found = {}
    for dialect in settings.dialects:
        for file in query_files(dialect):
            try:
                stat = file.stat()
            except OSError:
                continue
            found[file] = stat.st_mtime_ns, stat.st_size
    return found
