"""Certificates from files to HAProxy, while it runs. Copies of the good ones are what HAProxy starts with."""

import asyncio
import ssl
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from fairlead_daemon.errors import Refused, Unavailable
from fairlead_daemon.files import replace_file
from fairlead_daemon.logs import Log
from fairlead_lb import metrics
from fairlead_lb.adapters import socket_cli
from fairlead_lb.decisions import certificates as decisions
from fairlead_lb.decisions.certificates import Certificate, Served

log = Log("lb.certificates")
LOOK_S = 1.0
AUDIT_S = 5.0
Seen = Mapping[Path, tuple[int, int, int]]
"""File -> inode, size, time of change."""


@dataclass(slots=True)
class Certificates:
    """`source`: a PEM file, or a folder of them (`*.pem`). `folder`: where the copies and their list lie."""

    source: Path
    folder: Path
    served: dict[str, Served] = field(default_factory=dict)
    """By name, as HAProxy tells it."""
    problems: dict[str, str] = field(default_factory=dict)
    """File -> why it is not served; its last good content is."""
    _good: dict[str, Certificate] = field(default_factory=dict)
    _seen: Seen | None = None
    _applied: dict[str, Certificate] | None = None
    """What HAProxy was last read back to have; None: nothing yet."""

    @property
    def listing(self) -> Path:
        return self.folder.with_suffix(".list")

    @property
    def any(self) -> bool:
        return bool(self._good)

    def load(self) -> bool:
        """Looks at the files; copies and list are right afterwards. Whether something has changed."""
        now = _stamps(self.source)
        if now == self._seen:
            return False
        self._seen = now
        found = self._read(list(now)) or self._last_good()
        if found == self._good:
            return False
        self._keep(found)
        return True

    async def follow(self, socket: Callable[[], Path | str | None], changed: Callable[[], None]) -> None:
        """For ever. `socket`: the serving worker's, None while there is none; `changed` after files have."""
        audited = 0.0
        loop = asyncio.get_running_loop()
        while True:
            if self.load() or not audited:
                changed()
                audited = 0.0
            place = socket()
            if place is not None and self.any and loop.time() - audited > AUDIT_S:
                try:
                    await self._apply(place)
                    audited = loop.time()
                except Unavailable as error:
                    log.debug("haproxy is not reached", reason=str(error))
            await asyncio.sleep(LOOK_S)

    def _read(self, files: list[Path]) -> dict[str, Certificate]:
        """The good ones; a bad one's last good content stays, also that of an earlier run."""
        found: dict[str, Certificate] = {}
        problems: dict[str, str] = {}
        for path in files:
            try:
                found[path.name] = _checked(path)
            except Refused as error:
                last = self._good.get(path.name) or _copy(self.folder / path.name)
                stays = "nothing is served from it" if last is None else "its last good content is served on"
                problems[str(path)] = f"{error}; {stays}"
                if last is not None:
                    found[path.name] = last
        if problems != self.problems:
            for file, why in problems.items():
                log.warning("certificate is not taken", file=file, reason=why)
        self.problems = problems
        metrics.BAD_CERTIFICATES.set(len(problems))
        return found

    def _last_good(self) -> dict[str, Certificate]:
        """All files gone is a mistake, or a moment: what was served last is served on, also after a restart."""
        copies = {path.name: _copy(path) for path in self.folder.glob("*.pem")}
        found = {name: one for name, one in copies.items() if one is not None}
        if found and not self.problems:
            self.problems = {str(self.source): "no certificate there; those it had are served on"}
            log.warning("no certificate files; those there were are served on", source=str(self.source))
        return found

    def _keep(self, found: dict[str, Certificate]) -> None:
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for name, certificate in found.items():
            if self._good.get(name) != certificate:
                replace_file(self.folder / name, certificate.pem.encode(), mode=0o600)
        replace_file(self.listing, decisions.crt_list(str(self.folder), list(found)).encode(), mode=0o600)
        for path in self.folder.glob("*"):
            if path.name not in found:
                path.unlink(missing_ok=True)
        self._good = found

    async def _apply(self, socket: Path | str) -> None:
        """What differs, by the socket; then what HAProxy says it has."""
        before = await self._ask_served(socket)
        folder = str(self.folder)
        prints = {f"{folder}/{name}": one.fingerprint for name, one in before.items()}
        rows = list(decisions.changes(prints, self._good, folder, str(self.listing)))
        for row in rows:
            await say(socket, row)
        now = await self._ask_served(socket) if rows else before
        if rows and self._applied == self._good:
            metrics.REPAIRS.labels("certificates").inc(len(rows))
            log.warning("haproxy's certificates were changed by someone else", names=" ".join(sorted(now))[:300])
        elif rows:
            log.info("certificates changed", names=" ".join(sorted(now))[:300])
        self._applied = dict(self._good)
        self.served = now
        metrics.count_certificates({name: one.not_after_s for name, one in now.items()})

    async def _ask_served(self, socket: Path | str) -> dict[str, Served]:
        paths = decisions.listed(await socket_cli.ask(socket, "show ssl cert"), str(self.folder))
        return {
            Path(path).name: decisions.served(await socket_cli.ask(socket, f"show ssl cert {path}")) for path in paths
        }


async def say(socket: Path | str, row: tuple[str, ...]) -> None:
    """Commands that belong together; after one that HAProxy does not take the rest is not said."""
    for command in row:
        said = await socket_cli.ask(socket, command)
        if why := decisions.objection(said):
            log.warning("haproxy does not take a certificate", command=command.partition("\n")[0], reason=why)
            return


def _stamps(source: Path) -> Seen:
    """Of the files that are there. Tools that rotate replace a file, so its inode says most."""
    files = sorted(source.glob("*.pem")) if source.is_dir() else [source]
    found = {}
    for path in files:
        try:
            told = path.stat()
        except OSError:
            continue  # it is just being replaced, or gone
        found[path] = (told.st_ino, told.st_size, told.st_mtime_ns)
    return found


def _checked(path: Path) -> Certificate:
    """Raises Refused. A pipe would hold up the whole balancer."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise Refused(f"{path.name}: not a file")
        found = decisions.parse(path.name, path.read_text(encoding="ascii"))
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(path, password=_no_password)
    except (OSError, UnicodeDecodeError, ssl.SSLError) as error:
        raise Refused(f"{path.name}: {error}") from error
    return found


def _no_password() -> str:
    """OpenSSL would ask the terminal."""
    raise Refused("the private key has a password")


def _copy(path: Path) -> Certificate | None:
    try:
        return _checked(path)
    except Refused:
        return None
