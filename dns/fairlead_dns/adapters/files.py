"""Files that are read again when they change: certificates, secrets. A broken one leaves what ran."""

import asyncio
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from fairlead_daemon.errors import BadSettings
from fairlead_daemon.logs import Log

log = Log("dns")
LOOK_S = 1.0


@dataclass(slots=True, eq=False)
class Followed:
    """Files that count together. `load` raises BadSettings and changes nothing when they are not good."""

    files: tuple[Path, ...]
    load: Callable[[], None]
    _seen: tuple[tuple[int, int, int], ...] | None = None

    def first(self) -> None:
        """Raises BadSettings."""
        self._seen = self._state()
        self.load()

    def look(self) -> None:
        state = self._state()
        if state is None or state == self._seen:
            return  # gone, or about to be replaced: what was read stays
        self._seen = state
        try:
            self.load()
        except BadSettings as error:
            log.warning("changed files not taken, the old ones stay", why=str(error))
        else:
            log.info("changed files taken", files=",".join(map(str, self.files)))

    def _state(self) -> tuple[tuple[int, int, int], ...] | None:
        try:
            stats = [file.stat() for file in self.files]
        except OSError:
            return None
        return tuple((s.st_ino, s.st_size, s.st_mtime_ns) for s in stats)


async def follow(followed: list[Followed]) -> None:
    """For ever."""
    while True:
        await asyncio.sleep(LOOK_S)
        for each in followed:
            each.look()


def tls_context(alpn: tuple[str, ...]) -> ssl.SSLContext:
    """A server's context that has no certificate yet."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(list(alpn))
    return context


def certificate(cert: Path, key: Path, contexts: tuple[ssl.SSLContext, ...]) -> Followed:
    """New connections of `contexts` get the certificate that stands in the files."""

    def load() -> None:
        try:
            for context in (tls_context(()), *contexts):  # the first is a trial: a bad pair must not reach the others
                context.load_cert_chain(cert, key)
        except (OSError, ssl.SSLError) as error:
            raise BadSettings(f"certificate: cannot use {cert} with {key}: {error}") from error

    return Followed((cert, key), load)


def text_file(key: str, file: Path, take: Callable[[str], None]) -> Followed:
    """`take` raises ValueError for a text it cannot use."""

    def load() -> None:
        try:
            take(file.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise BadSettings(f"{key}: {file}: {error}") from error

    return Followed((file,), load)
