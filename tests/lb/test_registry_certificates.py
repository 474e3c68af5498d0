"""Certificates of the registry: sealed, opened, looked into, kept as files."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from fairlead_daemon.errors import BadSettings, Refused
from fairlead_discovery.records import encode
from fairlead_lb.adapters import vault
from fairlead_lb.certificates import Certificates
from fairlead_lb.decisions.certificates import Sealed, registry_name
from fairlead_lb.registry_certificates import RegistryCertificates
from harness.certificates import self_signed
from harness.servers import require

pytestmark = pytest.mark.needs("openssl")
NOW_S = time.time()
DAY_S = 86400.0


@dataclass
class Stage:
    folder: Path

    @property
    def keys(self) -> Path:
        return self.folder / "keys"

    def key(self, *lines: str) -> vault.Keys:
        self.keys.write_text("".join(f"{line}\n" for line in lines))
        self.keys.chmod(0o600)
        return vault.read_keys(self.keys)

    def pem(self, name: str = "a.example") -> str:
        require("openssl")
        cert, key = self_signed(self.folder, name)
        return cert.read_text() + key.read_text()

    def taken(self) -> RegistryCertificates:
        return RegistryCertificates(self.folder / "registry-certs", self.keys)


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(tmp_path)


def test_what_is_sealed_opens_under_its_name_only(stage: Stage):
    """Each sealing is another one; nothing of the text is to be seen."""
    keys = stage.key(vault.new_key())
    one, again = keys.seal("a", "secret"), keys.seal("a", "secret")

    assert ("secret", True) == (keys.open("a", one), one != again)
    assert b"secret" not in encode(one)
    with pytest.raises(Refused, match="was changed, or sealed under another name"):
        keys.open("b", one)


@pytest.mark.parametrize(
    "change",
    [
        lambda s: Sealed(key=s.key, nonce=s.nonce, data=s.data[:-1]),
        lambda s: Sealed(key=s.key, nonce=s.nonce[::-1], data=s.data),
        lambda s: Sealed(key=s.key, nonce=b"", data=s.data),
        lambda s: Sealed(key=s.key, nonce=s.nonce, data=bytes([*s.data[:-1], s.data[-1] ^ 1])),
        lambda s: Sealed(key="0" * 16, nonce=s.nonce, data=s.data),
    ],
)
def test_changed_bytes_open_nothing(stage: Stage, change: Callable[[Sealed], Sealed]):
    """Cut, turned round, without a nonce, one bit, another key's."""
    keys = stage.key(vault.new_key())
    with pytest.raises(Refused, match=r"^a: "):
        keys.open("a", change(keys.seal("a", "secret")))


def test_each_key_of_the_file_opens_and_the_first_seals(stage: Stage):
    """So keys can be turned, one file after the other."""
    old, new = vault.new_key(), vault.new_key()
    before = stage.key(old).seal("a", "secret")
    both = stage.key(new, f"{old}  # until summer")

    assert "secret" == both.open("a", before)
    assert before.key != both.seal("a", "secret").key


@pytest.mark.parametrize(
    ("text", "mode", "told"),
    [
        ("", 0o600, "no key in it"),
        ("AAAA\n", 0o600, "line 1: a key has 32 bytes, this has 3"),
        ("# k\n%%%\n", 0o600, "line 2: not a key in base64"),
        ("AAAA\n", 0o644, "may be read by others; chmod 600"),
    ],
)
def test_a_bad_key_file_is_named_and_not_shown(stage: Stage, text: str, mode: int, told: str):
    """By line."""
    stage.keys.write_text(text)
    stage.keys.chmod(mode)
    with pytest.raises(BadSettings, match=told) as caught:
        vault.read_keys(stage.keys)

    assert "AAAA" not in str(caught.value)


def test_keys_do_not_print_themselves(stage: Stage):
    """Also in a traceback."""
    line = vault.new_key()

    assert line[:8] not in repr(stage.key(line))
    assert "\\x" not in repr(stage.key(line))


@pytest.mark.parametrize("name", ["", "..", "../x", "a/b", "a\nb", "a..b", ".a", "a.pem.pem", "a b", "%2E", "x" * 130])
def test_a_name_that_leaves_its_place_is_refused(name: str):
    """It becomes a file's name, and stands in HAProxy's commands."""
    with pytest.raises(Refused, match="not a name for a certificate"):
        registry_name(name)


def test_a_certificate_is_looked_into(stage: Stage):
    """Its hosts and end; another's key and an expired one are refused."""
    pem, other = stage.pem(), stage.pem("b.example")
    mixed = pem[: pem.index("-----BEGIN PRIVATE")] + other[other.index("-----BEGIN PRIVATE") :]
    seen = vault.looked_into("a", pem, now_s=NOW_S)

    assert (("a.example",), True) == (seen.names, DAY_S < seen.not_after_s - NOW_S < 3 * DAY_S)
    with pytest.raises(Refused, match=r"^a: the private key is not that of the certificate"):
        vault.looked_into("a", mixed, now_s=NOW_S)
    with pytest.raises(Refused, match=r"^a: expired on 20\d\d-"):
        vault.looked_into("a", pem, now_s=NOW_S + 3 * DAY_S)


def test_an_emptied_registry_takes_nothing_away_but_a_word_does(stage: Stage):
    """What is gone without a word is served on, and named."""
    keys, taken = stage.key(vault.new_key()), stage.taken()
    taken.take({"a": encode(keys.seal("a", stage.pem()))}, now_s=NOW_S)
    taken.take({}, now_s=NOW_S)
    told = dict(taken.problems)
    kept = (taken.folder / "a.pem").exists()
    taken.take({"a": encode(Sealed(removed=True))}, now_s=NOW_S)

    assert kept
    assert {"registry: a": "gone without having been removed; its last good content is served on"} == told
    assert ([], {}) == (list(taken.folder.glob("*")), taken.problems)


def test_without_its_key_file_a_balancer_serves_what_it_had(stage: Stage):
    """One that never had any does not start."""
    keys, taken = stage.key(vault.new_key()), stage.taken()
    taken.take({"a": encode(keys.seal("a", stage.pem()))}, now_s=NOW_S)
    stage.keys.unlink()
    again = stage.taken()
    again.check()

    assert "keys: No such file or directory; what it had is served on" in again.problems["registry"]
    with pytest.raises(BadSettings, match="certificate_key_file"):
        RegistryCertificates(stage.folder / "none", stage.keys).check()


def test_a_file_counts_before_the_registrys_of_its_name(stage: Stage):
    """Without any files left, those are kept and the registry's come and go as ever."""
    keys, taken = stage.key(vault.new_key()), stage.taken()
    file, shared, own = stage.pem(), stage.pem(), stage.pem()
    source = stage.folder / "in"
    source.mkdir()
    (source / "a.pem").write_text(file)
    taken.take({n: encode(keys.seal(n, p)) for n, p in (("a", shared), ("b", own))}, now_s=NOW_S)
    found = Certificates(source, stage.folder / "certs", taken)
    found.load()
    before = {p.name: p.read_text() for p in found.folder.glob("*.pem")}
    (source / "a.pem").unlink()
    taken.take({n: encode(Sealed(removed=True)) for n in ("a", "b")}, now_s=NOW_S)
    later = Certificates(source, stage.folder / "certs", taken)
    later.load()

    assert {"a.pem": file, "b.pem": own} == before
    assert ("file", "registry") == (found.origin("a.pem"), found.origin("b.pem"))
    assert {"a.pem": file} == {p.name: p.read_text() for p in found.folder.glob("*.pem")}
    assert [str(source)] == list(later.told())
