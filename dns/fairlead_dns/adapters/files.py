"""Files that are read again when they change: certificates, secrets. A broken one leaves what ran."""

import asyncio
import os
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from fairlead_daemon.errors import BadSettings
from fairlead_daemon.logs import Log
from fairlead_dns.adapters.regular import READ_S, Aside, read_regular

log = Log("dns")
LOOK_S = 1.0
ALPN = ("h2", "http/1.1")  # of HTTPS


State = tuple[tuple[int, int, int], ...]


@dataclass(slots=True, eq=False)
class Followed:
    """Files that count together: read aside, for they may hang, then taken where nothing else runs. `take` is given
    their contents; it raises ValueError or OSError and changes nothing when they are not good.
    """

    what: str
    """Names the setting and the files in errors."""
    files: tuple[Path, ...]
    take: Callable[[tuple[bytes, ...]], None]
    _seen: State | None = None
    _aside: Aside = field(default_factory=Aside)

    def first(self) -> None:
        """Raises BadSettings."""
        self._seen = self._state()
        self.load()

    def load(self) -> None:
        """Raises BadSettings."""
        try:
            self.take(self._read())
        except (OSError, ValueError) as error:  # ssl's own errors are of the first
            raise BadSettings(f"{self.what}: {error}") from error

    async def look(self, within_s: float = READ_S) -> None:
        """Takes the files if they have changed. Never raises for what is wrong with them."""
        try:
            state = await self._aside.run(self._state, within_s)
            if state is None or state == self._seen:
                return  # gone, or about to be replaced: what was read stays
            self._seen = state
            self.take(await self._aside.run(self._read, within_s))
        except TimeoutError:
            self._seen = None
            log.warning("files take too long to read, the old ones stay", files=",".join(map(str, self.files)))
        except (OSError, ValueError) as error:
            log.warning("changed files not taken, the old ones stay", why=f"{self.what}: {error}")
        else:
            log.info("changed files taken", files=",".join(map(str, self.files)))

    def _read(self) -> tuple[bytes, ...]:
        return tuple(read_regular(file) for file in self.files)

    def _state(self) -> State | None:
        try:
            stats = [file.stat() for file in self.files]
        except OSError:
            return None
        return tuple((s.st_ino, s.st_size, s.st_mtime_ns) for s in stats)


async def follow(followed: list[Followed]) -> None:
    """For ever."""
    while True:
        await asyncio.sleep(LOOK_S)
        await asyncio.gather(*(each.look() for each in followed))


def tls_context(alpn: tuple[str, ...]) -> ssl.SSLContext:
    """A server's context that has no certificate yet."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(list(alpn))
    return context


def certificate(cert: Path, key: Path, contexts: tuple[ssl.SSLContext, ...]) -> Followed:
    """New connections of `contexts` get the certificate that stands in the files."""

    def take(read: tuple[bytes, ...]) -> None:
        with _in_memory(read[0]) as chain, _in_memory(read[1]) as secret:
            for context in (tls_context(()), *contexts):  # the first is a trial: a bad pair must not reach the others
                context.load_cert_chain(chain, secret, password=lambda: b"")  # or it asks at a terminal

    return Followed(f"certificate: cannot use {cert} with {key}", (cert, key), take)


@contextmanager
def _in_memory(data: bytes) -> Iterator[str]:
    """A path under which OpenSSL, which reads files only, finds what has been read."""
    handle = os.memfd_create("fairlead", os.MFD_CLOEXEC)
    try:
        with os.fdopen(handle, "wb", closefd=False) as stream:
            stream.write(data)
        yield f"/proc/self/fd/{handle}"
    finally:
        os.close(handle)


def text_file(key: str, file: Path, take: Callable[[str], None]) -> Followed:
    """`take` raises ValueError for a text it cannot use."""
    return Followed(f"{key}: {file}", (file,), lambda read: take(read[0].decode("utf-8")))
