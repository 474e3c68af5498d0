"""The identity authority's keys, in one folder of mode 0700, and what they sign. No key ever leaves it.

authority.json · <root>.root.pem/.key · <root>.issuer.pem/.key (what signs; the root's key may be kept elsewhere)
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from fairlead_daemon.errors import BadSettings, Refused
from fairlead_daemon.files import replace_file
from fairlead_daemon.logs import Log
from fairlead_discovery.adapters import x509
from fairlead_discovery.adapters.x509 import Leaf, Pair
from fairlead_discovery.decisions import identity
from fairlead_discovery.decisions.identity import Root
from fairlead_discovery.signers import Signer

log = Log("ca")
STATE = "authority.json"
ROOT_S = 10 * 365 * 86_400.0
ISSUER_S = 90 * 86_400.0


class State(msgspec.Struct, frozen=True, kw_only=True):
    """What `authority.json` holds."""

    trust_domain: str
    roots: tuple[Root, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """Lives in seconds. `overlap_s`: how long a new root is told before it signs."""

    leaf_s: float = 86_400.0
    overlap_s: float = 3_600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Issued:
    """`chain` is PEM, the leaf first, without any key."""

    service: str
    spiffe_id: str
    chain: str
    not_after_s: float


@dataclass(slots=True)
class Authority:
    """`open()` first. `signer`: another signs what we decide; then `anchors` is its roots' bundle."""

    folder: Path
    trust_domain: str
    terms: Terms = field(default_factory=Terms)
    signer: Signer | None = None
    anchors: Path | None = None
    clock: Callable[[], float] = time.time
    roots: tuple[Root, ...] = ()

    def open(self) -> None:
        """Reads the folder, or makes the first root. Raises BadSettings when it is another trust domain's, or open to
        others.
        """
        identity.trust_domain(self.trust_domain)
        if self.signer is not None:
            self.bundle()
            return
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        _closed(self.folder)
        path = self.folder / STATE
        if not path.exists():
            self._make_root(self.clock())
            return
        found = msgspec.json.decode(path.read_bytes(), type=State)
        if found.trust_domain != self.trust_domain:
            raise BadSettings(f"trust_domain: {self.folder} is that of {found.trust_domain}, not {self.trust_domain}")
        self.roots = found.roots
        for key in self.folder.glob("*.key"):
            _closed(key)

    def bundle(self) -> str:
        """Who is to be believed, PEM. Raises BadSettings when an external signer's cannot be read."""
        if self.signer is not None:
            try:
                assert self.anchors is not None, "settings look after it"
                return x509.joined(x509.split(self.anchors.read_text(encoding="ascii")))
            except (OSError, UnicodeDecodeError, Refused) as error:
                raise BadSettings(f"signer_roots: {self.anchors}: {error}") from error
        return x509.joined([self._read(root, "root.pem") for root in identity.trusted(self.roots, self.clock())])

    async def issue(self, service: str, csr: str, *, dns: tuple[str, ...] = (), life_s: float = 0.0) -> Issued:
        """Raises Refused, Unavailable (an external signer that does not answer)."""
        leaf = self._leaf(service, dns, life_s)
        chain = await self._sign_outside(csr, leaf) if self.signer is not None else self._sign(csr, leaf)
        found = x509.seen(chain)
        log.info("issued", service=service, serial=found.serial, not_after_s=round(found.not_after_s))
        return Issued(service=service, spiffe_id=leaf.spiffe_id, chain=chain, not_after_s=found.not_after_s)

    def rotate(self, *, at_once: bool = False) -> Root:
        """A new root; `at_once` gives up the old ones now (a stolen key): who has not renewed is refused. Raises Refused."""
        if self.signer is not None:
            raise Refused("an external signer's roots are rotated with it")
        now_s = self.clock()
        name = self._name(now_s)
        overlap_s = 0.0 if at_once else self.terms.overlap_s
        roots = identity.rotated(self.roots, name, now_s, overlap_s=overlap_s, leaf_s=self.terms.leaf_s)
        self._write_root(name, now_s)
        self._keep(roots)
        log.info("rotated", root=name, signs_in_s=round(overlap_s))
        return roots[-1]

    def forget_retired(self) -> None:
        """Removes the files of roots that nobody believes any more."""
        kept = identity.trusted(self.roots, self.clock()) if self.signer is None else self.roots
        if len(kept) < len(self.roots):
            gone = [r.name for r in self.roots if r not in kept]
            self._keep(kept)
            for path in (p for name in gone for p in self.folder.glob(f"{name}.*")):
                path.unlink(missing_ok=True)
            log.info("retired", roots=" ".join(gone))

    def _leaf(self, service: str, dns: tuple[str, ...], life_s: float) -> Leaf:
        identity.service(service)
        life_s = life_s or self.terms.leaf_s
        if not identity.SHORTEST_LEAF_S <= life_s <= self.terms.leaf_s:
            raise Refused(f"life_s {life_s:g}: not between {identity.SHORTEST_LEAF_S:g} and {self.terms.leaf_s:g}")
        names = (*identity.names(self.trust_domain, service), *(_own(_dns(name), self.trust_domain) for name in dns))
        return Leaf(
            common_name=identity.common_name(service),
            spiffe_id=identity.spiffe_id(self.trust_domain, service),
            dns=tuple(dict.fromkeys(names)),
            now_s=self.clock(),
            life_s=life_s,
        )

    def _sign(self, csr: str, leaf: Leaf) -> str:
        issuer = self._issuer(identity.issuing(self.roots, leaf.now_s))
        return x509.joined([x509.sign(csr, leaf, issuer), issuer.certificate])

    async def _sign_outside(self, csr: str, leaf: Leaf) -> str:
        """Another's work is looked at before anybody gets it."""
        assert self.signer is not None
        chain = x509.joined(x509.split(await self.signer.sign(csr, leaf)))
        found = x509.seen(chain)
        wrong = {
            "another key": not x509.fits_request(chain, csr),
            "an authority's": found.authority,
            f"its SPIFFE ids are {found.uris}": found.uris != (leaf.spiffe_id,),
            f"its common name is {found.common_name!r}": found.common_name != leaf.common_name,
            "it ended already": found.not_after_s <= leaf.now_s,
            "no root of signer_roots signed it": not x509.verified(chain, self.bundle()),
        }
        if reasons := [why for why, is_so in wrong.items() if is_so]:
            raise Refused(f"the external signer's certificate is not taken: {'; '.join(reasons)}")
        return chain

    def _issuer(self, root: Root) -> Pair:
        """The intermediate that signs below that root; a new one in the second half of its life, while the root's key is
        here to make it. Raises Refused.
        """
        now_s = self.clock()
        pair = self._kept_issuer(root)
        told = x509.seen(pair.certificate) if pair is not None else None
        if pair is not None and told is not None:
            if now_s < identity.renew_at_s(told.not_before_s, told.not_after_s):
                return pair
            if not self._path(root, "root.key").exists() and now_s + self.terms.leaf_s < told.not_after_s:
                log.warning("the intermediate should be renewed, which needs the root's key", root=root.name)
                return pair
        above = Pair(self._read(root, "root.pem"), self._read(root, "root.key"))
        made = x509.intermediate(above, f"fairlead issuer of {root.name}", now_s=now_s, life_s=ISSUER_S)
        replace_file(self._path(root, "issuer.key"), made.key.encode(), mode=0o600)
        replace_file(self._path(root, "issuer.pem"), made.certificate.encode(), mode=0o600)
        return made

    def _kept_issuer(self, root: Root) -> Pair | None:
        """None when there is none, or we died between its two files."""
        if not self._path(root, "issuer.pem").exists():
            return None
        pair = Pair(self._read(root, "issuer.pem"), self._read(root, "issuer.key"))
        return pair if x509.fits(pair.certificate, pair.key) else None

    def _make_root(self, now_s: float) -> None:
        name = self._name(now_s)
        self._write_root(name, now_s)
        self._keep((Root(name=name, active_from_s=now_s),))
        log.info("made a root", root=name, trust_domain=self.trust_domain)

    def _write_root(self, name: str, now_s: float) -> None:
        made = x509.root(f"fairlead {name}", now_s=now_s, life_s=ROOT_S)
        replace_file(self.folder / f"{name}.root.key", made.key.encode(), mode=0o600)
        replace_file(self.folder / f"{name}.root.pem", made.certificate.encode(), mode=0o600)

    def _name(self, now_s: float) -> str:
        return f"root-{len(self.roots) + 1}-{int(now_s)}"

    def _keep(self, roots: tuple[Root, ...]) -> None:
        state = State(trust_domain=self.trust_domain, roots=roots)
        replace_file(self.folder / STATE, msgspec.json.encode(state), mode=0o600)
        self.roots = roots

    def _path(self, root: Root, what: str) -> Path:
        return self.folder / f"{root.name}.{what}"

    def _read(self, root: Root, what: str) -> str:
        path = self._path(root, what)
        try:
            return path.read_text(encoding="ascii")
        except OSError as error:
            raise Refused(f"{path.name}: {error.strerror}") from error


def _dns(name: str) -> str:
    """Raises Refused."""
    try:
        identity.trust_domain(name.removeprefix("*."))
    except Refused as error:
        raise Refused(f"dns {name[:80]!r}: not a host name in lower case") from error
    return name


def _own(name: str, domain: str) -> str:
    """Raises Refused: what balancers believe of one another is nobody's to ask for."""
    if name in (f"*.{domain}", identity.balancers_name(domain)):
        raise Refused(f"dns {name}: is the balancers' own")
    return name


def _closed(path: Path) -> None:
    if path.stat().st_mode & 0o077:
        raise BadSettings(f"ca_dir: {path} is open to others; chmod {'700' if path.is_dir() else '600'} it")
