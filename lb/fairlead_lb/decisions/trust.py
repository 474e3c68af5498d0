"""Our own identity and whom we believe: what HAProxy has of them, and the commands that turn it while it runs."""

import hashlib
import ssl
from collections.abc import Iterator

from fairlead_lb.decisions.certificates import Certificate

_END = "-----END CERTIFICATE-----"


def fingerprints(bundle: str) -> frozenset[str]:
    """SHA-1 of each certificate, as HAProxy counts them."""
    parts = [part + _END for part in bundle.split(_END)[:-1]]
    return frozenset(
        hashlib.sha1(ssl.PEM_cert_to_DER_cert(p.strip()), usedforsecurity=False).hexdigest().upper() for p in parts
    )


def told(text: str) -> frozenset[str]:
    """`show ssl ca-file F`."""
    lines = (line.partition("SHA1 FingerPrint: ") for line in text.splitlines())
    return frozenset(rest.strip() for _, sign, rest in lines if sign)


def changes(
    identity: Certificate, served: str, bundle: str, believed: frozenset[str], folder: str
) -> Iterator[tuple[str, ...]]:
    """Rows of commands; after one that fails the rest of its row is not said. Whom to believe comes first.

    `served`: the fingerprint HAProxy has of our identity.
    """
    if believed != fingerprints(bundle):
        path = f"{folder}/bundle.pem"
        text = "".join(f"{line}\n" for line in bundle.splitlines() if line.strip())
        yield (f"set ssl ca-file {path} <<\n{text}", f"commit ssl ca-file {path}")
    if served != identity.fingerprint:
        path = f"{folder}/identity.pem"
        yield (f"set ssl cert {path} <<\n{identity.pem}", f"commit ssl cert {path}")
