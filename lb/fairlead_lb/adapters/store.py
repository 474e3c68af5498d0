"""The balancer's folder: configuration, maps, the picture they come from, who HAProxy is.

haproxy.cfg · candidate.cfg · maps/*.map · picture.json · journal · good.json · good_policies.json · counters.json · process.json · haproxy.log · run/ (sockets, 0700)
"""

import os
from collections.abc import Iterable
from pathlib import Path

import msgspec

from fairlead_daemon.errors import BadSettings
from fairlead_daemon.processes import Identity
from fairlead_discovery.policies import Resolver, Router
from fairlead_discovery.records import Route
from fairlead_lb.decisions import render
from fairlead_lb.decisions.commands import SetAddress
from fairlead_lb.decisions.counters import Kept
from fairlead_lb.decisions.values import Maps, Picture, Structure

LOG_LIMIT_BYTES = 10 * 1024 * 1024


class Running(msgspec.Struct, frozen=True, kw_only=True):
    """The HAProxy that was started or adopted last."""

    master: Identity
    workers: tuple[Identity, ...] = ()


class _Outline(msgspec.Struct, frozen=True):
    """What is read of a picture when its slots and maps, which are most of it, are of no interest."""

    structure: Structure


class Store:
    """Files are replaced whole; the journal alone is appended to, and lost lines of it cost only knowledge."""

    def __init__(self, folder: Path, sockets: Path) -> None:
        self.folder = folder
        self.sockets = sockets
        self.config = folder / "haproxy.cfg"
        self.candidate = folder / "candidate.cfg"
        self.log = folder / "haproxy.log"
        self.master_socket = sockets / "master.sock"
        self._picture = folder / "picture.json"
        self._journal = folder / "journal"
        self._process = folder / "process.json"
        self._good = folder / "good.json"
        self._counters = folder / "counters.json"
        self._good_policies = folder / "good_policies.json"
        self._kept: dict[str, Route] = {}
        self._kept_policies: dict[str, Router | Resolver] = {}

    def prepare(self, *, enter: bool = False) -> None:
        """`enter`: HAProxy's workers, another account, connect to a socket of their own; each socket has its mode."""
        (self.folder / "maps").mkdir(parents=True, exist_ok=True)
        self.sockets.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.sockets.chmod(0o711 if enter else 0o700)
        for parent in self.sockets.parents if enter else ():
            if not parent.stat().st_mode & 0o001:
                raise BadSettings(f"tls_passthrough: {parent}: HAProxy's workers cannot enter it")

    def write_candidate(self, text: str) -> None:
        _swap_in(self.candidate, text.encode())

    def write_maps(self, maps: Maps) -> None:
        for name, text in render.map_files(maps).items():
            path = self.folder / "maps" / name
            data = text.encode()
            if not path.exists() or path.read_bytes() != data:
                _swap_in(path, data)

    def write_live(self, picture: Picture, text: str) -> None:
        """Maps first: the configuration needs them. The picture last: it says what the others hold."""
        self.write_maps(picture.maps)
        _swap_in(self.config, text.encode())
        _swap_in(self._picture, msgspec.json.encode(picture))
        self._journal.unlink(missing_ok=True)

    def live_text(self) -> str:
        return self.config.read_text(encoding="utf-8") if self.config.exists() else ""

    def picture(self) -> Picture | None:
        """The last one; None when there is none, or one of another version."""
        try:
            return msgspec.json.decode(self._picture.read_bytes(), type=Picture)
        except (OSError, msgspec.DecodeError):
            return None

    def structure(self) -> Structure | None:
        """The picture's alone, in a quarter of the time: HAProxy is down while this is read."""
        try:
            return msgspec.json.decode(self._picture.read_bytes(), type=_Outline).structure
        except (OSError, msgspec.DecodeError):
            return None

    def note(self, placed: Iterable[SetAddress]) -> None:
        """Who went where since the last picture, so that a successor knows the tasks by name."""
        lines = b"".join(msgspec.json.encode((c.backend, c.slot, c.host, c.port, c.task)) + b"\n" for c in placed)
        if lines:
            with self._journal.open("ab") as stream:
                stream.write(lines)

    def noted(self) -> dict[tuple[str, str, str, int], str]:
        """(backend, slot, host, port) -> task, from picture and journal."""
        picture = self.picture()
        found: dict[tuple[str, str, str, int], str] = {}
        for backend, slots in (picture.slots if picture else {}).items():
            found |= {(backend, s, slot.host, slot.port): slot.task for s, slot in slots.items() if slot.task}
        try:
            lines = self._journal.read_bytes().splitlines()
        except OSError:
            lines = []
        for line in lines:
            try:
                backend, name, host, port, task = msgspec.json.decode(line, type=tuple[str, str, str, int, str])
            except msgspec.DecodeError:
                continue  # the last line of a killed predecessor
            found[backend, name, host, port] = task
        return found

    def good(self) -> dict[str, Route]:
        """Routes that HAProxy has taken, by service."""
        try:
            self._kept = msgspec.json.decode(self._good.read_bytes(), type=dict[str, Route])
        except (OSError, msgspec.DecodeError):
            self._kept = {}
        return dict(self._kept)

    def keep_good(self, routes: dict[str, Route]) -> None:
        if routes != self._kept:
            _swap_in(self._good, msgspec.json.encode(routes))
            self._kept = routes

    def good_policies(self) -> dict[str, Router | Resolver]:
        """Routers and resolvers that it has taken, by their nodes' names."""
        try:
            self._kept_policies = msgspec.json.decode(
                self._good_policies.read_bytes(), type=dict[str, Router | Resolver]
            )
        except (OSError, msgspec.DecodeError):
            self._kept_policies = {}
        return dict(self._kept_policies)

    def keep_good_policies(self, policies: dict[str, Router | Resolver]) -> None:
        if policies != self._kept_policies:
            _swap_in(self._good_policies, msgspec.json.encode(policies))
            self._kept_policies = policies

    def counters(self) -> Kept | None:
        try:
            return msgspec.json.decode(self._counters.read_bytes(), type=Kept)
        except (OSError, msgspec.DecodeError):
            return None

    def keep_counters(self, kept: Kept) -> None:
        _swap_in(self._counters, msgspec.json.encode(kept))

    def write_running(self, running: Running) -> None:
        _swap_in(self._process, msgspec.json.encode(running))

    def running(self) -> Running | None:
        try:
            return msgspec.json.decode(self._process.read_bytes(), type=Running)
        except (OSError, msgspec.DecodeError):
            return None

    def forget_running(self) -> None:
        self._process.unlink(missing_ok=True)

    def trim_log(self) -> None:
        """HAProxy appends for as long as it lives; beyond the limit its log begins anew."""
        if self.log.exists() and self.log.stat().st_size > LOG_LIMIT_BYTES:
            os.truncate(self.log, 0)

    def sweep_sockets(self, keep: Iterable[str]) -> None:
        kept = {*keep, str(self.master_socket)}
        for path in self.sockets.glob("w*.sock*"):
            if str(path) not in kept:
                path.unlink(missing_ok=True)


def _swap_in(path: Path, data: bytes) -> None:
    """Whole or not at all, but not flushed to disk: a machine that lost its power has no HAProxy to find either."""
    beside = path.with_name(f".{path.name}.new")
    beside.write_bytes(data)
    beside.chmod(0o600)
    beside.replace(path)
