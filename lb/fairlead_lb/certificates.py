"""Certificates from files, and from the registry, to HAProxy, while it runs. Copies of the good ones are what HAProxy starts with."""

import asyncio
import ssl
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from fairlead_daemon.errors import Refused, Unavailable
from fairlead_daemon.files import replace_file
from fairlead_daemon.logs import Log
from fairlead_lb import metrics
from fairlead_lb.adapters import socket_cli
from fairlead_lb.decisions import certificates as decisions
from fairlead_lb.decisions.certificates import Certificate, Served

if TYPE_CHECKING:
    from fairlead_lb.registry_certificates import RegistryCertificates

log = Log("lb.certificates")
LOOK_S = 1.0
AUDIT_S = 5.0
Seen = Mapping[Path, tuple[int, int, int]]
"""File -> inode, size, time of change."""


@dataclass(slots=True)
class Certificates:
    """`source`: a PEM file, or a folder of them (`*.pem`), None for none. `folder`: where the copies and their list lie.
    `beside`: those of the registry; a file of the same name counts before.
    """

    source: Path | None
    folder: Path
    beside: "RegistryCertificates | None" = None
    served: dict[str, Served] = field(default_factory=dict)
    """By name, as HAProxy tells it."""
    problems: dict[str, str] = field(default_factory=dict)
    """File -> why it is not served; its last good content is. `told` has those of the registry too."""
    _good: dict[str, Certificate] = field(default_factory=dict)
    _seen: Seen | None = None
    _own: frozenset[str] = frozenset()
    """Names that come from files."""
    _turned_for: frozenset[str] = frozenset()
    """What HAProxy was last reloaded for, because it would not give it up."""
    _applied: dict[str, Certificate] | None = None
    """What HAProxy was last read back to have; None: nothing yet."""

    @property
    def listing(self) -> Path:
        """Another one, of the same content, makes HAProxy reload."""
        return self._listings[1 if self._turned.exists() else 0]

    @property
    def _listings(self) -> tuple[Path, Path]:
        return self.folder.with_suffix(".list"), self.folder.with_suffix(".2.list")

    @property
    def _turned(self) -> Path:
        return self.folder.with_suffix(".turned")

    @property
    def any(self) -> bool:
        return bool(self._good)

    def load(self) -> bool:
        """Looks at the files; copies and list are right afterwards. Whether something has changed."""
        metrics.BAD_CERTIFICATES.set(len(self.told()))
        files, others = _stamps(self.source), _stamps(self.beside.folder if self.beside is not None else None)
        now = {**files, **others}
        if now == self._seen:
            return False
        self._own = self._own or self._own_before()
        self._seen = now
        own = self._read(list(files)) or self._last_good()
        found = {**_whole(others), **own}
        metrics.BAD_CERTIFICATES.set(len(self.told()))
        if found == self._good and frozenset(own) == self._own:
            return False
        self._own = frozenset(own)
        self._keep(found)
        return True

    def told(self) -> Mapping[str, str]:
        """Place -> why what is there is not served."""
        return {**self.problems, **(self.beside.problems if self.beside is not None else {})}

    def origin(self, name: str) -> str:
        return "file" if name in self._own else "registry"

    async def follow(
        self, socket: Callable[[], Path | str | None], changed: Callable[[], None], without: Callable[[], bool]
    ) -> None:
        """For ever. `socket`: the serving worker's, None while there is none; `changed` after files have; `without`:
        whether a worker serves that has no certificates.
        """
        audited = 0.0
        loop = asyncio.get_running_loop()
        while True:
            if self.load() or not audited:
                changed()
                audited = 0.0
            place = socket()
            if place is not None and self.any and loop.time() - audited > AUDIT_S:
                try:
                    if await self._apply(place):
                        changed()
                    audited = loop.time()
                except Unavailable as error:
                    log.debug("haproxy is not reached", reason=str(error))
            elif not self.any and without():
                self._forget()
            await asyncio.sleep(LOOK_S)

    def _read(self, files: list[Path]) -> dict[str, Certificate]:
        """The good ones; a bad one's last good content stays, also that of an earlier run."""
        found: dict[str, Certificate] = {}
        problems: dict[str, str] = {}
        for path in files:
            try:
                found[path.name] = _checked(path)
            except Refused as error:
                last = self._last(path.name)
                stays = "nothing is served from it" if last is None else "its last good content is served on"
                problems[str(path)] = f"{error}; {stays}"
                if last is not None:
                    found[path.name] = last
        if problems != self.problems:
            for file, why in problems.items():
                log.warning("certificate is not taken", file=file, reason=why)
        self.problems = problems
        return found

    def _last(self, name: str) -> Certificate | None:
        """A file's last good content."""
        if name not in self._own:
            return None
        return self._good.get(name) or _copy(self.folder / name)

    def _last_good(self) -> dict[str, Certificate]:
        """All files gone is a mistake, or a moment: what was served last is served on, also after a restart."""
        if self.source is None:
            return {}
        copies = {path.name: _copy(path) for path in self.folder.glob("*.pem") if path.name in self._own}
        found = {name: one for name, one in copies.items() if one is not None}
        if found and not self.problems:
            self.problems = {str(self.source): "no certificate there; those it had are served on"}
            log.warning("no certificate files; those there were are served on", source=str(self.source))
        return found

    def _own_before(self) -> frozenset[str]:
        """Of an earlier run. One that knew no other certificates than files' did not say."""
        try:
            return frozenset(self._names.read_text(encoding="ascii").split())
        except OSError:
            return frozenset(path.name for path in self.folder.glob("*.pem"))

    @property
    def _names(self) -> Path:
        return self.folder.with_suffix(".files")

    def _forget(self) -> None:
        """HAProxy has come up without the last of them."""
        self.served = {}
        metrics.count_certificates({})
        for path in (*self.folder.glob("*"), *self._listings):
            path.unlink(missing_ok=True)

    def _keep(self, found: dict[str, Certificate]) -> None:
        if (
            not found
        ):  # with an empty list, or a file that is gone, HAProxy would not come up before it is told to do without
            self._good = found
            return
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for name, certificate in found.items():
            if self._good.get(name) != certificate:
                replace_file(self.folder / name, certificate.pem.encode(), mode=0o600)
        replace_file(self._names, "\n".join(sorted(self._own)).encode(), mode=0o600)
        for listing in self._listings:
            replace_file(listing, decisions.crt_list(str(self.folder), list(found)).encode(), mode=0o600)
        for path in self.folder.glob("*"):
            if path.name not in found:
                path.unlink(missing_ok=True)
        self._good = found

    async def _apply(self, socket: Path | str) -> bool:
        """What differs, by the socket; then what HAProxy says it has. Whether that takes a reload: the one it began with as
        its default it never gives up.
        """
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
        kept = frozenset(now.keys() - self._good.keys())
        self._applied = dict(self._good) if not kept else None
        self.served = now
        metrics.count_certificates({name: one.not_after_s for name, one in now.items()})
        return self._turn(kept)

    def _turn(self, kept: frozenset[str]) -> bool:
        """Once for what HAProxy keeps, however long the reload takes."""
        new = bool(kept - self._turned_for)
        self._turned_for = kept
        if new and self._turned.exists():
            self._turned.unlink()
        elif new:
            replace_file(self._turned, b"", mode=0o600)
        return new

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


def _whole(files: Seen) -> dict[str, Certificate]:
    """Of files that we wrote ourselves, looked into before."""
    copies = {path.name: _copy(path) for path in files}
    return {name: one for name, one in copies.items() if one is not None}


def _stamps(source: Path | None) -> Seen:
    """Of the files that are there. Tools that rotate replace a file, so its inode says most."""
    if source is None:
        return {}
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
