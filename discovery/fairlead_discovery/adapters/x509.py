"""Keys and certificates: the only file that knows `cryptography`. ECDSA P-256 throughout."""

import datetime as dt
import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from fairlead_daemon.errors import Refused
from fairlead_discovery.decisions.identity import CLOCK_SKEW_S

CSR_LIMIT_BYTES = 16 * 1024


@dataclass(frozen=True, slots=True)
class Pair:
    """A certificate with its key, both PEM."""

    certificate: str
    key: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Leaf:
    """What a service's certificate shall say."""

    common_name: str
    spiffe_id: str
    dns: tuple[str, ...]
    now_s: float
    life_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What a certificate says."""

    common_name: str
    uris: tuple[str, ...]
    dns: tuple[str, ...]
    not_before_s: float
    not_after_s: float
    serial: str
    authority: bool


def new_key() -> str:
    key = ec.generate_private_key(ec.SECP256R1())
    form = serialization.PrivateFormat.PKCS8
    return key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()).decode()


def root(name: str, *, now_s: float, life_s: float) -> Pair:
    key = new_key()
    private = _key(key)
    made = _authority(name, path_length=1, now_s=now_s, life_s=life_s)
    signed = made.issuer_name(_name(name)).public_key(private.public_key()).sign(private, hashes.SHA256())
    return Pair(_pem(signed), key)


def intermediate(above: Pair, name: str, *, now_s: float, life_s: float) -> Pair:
    """Of the root `above`; never lives longer than that."""
    key = new_key()
    parent = _certificate(above.certificate)
    life_s = min(life_s, parent.not_valid_after_utc.timestamp() - now_s)
    made = _authority(name, path_length=0, now_s=now_s, life_s=life_s).issuer_name(parent.subject)
    return Pair(_pem(made.public_key(_key(key).public_key()).sign(_key(above.key), hashes.SHA256())), key)


def request(key: str, common_name: str, uri: str) -> str:
    """A signing request, PEM."""
    names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri)])
    made = x509.CertificateSigningRequestBuilder().subject_name(_name(common_name)).add_extension(names, critical=False)
    return made.sign(_key(key), hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()


def sign(csr: str, leaf: Leaf, issuer: Pair) -> str:
    """The certificate, PEM. Of the request only its key counts: names are the authority's to say. Raises Refused."""
    public = _public_key_of(csr)
    parent = _certificate(issuer.certificate)
    ends_s = min(leaf.now_s + leaf.life_s, parent.not_valid_after_utc.timestamp())
    names = [x509.UniformResourceIdentifier(leaf.spiffe_id), *map(x509.DNSName, leaf.dns)]
    usages = [ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH]
    made = (
        _dated(leaf.now_s, ends_s)
        .subject_name(_name(leaf.common_name))
        .issuer_name(parent.subject)
        .public_key(public)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(parent.public_key()), critical=False)  # type: ignore[arg-type]  # ours are P-256
    )
    return _pem(made.sign(_key(issuer.key), hashes.SHA256()))


def seen(certificate: str) -> Seen:
    """Of the first certificate of a PEM text. Raises Refused."""
    found = _certificate(certificate)
    names = _extension(found, x509.SubjectAlternativeName)
    constraints = _extension(found, x509.BasicConstraints)
    subject = found.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return Seen(
        common_name=str(subject[0].value) if subject else "",
        uris=tuple(names.get_values_for_type(x509.UniformResourceIdentifier)) if names else (),
        dns=tuple(names.get_values_for_type(x509.DNSName)) if names else (),
        not_before_s=found.not_valid_before_utc.timestamp(),
        not_after_s=found.not_valid_after_utc.timestamp(),
        serial=f"{found.serial_number:x}",
        authority=bool(constraints and constraints.ca),
    )


def fits(chain: str, key: str) -> bool:
    """Whether the first certificate of the chain is for that key. Raises Refused."""
    return _same(_certificate(chain).public_key(), _key(key).public_key())


