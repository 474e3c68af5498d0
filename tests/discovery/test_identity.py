"""Identities: names that never collide, certificates that say them, roots that change without a gap."""

import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead_daemon.errors import BadSettings, Refused, Unavailable
from fairlead_discovery import identities
from fairlead_discovery.adapters import x509
from fairlead_discovery.authority import Authority, Terms
from fairlead_discovery.decisions import identity
from fairlead_discovery.decisions.identity import Root
from fairlead_discovery.identities import Answer, Identity
from fairlead_discovery.signers import Command

WEB = "marathon:/shop/web"
DOMAIN = "test.internal"
DAY_S = 86_400.0
keys = st.tuples(st.text("a/._-é %:", min_size=1, max_size=4), st.text("a/._-é %:", min_size=1, max_size=6)).map(
    lambda p: f"{p[0].replace('%', '%25').replace(':', '%3A')}:{p[1]}"
)


@given(keys, keys)
def test_two_services_never_share_an_identity(one: str, other: str):
    """Neither as SPIFFE id, nor as common name, nor as host name; and each leads back to its key."""
    made = [[f(DOMAIN, key) for key in (one, other)] for f in (identity.spiffe_id, identity.dns_name)]
    made.append([identity.common_name(key) for key in (one, other)])

    assert [one == other] * 3 == [a == b for a, b in made]
    assert one == identity.service_of(DOMAIN, made[0][0])


@pytest.mark.parametrize("uri", ["", "spiffe://other/app/a/b", "spiffe://test.internal/app/a", "http://test.internal/"])
def test_a_foreign_id_is_nobody(uri: str):
    """Another trust domain's, or another form."""
    assert identity.service_of(DOMAIN, uri) is None


def test_spiffe_ids_are_of_plain_characters():
    """As SPIFFE wants it; apps and other names are told apart."""
    assert "spiffe://test.internal/app/marathon/shop/web" == identity.spiffe_id(DOMAIN, WEB)
    assert "spiffe://test.internal/task/etl/work_20er" == identity.spiffe_id(DOMAIN, "etl:work er")


@pytest.mark.parametrize("text", ["web", ":web", "marathon:", "a:b\nc", "sha256:abc", f"a:{'x' * 400}"])
def test_what_is_no_service_has_no_identity(text: str):
    """A certificate must not say anything a person did not mean."""
    with pytest.raises(Refused):
        identity.service(text)


def test_a_long_name_is_its_digest():
    """A common name has 64 characters; the SPIFFE id says it all."""
    found = identity.common_name(f"marathon:/{'a' * 100}")

    assert (True, True) == (found.startswith("sha256:"), len(found) <= 64)


def test_a_new_root_is_believed_before_it_signs_and_the_old_one_as_long_as_its_leaves():
    """Nobody meets a certificate whose root he has not been told of."""
    roots = identity.rotated([Root(name="a", active_from_s=0)], "b", 1000, overlap_s=100, leaf_s=500)
    names = [[r.name for r in identity.trusted(roots, t)] for t in (1000, 1099, 1600, 1100 + 500 + 301)]

    assert [["a", "b"], ["a", "b"], ["a", "b"], ["b"]] == names
    assert ["a", "a", "b"] == [identity.issuing(roots, t).name for t in (1000, 1099, 1100)]


def test_two_rotations_do_not_overlap_but_an_emergency_does():
    """A stolen key is given up at once, whatever is under way."""
    roots = identity.rotated([Root(name="a", active_from_s=0)], "b", 1000, overlap_s=100, leaf_s=500)
    with pytest.raises(Refused, match="under way"):
        identity.rotated(roots, "c", 1050, overlap_s=100, leaf_s=500)
    at_once = identity.rotated(roots, "c", 1050, overlap_s=0, leaf_s=500)

    assert ["c"] == [r.name for r in identity.trusted(at_once, 1050)]
    assert "c" == identity.issuing(at_once, 1050).name


