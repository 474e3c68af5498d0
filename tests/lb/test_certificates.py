"""Certificates: files read, commands decided, answers understood."""

import os
from pathlib import Path

import pytest

from fairlead_daemon.errors import Refused
from fairlead_lb.certificates import Certificates
from fairlead_lb.decisions.certificates import Served, changes, crt_list, objection, parse, served
from harness.certificates import self_signed
from harness.servers import require

pytestmark = pytest.mark.needs("openssl")
TOLD = """Filename: /c/a.pem
Status: Used
Serial: 534B484DC3B95BF1F8D27C293BABCE9CE8E855DA
notBefore: Nov 20 13:08:15 2026 GMT
notAfter: Dec 20 13:08:15 2026 GMT
Subject Alternative Name: DNS:a.example, DNS:b.example
SHA1 FingerPrint: D907D70C3626993AFACB9495B2E6DAA03C1CF2A7
Subject: /CN=a.example
"""


def pem(folder: Path, name: str = "a.example") -> str:
    require("openssl")
    cert, key = self_signed(folder, name)
    return cert.read_text() + "\n\n" + key.read_text()


def test_haproxys_words_of_a_certificate():
    """Names, end and fingerprint."""
    expected = Served(
        fingerprint="D907D70C3626993AFACB9495B2E6DAA03C1CF2A7",
        subject="/CN=a.example",
        names=("a.example", "b.example"),
        not_after_s=1797772095.0,
    )

    assert expected == served(TOLD)


def test_a_file_becomes_pem_without_blank_lines(tmp_path: Path):
    """An empty line would end HAProxy's payload."""
    made = parse("a.pem", "# bag attributes\n" + pem(tmp_path))

    assert "\n\n" not in made.pem
    assert "#" not in made.pem
    assert 40 == len(made.fingerprint)


@pytest.mark.parametrize(
    ("name", "cut", "told"),
    [
        ("a b.pem", "", "not a name for a certificate file"),
        ("a.pem", "CERTIFICATE", "no certificate in it"),
        ("a.pem", "PRIVATE KEY", "no private key in it"),
    ],
)
def test_a_bad_file_is_named(tmp_path: Path, name: str, cut: str, told: str):
    """With the reason."""
    text = pem(tmp_path)
    with pytest.raises(Refused, match=told):
        parse(name, text.replace(cut, "RUBBISH") if cut else text)


def test_what_differs_is_told_to_haproxy(tmp_path: Path):
    """New, filled by halves, changed, the same, gone."""
    one = parse("x.pem", pem(tmp_path))
    wanted = dict.fromkeys(("new.pem", "half.pem", "other.pem", "same.pem"), one)
    now = {"/c/half.pem": "", "/c/other.pem": "AA", "/c/same.pem": one.fingerprint, "/c/gone.pem": "BB"}
    rows = [[c.partition("\n")[0] for c in row] for row in changes(now, wanted, "/c", "/l")]

    assert [
        ["set ssl cert /c/half.pem <<", "commit ssl cert /c/half.pem", "add ssl crt-list /l /c/half.pem"],
        [
            "new ssl cert /c/new.pem",
            "set ssl cert /c/new.pem <<",
            "commit ssl cert /c/new.pem",
            "add ssl crt-list /l /c/new.pem",
        ],
        ["set ssl cert /c/other.pem <<", "commit ssl cert /c/other.pem"],
        ["del ssl crt-list /l /c/gone.pem", "del ssl cert /c/gone.pem"],
    ] == rows


def test_the_default_is_first():
    """By its name, else by order."""
    assert "/c/default.pem\n/c/a.pem\n" == crt_list("/c", ["a.pem", "default.pem"])


def test_objections_are_told_apart():
    """What HAProxy does it says in several words."""
    assert "" == objection("Committing /c/a.pem\nSuccess!\n")
    assert "Can't load the payload" in objection("unable to load\nCan't load the payload\n")
    assert "no answer" == objection("")


def test_a_bad_file_leaves_its_last_good_one(tmp_path: Path):
    """Also for the next process, and also when all files are gone."""
    source, folder = tmp_path / "in", tmp_path / "lb" / "certs"
    source.mkdir()
    (source / "a.pem").write_text(pem(tmp_path))
    first = Certificates(source, folder)
    first.load()
    good = (folder / "a.pem").read_text()
    (source / "a.pem").write_text("rubbish")
    changed = first.load()
    second = Certificates(source, folder)
    second.load()
    (source / "a.pem").unlink()
    third = Certificates(source, folder)
    third.load()

    assert (False, good, 0o600) == (changed, (folder / "a.pem").read_text(), (folder / "a.pem").stat().st_mode & 0o777)
    assert ["no certificate in it" in why for c in (first, second) for why in c.problems.values()] == [True, True]
    assert second.any
    assert third.any
    assert "no certificate there" in third.problems[str(source)]


def test_a_pipe_is_no_certificate_and_holds_up_nobody(tmp_path: Path):
    """Opening it would wait for a writer for ever."""
    source = tmp_path / "in"
    source.mkdir()
    os.mkfifo(source / "a.pem")
    found = Certificates(source, tmp_path / "certs")
    found.load()

    assert {str(source / "a.pem"): "a.pem: not a file; nothing is served from it"} == found.problems


def test_a_key_of_another_certificate_is_refused(tmp_path: Path):
    """OpenSSL says so."""
    one = pem(tmp_path)
    other = pem(tmp_path)
    mixed = one[: one.index("-----BEGIN PRIVATE")] + other[other.index("-----BEGIN PRIVATE") :]
    (tmp_path / "m.pem").write_text(mixed)
    found = Certificates(tmp_path / "m.pem", tmp_path / "certs")
    found.load()

    assert not found.any
    assert "m.pem: " in found.problems[str(tmp_path / "m.pem")]
