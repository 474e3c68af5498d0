"""Certificates from the registry to files of our own, of which `certificates.py` serves. The good ones outlive everything."""

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from fairlead_daemon.errors import BadSettings, Refused
from fairlead_daemon.files import replace_file
from fairlead_daemon.logs import Log
from fairlead_discovery import paths
from fairlead_discovery.records import decode
from fairlead_discovery.registry import Registry
from fairlead_lb.adapters import vault
from fairlead_lb.decisions import certificates as decisions
from fairlead_lb.decisions.certificates import Sealed

log = Log("lb.certificates")
LOOK_S = 1.0


@dataclass(slots=True)
class RegistryCertificates:
    """`folder`: our files, `<name>.pem`, of mode 0600. `key_file`: see adapters/vault.py; looked at every second."""

    folder: Path
    key_file: Path
    problems: dict[str, str] = field(default_factory=dict)
    """`registry: <name>` -> why what stands there is not served; its last good content is."""
    _records: Mapping[str, bytes] | None = None
    _stamp: tuple[int, ...] = ()

    def check(self) -> None:
        """Raises BadSettings without a key file, unless there are certificates of an earlier run to serve on."""
        try:
            vault.read_keys(self.key_file)
        except BadSettings as error:
            if not any(self.folder.glob("*.pem")):
                raise
            self._say({"registry": f"{error}; what it had is served on"})

    async def follow(self, registry: Registry) -> None:
        """For ever."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._look())
            async for nodes in registry.follow(paths.CERTIFICATES):
                self._records = {name: node.data for name, node in nodes.items()}
                self.take(self._records, now_s=time.time())

    async def _look(self) -> None:
        """Keys are turned while we run."""
        while True:
            stamp = _stamp(self.key_file)
            if stamp != self._stamp and self._records is not None:
                self.take(self._records, now_s=time.time())
            self._stamp = stamp
            await asyncio.sleep(LOOK_S)

    def take(self, records: Mapping[str, bytes], *, now_s: float) -> None:
        """Files are as the records say, but for bad ones. One that is gone without a word stays: so does all of a registry
        that has come back empty.
        """
        try:
            keys = vault.read_keys(self.key_file)
        except BadSettings as error:
            self._say({"registry": f"{error}; what it had is served on"})
            return
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        problems = {}
        for name, data in sorted(records.items()):
            try:
                self._take_one(keys, name, data, now_s)
            except Refused as error:
                problems[f"registry: {name[:150]}"] = f"{error}; {self._instead(name)}"
        for file in self.folder.glob("*.pem"):
            if file.stem not in records:
                problems[f"registry: {file.stem}"] = (
                    "gone without having been removed; its last good content is served on"
                )
        self._say(problems)

    def _take_one(self, keys: vault.Keys, name: str, data: bytes, now_s: float) -> None:
        """Raises Refused."""
        if decisions.registry_name(name) != name:
            raise Refused(f"{name[:80]!r}: not a name for a certificate")
        file = self.folder / f"{name}.pem"
        sealed = decode(Sealed, data, place=name)
        if sealed.removed:
            file.unlink(missing_ok=True)
            return
        pem = keys.open(name, sealed)
        vault.looked_into(name, pem, now_s=now_s)
        if not file.exists() or file.read_bytes() != pem.encode():
            replace_file(file, pem.encode(), mode=0o600)
            log.info("certificate from the registry", name=name)

    def _instead(self, name: str) -> str:
        kept = "/" not in name and "\0" not in name and (self.folder / f"{name}.pem").exists()
        return "its last good content is served on" if kept else "nothing is served from it"

    def _say(self, problems: dict[str, str]) -> None:
        for place, why in problems.items():
            if self.problems.get(place) != why:
                log.warning("certificate is not taken", place=place, reason=why)
        self.problems = problems


def _stamp(path: Path) -> tuple[int, ...]:
    try:
        told = path.stat()
    except OSError:
        return ()
    return told.st_ino, told.st_size, told.st_mtime_ns, told.st_mode