class Clock:
    def __init__(self) -> None:
        self.now_s = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def authority(tmp_path: Path, clock: Clock) -> Authority:
    made = Authority(folder=tmp_path / "ca", trust_domain=DOMAIN, terms=Terms(overlap_s=3600), clock=clock)
    made.open()
    return made


def csr() -> str:
    return x509.request(x509.new_key(), "whoever", "spiffe://evil/app/root")


async def test_a_certificate_says_the_service_and_nothing_of_the_request(authority: Authority, clock: Clock):
    """Of a request only its key counts."""
    issued = await authority.issue(WEB, csr(), dns=("web.shop",))
    seen = x509.seen(issued.chain)

    assert ("marathon:%2Fshop%2Fweb", ("spiffe://test.internal/app/marathon/shop/web",)) == (
        seen.common_name,
        seen.uris,
    )
    assert (identity.dns_name(DOMAIN, WEB), "web.shop") == seen.dns
    assert (False, clock.now_s + DAY_S) == (seen.authority, seen.not_after_s)
    assert x509.verified(issued.chain, authority.bundle())


@pytest.mark.parametrize(
    ("service", "request_", "dns", "life_s"),
    [
        ("web", None, (), 0),
        (WEB, "rubbish", (), 0),
        (WEB, None, ("a b",), 0),
        (WEB, None, (), 10),
        (WEB, None, (), 2 * DAY_S),
        (WEB, "x" * 20_000, (), 0),
    ],
)
async def test_what_cannot_be_signed_is_refused(authority: Authority, service: str, request_, dns, life_s: float):
    """With the reason; nothing is signed."""
    with pytest.raises(Refused):
        await authority.issue(service, request_ or csr(), dns=dns, life_s=life_s)


async def test_no_key_leaves_the_folder_and_all_are_closed(authority: Authority):
    """Mode 0600 in 0700; what is issued and told holds certificates alone."""
    issued = await authority.issue(WEB, csr())
    modes = {stat.S_IMODE(p.stat().st_mode) for p in authority.folder.iterdir()}

    assert ({0o600}, 0o700) == (modes, stat.S_IMODE(authority.folder.stat().st_mode))
    assert "PRIVATE" not in issued.chain + authority.bundle()


def test_an_open_key_is_refused(authority: Authority):
    """Who could read it could be anybody."""
    next(authority.folder.glob("*.root.key")).chmod(0o644)
    with pytest.raises(BadSettings, match="chmod 600"):
        Authority(folder=authority.folder, trust_domain=DOMAIN).open()


def test_another_trust_domain_is_another_authority(authority: Authority):
    """The certificates of the one mean nothing to the other."""
    with pytest.raises(BadSettings, match=r"that of test\.internal"):
        Authority(folder=authority.folder, trust_domain="other.internal").open()


async def test_leaves_of_both_roots_are_believed_while_one_replaces_the_other(authority: Authority, clock: Clock):
    """And the old one's are not any more once all of them have ended; its key is gone then."""
    before = await authority.issue(WEB, csr())
    authority.rotate()
    during = await authority.issue(WEB, csr())
    told = authority.bundle()
    clock.now_s += 3601
    after = await authority.issue(WEB, csr())

    assert [True] * 3 == [x509.verified(one.chain, told) for one in (before, during, after)]
    clock.now_s += DAY_S + 301
    authority.forget_retired()
    assert [False, False, True] == [x509.verified(one.chain, authority.bundle()) for one in (before, during, after)]
    assert 1 == len(list(authority.folder.glob("*.root.key")))


async def test_the_intermediate_is_renewed_in_time_and_without_the_roots_key_serves_on(
    authority: Authority, clock: Clock
):
    """The root's key may be kept elsewhere until it is needed."""
    await authority.issue(WEB, csr())
    first = next(authority.folder.glob("*.issuer.pem")).read_text()
    clock.now_s += 50 * DAY_S
    await authority.issue(WEB, csr())
    second = next(authority.folder.glob("*.issuer.pem")).read_text()
    next(authority.folder.glob("*.root.key")).rename(authority.folder.parent / "safe")
    clock.now_s += 50 * DAY_S
    issued = await authority.issue(WEB, csr())
    clock.now_s += 40 * DAY_S

    assert first != second
    assert x509.verified(issued.chain, authority.bundle())
    with pytest.raises(Refused, match=r"root\.key"):
        await authority.issue(WEB, csr())


