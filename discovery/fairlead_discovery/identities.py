"""One service's identity in a folder, kept fresh: key, certificate, and whom to believe. The key is made here.

key.pem (0600) · cert.pem (leaf and intermediate) · identity.pem (both, as HAProxy takes it, 0600) · bundle.pem
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from fairlead_daemon.client import call, make_session
from fairlead_daemon.errors import FairleadError, Refused, Unavailable
from fairlead_daemon.files import replace_file
from fairlead_daemon.logs import Log
from fairlead_discovery.adapters import x509
from fairlead_discovery.decisions import identity
from fairlead_discovery.records import Record

log = Log("identity")
RETRY_S = 5.0
LOOK_S = 2.0
UNTOLD_S = 300.0


class Trust(Record, frozen=True, kw_only=True):
    """What the registry holds at `paths.TRUST`. `bundle` is PEM; `authority` its URL."""

    trust_domain: str
    bundle: str
    authority: str = ""


class Answer(msgspec.Struct, frozen=True):
    """Of `POST /v1/sign`."""

    spiffe_id: str
    chain: str
    bundle: str
    not_after_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Asking:
    """Of whom an identity is asked for, and which."""

    authority: str
    service: str
    token_file: Path | None = None
    dns: tuple[str, ...] = ()
    life_s: float = 0.0


@dataclass(slots=True)
class Identity:
    """Files of one identity. A half-written one (we died between two files) counts as none."""

    folder: Path

    @property
    def file(self) -> Path:
        """Key and chain in one, whole or not at all."""
        return self.folder / "identity.pem"

    @property
    def bundle_file(self) -> Path:
        return self.folder / "bundle.pem"

    def seen(self) -> x509.Seen | None:
        """What the certificate there says; None when there is none that can be used."""
        try:
            text = self.file.read_text(encoding="ascii")
            return x509.seen(text) if x509.fits(text, text) and self.bundle_file.exists() else None
        except (OSError, UnicodeDecodeError, Refused):
            return None

    def due(self, service: str, bundle: str, now_s: float) -> bool:
        """Whether a new one is to be asked for: none there, another's, half of its life over, or no root signed it."""
        there = self.seen()
        if there is None or there.common_name != identity.common_name(service):
            return True
        if now_s >= identity.renew_at_s(there.not_before_s, there.not_after_s) or _lacks_names(there, service, now_s):
            return True
        return bool(bundle) and not x509.verified(_chain(self.file.read_text()), bundle)

    def keep(self, key: str, answer: Answer) -> None:
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.folder.chmod(0o700)
        self.keep_bundle(answer.bundle)
        replace_file(self.folder / "key.pem", key.encode(), mode=0o600)
        replace_file(self.folder / "cert.pem", answer.chain.encode(), mode=0o600)
        replace_file(self.file, (answer.chain + key).encode(), mode=0o600)

    def keep_bundle(self, bundle: str) -> bool:
        """Whether it is another than before."""
        text = x509.joined(x509.split(bundle)).encode()
        if self.bundle_file.exists() and self.bundle_file.read_bytes() == text:
            return False
        replace_file(self.bundle_file, text, mode=0o600)
        return True


def fresh_request() -> tuple[str, str]:
    """A key and its signing request, both PEM. What the request says of names is nobody's concern."""
    key = x509.new_key()
    return key, x509.request(key, "asked for by name", "spiffe://asked.for/by-name")


def fitting(key: str, answer: Answer, *, of: str) -> Answer:
    """Raises Unavailable when it is not for our key, or not by those who shall be believed."""
    try:
        if x509.fits(answer.chain, key) and x509.verified(answer.chain, answer.bundle):
            return answer
    except Refused as error:
        raise Unavailable(f"{of}: {error}") from error
    raise Unavailable(f"{of}: its certificate does not fit")


async def ask(asking: Asking) -> tuple[str, Answer]:
    """A fresh key, and the authority's answer. Raises Refused, Unavailable: also for an answer that is not ours."""
    identity.service(asking.service)
    key, csr = fresh_request()
    return key, fitting(key, await signed(asking, csr), of=asking.authority)


async def signed(asking: Asking, csr: str) -> Answer:
    """The authority's answer to a request whose key is somebody else's. Raises Refused, Unavailable."""
    body: dict[str, Any] = {"service": asking.service, "csr": csr, "dns": asking.dns, "life_s": asking.life_s}
    async with make_session(asking.token_file) as session:
        found = await call(session, "POST", f"{asking.authority}/v1/sign", body=body, wait_s=30)
    try:
        return msgspec.convert(found, Answer)
    except msgspec.ValidationError as error:
        raise Unavailable(f"{asking.authority}: {error}") from error


async def keep_fresh(place: Identity, asking: Asking, bundle: Callable[[], str], changed: Callable[[], None]) -> None:
    """For ever. `bundle`: whom the registry says to believe, "" while unknown; `changed` after files have."""
    failed = False
    while True:
        told = bundle()
        if told and place.file.exists() and place.keep_bundle(told):
            changed()
        wait_s = LOOK_S
        if place.due(asking.service, told, time.time()):
            try:
                place.keep(*await ask(asking))
                log.info("identity is fresh", service=asking.service)
                failed = False
                changed()
            except FairleadError as error:
                if not failed:
                    log.warning("no new identity", service=asking.service, reason=str(error))
                failed, wait_s = True, RETRY_S
        await asyncio.sleep(wait_s)


def _lacks_names(there: x509.Seen, service: str, now_s: float) -> bool:
    """Whether it is of an authority that did not give all names yet. A signer that never does is not asked all the time."""
    if now_s < there.not_before_s + identity.CLOCK_SKEW_S + UNTOLD_S:
        return False
    domain = there.uris[0].removeprefix("spiffe://").partition("/")[0] if there.uris else ""
    return not set(identity.names(domain, service)) <= set(there.dns)


def _chain(text: str) -> str:
    return x509.joined(x509.split(text))
