"""Certificates sealed for the registry (AES-256-GCM), and looked into: the only file of the balancer that does so.

A key file has one key a line, base64; the first seals, each opens. `#` begins a comment. Mode 0600.
"""

import datetime as dt
import hashlib
import os
import stat
from base64 import b64decode, b64encode
from binascii import Error as BinasciiError
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidTag, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from fairlead_daemon.errors import BadSettings, Refused
from fairlead_lb.decisions import certificates
from fairlead_lb.decisions.certificates import Sealed

KEY_BYTES = 32
NONCE_BYTES = 12
FILE_LIMIT_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class Keys:
    """By id; the first of the file seals. Not to be printed: `repr` leaves the keys out."""

    first: str
    by_id: Mapping[str, bytes] = field(repr=False)

    def seal(self, name: str, pem: str) -> Sealed:
        nonce = os.urandom(NONCE_BYTES)
        data = AESGCM(self.by_id[self.first]).encrypt(nonce, pem.encode("ascii"), _beside(name))
        return Sealed(key=self.first, nonce=nonce, data=data)

    def open(self, name: str, sealed: Sealed) -> str:
        """Raises Refused when it was not sealed under this name, by a key we have, as it stands there."""
        key = self.by_id.get(sealed.key)
        if key is None:
            raise Refused(f"{name}: sealed with key {sealed.key[:16]!r}, which the key file does not have")
        try:
            return AESGCM(key).decrypt(sealed.nonce, sealed.data, _beside(name)).decode("ascii")
        except (InvalidTag, ValueError) as error:
            raise Refused(f"{name}: was changed, or sealed under another name") from error


def new_key() -> str:
    """A line of a key file."""
    return b64encode(AESGCM.generate_key(KEY_BYTES * 8)).decode()


def read_keys(path: Path) -> Keys:
    """Raises BadSettings naming file and line, never what stands there."""
    try:
        told = path.stat()
        if told.st_mode & 0o077 and stat.S_ISREG(told.st_mode):
            raise BadSettings(f"certificate_key_file: {path} may be read by others; chmod 600 it")
        if not stat.S_ISREG(told.st_mode) or told.st_size > FILE_LIMIT_BYTES:
            raise BadSettings(f"certificate_key_file: {path}: not a key file")
        text = path.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "not a key file"
        raise BadSettings(f"certificate_key_file: {path}: {why}") from error
    found: dict[str, bytes] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if words := line.partition("#")[0].strip():
            key = _key(words, f"certificate_key_file: {path}: line {number}")
            found.setdefault(_id(key), key)
    if not found:
        raise BadSettings(f"certificate_key_file: {path}: no key in it")
    return Keys(next(iter(found)), found)


def looked_into(name: str, pem: str, *, now_s: float) -> certificates.Served:
    """What the first certificate says. Raises Refused: no certificate, not its key, expired."""
    found = certificates.parse(f"{name}.pem", pem)
    try:
        leaf = x509.load_pem_x509_certificate(found.pem.encode())
        key = serialization.load_pem_private_key(_key_block(found.pem).encode(), password=None)
        ends_s = leaf.not_valid_after_utc.timestamp()
        fits = _public(leaf.public_key()) == _public(key.public_key())
    except TypeError as error:
        raise Refused(f"{name}: the private key has a password") from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise Refused(f"{name}: certificate or private key cannot be read") from error
    if not fits:
        raise Refused(f"{name}: the private key is not that of the certificate")
    if ends_s <= now_s:
        raise Refused(f"{name}: expired on {dt.datetime.fromtimestamp(ends_s, dt.UTC):%Y-%m-%d %H:%M} UTC")
    return certificates.Served(
        fingerprint=found.fingerprint, subject=leaf.subject.rfc4514_string(), names=_names(leaf), not_after_s=ends_s
    )


def _names(leaf: x509.Certificate) -> tuple[str, ...]:
    try:
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        return tuple(names.get_values_for_type(x509.DNSName))
    except (x509.ExtensionNotFound, ValueError):
        return ()


def _key_block(pem: str) -> str:
    return next(block for kind, block in certificates.blocks(pem) if kind.endswith("PRIVATE KEY"))


def _public(key: object) -> bytes:
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    found = key.public_bytes(serialization.Encoding.DER, form)  # type: ignore[attr-defined]  # every kind of public key has it
    return bytes(found)


def _key(words: str, place: str) -> bytes:
    try:
        key = b64decode(words, validate=True)
    except (BinasciiError, ValueError) as error:
        raise BadSettings(f"{place}: not a key in base64") from error
    if len(key) != KEY_BYTES:
        raise BadSettings(f"{place}: a key has {KEY_BYTES} bytes, this has {len(key)}")
    return key


def _id(key: bytes) -> str:
    """Says which key, and nothing of it."""
    return hashlib.sha256(b"fairlead certificate key\0" + key).hexdigest()[:16]


def _beside(name: str) -> bytes:
    """What is authenticated with the content: two records cannot change places."""
    return b"fairlead certificate 1\0" + name.encode()
