"""The `local` registry's file: SQLite in WAL mode, each batch one transaction, on disk (synchronous=FULL) when it returns.

One process opens it, ever: a lock file beside it keeps a second one out, and goes with the process.
"""

import asyncio
import fcntl
import os
import sqlite3
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import perf_counter

from fairlead_daemon.errors import BadSettings, Unavailable
from fairlead_daemon.logs import Log
from fairlead_discovery import metrics, paths
from fairlead_discovery.decisions.nodes import Effects, Entry, Nodes
from fairlead_discovery.decisions.ops import Set
from fairlead_discovery.records import SCHEMA as REGISTRY_SCHEMA
from fairlead_discovery.records import Cluster, encode

log = Log("registry")
FORMAT = 1
SCHEMA = """
CREATE TABLE IF NOT EXISTS nodes (path TEXT PRIMARY KEY, data BLOB NOT NULL, version INTEGER NOT NULL, owner TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS counters (folder TEXT PRIMARY KEY, next INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS sessions (id TEXT PRIMARY KEY) WITHOUT ROWID;
"""


class Database:
    """Raises BadSettings when the file is another's, held by another process, or damaged."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = _lock(path)
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="registry-db")
        try:
            self._connection, self._inode = self._open()
            self.nodes = self._load()
        except sqlite3.Error as error:
            os.close(self._lock)
            raise BadSettings(
                f"data_dir: {path} cannot be read ({error}); move it away to begin an empty registry: "
                "readers then hold the last good state until `fairlead registry confirm`"
            ) from error

    async def store(self, effects: Effects) -> None:
        """Returns when it is on disk. Raises Unavailable when that is impossible; then nothing of it was stored."""
        start_s = perf_counter()
        try:
            await asyncio.get_running_loop().run_in_executor(self._thread, self._write, effects)
        except (sqlite3.Error, OSError) as error:
            raise Unavailable(f"{self._path}: {error}") from error
        metrics.store_seconds.observe(perf_counter() - start_s)
        metrics.store_changes.inc(len(effects.nodes))

    def reload(self) -> Nodes:
        """What is on disk, after a failed store."""
        return self._load()

    def close(self) -> None:
        self._thread.shutdown()
        self._connection.close()
        os.close(self._lock)

    def _open(self) -> tuple[sqlite3.Connection, int]:
        existed = self._path.exists()
        connection = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False)
        self._path.chmod(0o600)
        if existed:
            verdict = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
            found = connection.execute("PRAGMA user_version").fetchone()[0]
            if verdict != "ok":
                raise sqlite3.DatabaseError(str(verdict))
            if found not in {0, FORMAT}:
                raise sqlite3.DatabaseError(f"format {found}, this program knows {FORMAT}")
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.executescript(SCHEMA)
        connection.execute(f"PRAGMA user_version={FORMAT}")
        return connection, self._path.stat().st_ino

    def _load(self) -> Nodes:
        """A file without a cluster record gets one: it is a new cluster."""
        nodes = Nodes()
        rows = self._connection.execute
        stored = Effects(
            nodes={p: Entry(d, v, o) for p, d, v, o in rows("SELECT path, data, version, owner FROM nodes")},
            counters=dict(rows("SELECT folder, next FROM counters")),
            sessions={i: True for (i,) in rows("SELECT id FROM sessions")},
        )
        nodes.load(stored)
        if nodes.get(paths.CLUSTER) is None:
            cluster = Cluster(uuid=str(uuid.uuid4()), schema=REGISTRY_SCHEMA, epoch_base=int(time.time()))
            ops = (Set(path=paths.CLUSTER, data=encode(cluster)), Set(path=paths.REVISION))
            self._write(nodes.apply(ops, session="").effects)
            log.info("new registry", cluster=cluster.uuid, file=self._path)
        self.nodes = nodes
        return nodes

    def _write(self, effects: Effects) -> None:
        if not self._in_place():
            log.error("the registry's file was taken away: writing it anew", file=self._path)
            self._connection.close()
            self._connection, self._inode = self._open()
            effects = self.nodes.everything()  # the state holds the effects already
        run = self._connection
        run.execute("BEGIN IMMEDIATE")
        try:
            self._write_rows(effects)
            run.execute("COMMIT")
        except BaseException:
            if run.in_transaction:
                run.execute("ROLLBACK")
            raise

    def _write_rows(self, effects: Effects) -> None:
        many = self._connection.executemany
        kept = [(p, e.data, e.version, e.owner) for p, e in effects.nodes.items() if e is not None]
        many("INSERT OR REPLACE INTO nodes VALUES (?, ?, ?, ?)", kept)
        many("DELETE FROM nodes WHERE path = ?", [(p,) for p, e in effects.nodes.items() if e is None])
        many("INSERT OR REPLACE INTO counters VALUES (?, ?)", list(effects.counters.items()))
        many("INSERT OR IGNORE INTO sessions VALUES (?)", [(s,) for s, opened in effects.sessions.items() if opened])
        many("DELETE FROM sessions WHERE id = ?", [(s,) for s, opened in effects.sessions.items() if not opened])

    def _in_place(self) -> bool:
        try:
            return self._path.stat().st_ino == self._inode
        except OSError:
            return False


def _lock(path: Path) -> int:
    lock_path = path.with_name(f"{path.name}.lock")
    try:
        _make_folder(path.parent)
        handle = os.open(lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise BadSettings(f"data_dir: {error.filename or lock_path}: {error.strerror}") from error
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(handle)
        raise BadSettings(f"data_dir: another `fairlead registry` holds {path}") from error
    return handle


def _make_folder(folder: Path) -> None:
    """Raises OSError. A folder whose name is not on disk goes with all that is synced in it."""
    made = [part for part in (folder, *folder.parents) if not part.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for part in reversed(made):
        handle = os.open(part.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
