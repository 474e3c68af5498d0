"""`fairlead check-zone`, on real files."""

import json

import pytest

from fairlead_console.cli import run_verb

HEAD = "$TTL 60\n@ SOA ns root 7 3600 600 86400 5\n@ NS ns\nns A 10.0.0.1\n"


def test_a_good_zone_is_summed_up(tmp_path, capsys):
    """With what is doubtful; also as JSON."""
    file = tmp_path / "file.test.zone"
    file.write_text(HEAD + "a MX 1 b\n$INCLUDE more.inc\n")
    (tmp_path / "more.inc").write_text("c A 10.0.0.2\nc A 10.0.0.3\n")

    assert 0 == run_verb(["check-zone", str(file)])
    assert (
        "file.test: serial 7, 4 names, 6 records\ndoubtful: file.test.zone:5: b.file.test has no address\n"
        == capsys.readouterr().out
    )
    assert 0 == run_verb(["check-zone", str(file), "--json"])
    assert 6 == json.loads(capsys.readouterr().out)["records"]


def test_aliases_in_a_circle_are_doubtful(tmp_path, capsys):
    """Whoever asks for one gets no address."""
    file = tmp_path / "file.test.zone"
    file.write_text(HEAD + "a CNAME b\nb CNAME a\n")

    assert 0 == run_verb(["check-zone", str(file)])
    assert "doubtful: file.test.zone:5: a.file.test has no end: its aliases lead back" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("domains", "doubt"),
    [
        (
            ["mesos", "test"],
            "doubtful: file.test lies within test, served from endpoints: their names there are hidden\n",
        ),
        (["File.test."], "doubtful: file.test is served from endpoints: the file is not served\n"),
        (["mesos", "x.file.test", "e.test"], ""),
    ],
)
def test_a_zone_that_would_hide_names_of_endpoints_is_doubtful(tmp_path, capsys, domains, doubt):
    """When the domains of the name server are told."""
    file = tmp_path / "file.test.zone"
    file.write_text(HEAD)

    assert 0 == run_verb(["check-zone", str(file), *(f"--domain={domain}" for domain in domains)])
    assert doubt == capsys.readouterr().out.partition("\n")[2]


@pytest.mark.parametrize(
    ("text", "arguments", "code", "reason"),
    [
        ("a A 10.0.0", [], 1, "fairlead: file.test.zone:5: "),
        ("", ["--zone", "x..y"], 2, "fairlead: x..y is no domain name"),
        ("$GENERATE 1-3/0 h$ A 1.2.3.4", [], 1, "file.test.zone:5: $GENERATE: 1-3/0: STEP is less than 1"),
        ("a.other.test. A 10.0.0.1", [], 1, "is outside of the zone"),
        ("$INCLUDE ../../etc/hostname", [], 1, "lies outside of zones_dir"),
    ],
)
def test_a_bad_one_is_refused_with_the_reason(tmp_path, capsys, text, arguments, code, reason):
    """One line, and an exit code that scripts see."""
    file = tmp_path / "file.test.zone"
    file.write_text(HEAD + text)

    assert code == run_verb(["check-zone", str(file), *arguments])
    assert reason in capsys.readouterr().err