async def test_an_identity_is_due_at_half_of_its_life_or_when_its_root_is_given_up(
    authority: Authority, tmp_path: Path, clock: Clock
):
    """Half-written files, and another service's, count as none."""
    place, key = Identity(tmp_path / "id"), x509.new_key()
    issued = await authority.issue(WEB, x509.request(key, "x", "spiffe://x/y"))
    answer = Answer(spiffe_id=issued.spiffe_id, chain=issued.chain, bundle=authority.bundle(), not_after_s=0)

    assert place.due(WEB, "", clock.now_s)
    place.keep(key, answer)
    assert [False, True] == [place.due(WEB, authority.bundle(), clock.now_s + t) for t in (0, DAY_S / 2)]
    assert place.due("marathon:/other", "", clock.now_s)
    authority.rotate(at_once=True)
    assert place.due(WEB, authority.bundle(), clock.now_s)
    place.file.write_text(issued.chain)
    assert place.due(WEB, "", clock.now_s)
    assert {0o600} == {stat.S_IMODE(p.stat().st_mode) for p in place.folder.iterdir() if p != place.file}


async def test_an_external_signer_signs_what_we_say(authority: Authority, tmp_path: Path, clock: Clock):
    """A command: what it gives is looked at before anybody gets it."""
    chain, key = tmp_path / "chain.pem", x509.new_key()
    request = x509.request(key, "x", "spiffe://x/y")
    anchors = tmp_path / "roots.pem"
    anchors.write_text(authority.bundle())
    outside = Authority(
        folder=tmp_path / "none", trust_domain=DOMAIN, clock=clock, anchors=anchors,
        signer=Command(("/bin/sh", "-c", f'cat > /dev/null; test "$FAIRLEAD_SPIFFE_ID" && cat {chain}')),
    )  # fmt: skip
    outside.open()
    chain.write_text((await authority.issue(WEB, request)).chain)

    assert chain.read_text() == (await outside.issue(WEB, request)).chain
    with pytest.raises(Refused, match="its common name is"):
        await outside.issue("marathon:/other", request)
    with pytest.raises(Refused, match="another key"):
        await outside.issue(WEB, csr())
    authority.rotate(at_once=True)
    chain.write_text((await authority.issue(WEB, request)).chain)
    with pytest.raises(Refused, match="no root of signer_roots"):
        await outside.issue(WEB, request)
    assert not (tmp_path / "none").exists()


async def test_a_signer_that_is_not_there_is_told(tmp_path: Path):
    """Unavailable: whoever asked tries again."""
    leaf = x509.Leaf(common_name="a", spiffe_id="b", dns=(), now_s=0, life_s=1)
    with pytest.raises(Unavailable, match="no/such"):
        await Command(("/no/such",)).sign(csr(), leaf)
    with pytest.raises(Refused, match="ended with 3: no key"):
        await Command(("/bin/sh", "-c", "echo no key >&2; exit 3")).sign(csr(), leaf)


async def test_an_answer_for_another_key_is_not_taken(authority: Authority, monkeypatch):
    """A wrong or lying authority costs an identity, not the one there is."""

    async def answers(*_args: object, **_named: object) -> dict[str, object]:
        issued = await authority.issue(WEB, csr())
        return {"spiffe_id": "", "chain": issued.chain, "bundle": authority.bundle(), "not_after_s": 0}

    monkeypatch.setattr(identities, "call", answers)
    with pytest.raises(Unavailable, match="does not fit"):
        await identities.ask(identities.Asking(authority="http://x", service=WEB))
