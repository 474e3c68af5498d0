"""Certificates for TLS towards clients: what HAProxy has, what it shall have, and the commands in between."""

import hashlib
import re
from binascii import Error as BinasciiError
from binascii import a2b_base64
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from email.utils import parsedate_to_datetime

from fairlead_daemon.errors import Refused
from fairlead_discovery.records import Record

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,120}", re.ASCII)
PEM_LIMIT_BYTES = 15_000  # HAProxy drops a command over 16,384 bytes without a word
DEFAULT = "default.pem"
"""Served to who names no host, or one that no certificate has; else the first by name is."""
_BLOCK = re.compile(r"-----BEGIN ([A-Z0-9 ]+)-----\s+([A-Za-z0-9+/=\s]+?)-----END \1-----", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """One file: the certificate, its chain and its key as PEM, without blank lines. `fingerprint`: SHA-1, upper case."""

    name: str
    pem: str
    fingerprint: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """A certificate as HAProxy tells of it. `not_after_s`: Unix time, 0 when it does not say."""

    fingerprint: str
    subject: str = ""
    names: tuple[str, ...] = ()
    not_after_s: float = 0.0
    unused: bool = False
    """No bind and no server shows it."""


class Sealed(Record, frozen=True, kw_only=True):
    """A certificate in the registry, with its key. `removed`: an operator's word that it shall not be served."""

    key: str = ""
    """Id of the key that sealed it."""
    nonce: bytes = b""
    data: bytes = b""
    removed: bool = False


def registry_name(text: str) -> str:
    """The name in the registry, without `.pem`; the file is that with it. Raises Refused for one that is no plain name."""
    name = text.removesuffix(".pem")
    if not NAME.fullmatch(f"{name}.pem") or ".." in name or name.endswith((".", ".pem")):
        raise Refused(f"{text[:80]!r}: not a name for a certificate (letters, digits, `.`, `_`, `-`)")
    return name


def blocks(text: str) -> list[tuple[str, str]]:
    """Kind and PEM of each block, in their order."""
    return [(m[1], m[0]) for m in _BLOCK.finditer(text)]


def parse(name: str, text: str) -> Certificate:
    """Raises Refused naming what is wrong. That key and certificate fit is for OpenSSL to say."""
    if not NAME.fullmatch(name):
        raise Refused(f"{name}: not a name for a certificate file (letters, digits, `.`, `_`, `-`)")
    found = blocks(text)
    kinds = [kind for kind, _ in found]
    if "CERTIFICATE" not in kinds:
        raise Refused(f"{name}: no certificate in it")
    if not any(kind.endswith("PRIVATE KEY") for kind in kinds):
        raise Refused(f"{name}: no private key in it")
    pem = "".join("\n".join(line.strip() for line in block.splitlines() if line.strip()) + "\n" for _, block in found)
    if len(pem) > PEM_LIMIT_BYTES:
        raise Refused(f"{name}: {len(pem)} bytes; HAProxy takes {PEM_LIMIT_BYTES} while it runs")
    return Certificate(name=name, pem=pem, fingerprint=_fingerprint(name, text))


def crt_list(folder: str, names: Sequence[str]) -> str:
    """HAProxy's list file: the first is the default."""
    ordered = sorted(names, key=lambda name: (name != DEFAULT, name))
    return "".join(f"{folder}/{name}\n" for name in ordered)


def changes(
    served: Mapping[str, str], wanted: Mapping[str, Certificate], folder: str, listing: str
) -> Iterator[tuple[str, ...]]:
    """Rows of commands that belong together; after one that fails the rest of its row is not said.

    `served`: path -> fingerprint ("" when it is an empty one). A certificate changes its content under its name.
    """
    for name, certificate in sorted(wanted.items()):
        path = f"{folder}/{name}"
        if path not in served:
            yield (f"new ssl cert {path}", *_filled(path, certificate), f"add ssl crt-list {listing} {path}")
        elif not served[path]:  # who added it died before it was in the list
            yield (*_filled(path, certificate), f"add ssl crt-list {listing} {path}")
        elif served[path] != certificate.fingerprint:
            yield _filled(path, certificate)
    for path in sorted(served):
        if path.rpartition("/")[2] not in wanted:
            yield (f"del ssl crt-list {listing} {path}", f"del ssl cert {path}")


def objection(said: str) -> str:
    """What HAProxy says against a command, "" when it did it."""
    done = ("Success!", "created for", "updated for", "New empty certificate", "deleted")
    return "" if any(words in said for words in done) else " ".join(said.split())[:200] or "no answer"


def listed(text: str, folder: str) -> tuple[str, ...]:
    """Paths of `show ssl cert`, those of our folder."""
    return tuple(line for line in text.splitlines() if line.startswith(f"{folder}/"))


def served(text: str) -> Served:
    """`show ssl cert FILE`."""
    fields = dict(line.split(": ", 1) for line in text.splitlines() if ": " in line)
    names = tuple(part.removeprefix("DNS:") for part in fields.get("Subject Alternative Name", "").split(", ") if part)
    return Served(
        fingerprint=fields.get("SHA1 FingerPrint", ""),
        subject=fields.get("Subject", ""),
        names=names,
        not_after_s=_time(fields.get("notAfter", "")),
        unused=fields.get("Status") == "Unused",
    )


def _filled(path: str, certificate: Certificate) -> tuple[str, ...]:
    return (f"set ssl cert {path} <<\n{certificate.pem}", f"commit ssl cert {path}")


def _fingerprint(name: str, text: str) -> str:
    """Of the first certificate, as HAProxy counts it."""
    body = next(m[2] for m in _BLOCK.finditer(text) if m[1] == "CERTIFICATE")
    try:
        return hashlib.sha1(a2b_base64(body), usedforsecurity=False).hexdigest().upper()
    except BinasciiError as error:
        raise Refused(f"{name}: {error}") from error


def _time(text: str) -> float:
    """`Dec 20 13:08:15 2026 GMT`; 0.0 when it is not that."""
    try:
        month, day, clock, year, _ = text.split()
        return parsedate_to_datetime(f"{day} {month} {year} {clock} GMT").timestamp()
    except ValueError:
        return 0.0