def fits_request(chain: str, csr: str) -> bool:
    return _same(_certificate(chain).public_key(), _public_key_of(csr))


def verified(chain: str, roots: str) -> bool:
    """Whether each certificate is signed by the next, and the last by one of the roots. Raises Refused."""
    certificates, anchors = split(chain), split(roots)
    for child, parent in itertools.pairwise(certificates):
        if not _signed_by(child, (parent,)):
            return False
    return certificates[-1] in anchors or _signed_by(certificates[-1], anchors)


def split(text: str) -> tuple[str, ...]:
    """Its certificates, each PEM. Raises Refused when there is none."""
    try:
        return tuple(_pem(one) for one in x509.load_pem_x509_certificates(text.encode()))
    except ValueError as error:
        raise Refused(f"not a certificate: {error}") from error


def _signed_by(child: str, parents: Iterable[str]) -> bool:
    for parent in parents:
        try:
            _certificate(child).verify_directly_issued_by(_certificate(parent))
        except (ValueError, TypeError, InvalidSignature):
            continue
        return True
    return False


def _extension(
    found: x509.Certificate, kind: type[x509.extensions.ExtensionTypeVar]
) -> "x509.extensions.ExtensionTypeVar | None":
    try:
        return found.extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None
    except ValueError as error:
        raise Refused(f"not a certificate: {error}") from error


def _authority(name: str, *, path_length: int, now_s: float, life_s: float) -> x509.CertificateBuilder:
    return (
        _dated(now_s, now_s + life_s)
        .subject_name(_name(name))
        .add_extension(x509.BasicConstraints(ca=True, path_length=path_length), critical=True)
        .add_extension(_usage(signs=True), critical=True)
    )


def _dated(now_s: float, ends_s: float) -> x509.CertificateBuilder:
    """From some minutes ago: clocks differ."""
    begin, end = (dt.datetime.fromtimestamp(int(t), dt.UTC) for t in (now_s - CLOCK_SKEW_S, ends_s))
    number = x509.random_serial_number()
    return x509.CertificateBuilder().serial_number(number).not_valid_before(begin).not_valid_after(end)


def _usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True, content_commitment=False, key_encipherment=False, data_encipherment=False,
        key_agreement=False, key_cert_sign=signs, crl_sign=signs, encipher_only=False, decipher_only=False,
    )  # fmt: skip


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _public_key_of(csr: str) -> ec.EllipticCurvePublicKey:
    if len(csr) > CSR_LIMIT_BYTES:
        raise Refused(f"csr: {len(csr)} bytes, {CSR_LIMIT_BYTES} at the most")
    try:
        found = x509.load_pem_x509_csr(csr.encode())
        valid, public = found.is_signature_valid, found.public_key()
    except (ValueError, TypeError) as error:
        raise Refused(f"csr: not a signing request in PEM: {error}") from error
    if not valid:
        raise Refused("csr: its signature is not by its key")
    if not isinstance(public, ec.EllipticCurvePublicKey) or not isinstance(public.curve, ec.SECP256R1):
        raise Refused("csr: the key must be ECDSA P-256")
    return public


def _key(text: str) -> ec.EllipticCurvePrivateKey:
    """Raises Refused without the text: it may be a secret."""
    try:
        found = serialization.load_pem_private_key(text.encode(), password=None)
    except (ValueError, TypeError) as error:
        raise Refused("not a private key in PEM") from error
    if not isinstance(found, ec.EllipticCurvePrivateKey):
        raise Refused("the private key is not ECDSA")
    return found


def _certificate(text: str) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(text.encode())
    except ValueError as error:
        raise Refused(f"not a certificate: {error}") from error


def _same(one: object, other: object) -> bool:
    return one == other


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def joined(certificates: Sequence[str]) -> str:
    return "".join(c if c.endswith("\n") else f"{c}\n" for c in certificates)
