"""Settings: unknown keys are refused, every error names file and key."""

from pathlib import Path

import pytest

from fairlead_daemon.errors import BadSettings
from fairlead_daemon.main import Context, Daemon, main
from fairlead_daemon.settings import DaemonSettings, load, parse_override
from fairlead_daemon.tokens import ensure_token, read_token, wanted


class Example(DaemonSettings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    ttl_s: int = 5


def written(folder: Path, text: str) -> Path:
    file = folder / "x.toml"
    file.write_text(text)
    return file


def test_the_file_is_read_and_options_win(tmp_path: Path):
    """`--set` beats the file, the file beats the default."""
    settings = load(Example, file=written(tmp_path, 'ttl_s = 7\nhost = "127.0.0.2"\n'), overrides=["ttl_s=9"])

    assert (9, "127.0.0.2", 0) == (settings.ttl_s, settings.host, settings.port)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("ttl = 5", "ttl"),
        ('ttl_s = "five"', "ttl_s"),
        ("ttl_s = ", "x.toml"),
        ("ttl_s = 5\nttl_s = 6", "x.toml"),
        ('token = "maybe"', "token"),
        ("host = [1]", "host"),
    ],
)
def test_an_error_names_the_file_and_the_key(tmp_path: Path, text: str, named: str):
    """A person must know what to edit."""
    with pytest.raises(BadSettings) as error:
        load(Example, file=written(tmp_path, text))

    assert named in str(error.value)
    assert "x.toml" in str(error.value)


def test_a_missing_file_is_named(tmp_path: Path):
    """Not a traceback."""
    with pytest.raises(BadSettings, match=r"nothing\.toml"):
        load(Example, file=tmp_path / "nothing.toml")


@pytest.mark.parametrize(
    ("text", "expected"),
    [("a=5", ("a", 5)), ("a=x:y", ("a", "x:y")), ('a=["b"]', ("a", ["b"])), ("a=1=2", ("a", "1=2"))],
)
def test_overrides_are_toml_or_plain_text(text: str, expected: object):
    """So that `--set registry=zk://h:1` needs no quotes in quotes."""
    assert expected == parse_override(text)


PASSWD = "root:x:0:0::/root:/bin/bash\nnobody:x:65534:65534::/:/usr/sbin/nologin\n"


@pytest.mark.parametrize(
    ("mode", "passwd", "expected"),
    [
        ("auto", PASSWD, False),
        ("auto", PASSWD + "ann:x:1000:1000::/home/ann:/bin/bash\n", True),
        ("auto", PASSWD + "svc:x:1001:1001::/srv:/bin/false\n", False),
        ("off", PASSWD + "ann:x:1000:1000::/home/ann:/bin/bash\n", False),
        ("on", PASSWD, True),
    ],
)
def test_the_token_is_on_by_default_when_another_account_can_log_in(mode: str, passwd: str, expected: bool):
    """Whoever shares the machine must not deploy."""
    assert expected == wanted(DaemonSettings(token=mode), passwd=passwd, own_uid=0)


def test_the_token_is_made_once_with_mode_0600(tmp_path: Path):
    """All daemons of a data directory share it."""
    settings = DaemonSettings(data_dir=str(tmp_path), token="on")

    first, second = ensure_token(settings), ensure_token(settings)

    assert first == second
    assert len(first) >= 30
    assert 0o600 == (tmp_path / "token").stat().st_mode & 0o777


def test_a_token_others_can_read_is_refused(tmp_path: Path):
    """A secret everybody knows is none."""
    file = written(tmp_path, "abc")
    file.chmod(0o644)

    with pytest.raises(BadSettings, match="chmod 600"):
        read_token(file)


def test_a_flag_sets_its_key_to_true(capsys: pytest.CaptureFixture[str]):
    """`--token-on` without a value; a file and `--set` may say the same."""

    class Flagged(DaemonSettings, frozen=True, kw_only=True, forbid_unknown_fields=True):
        token_on: bool = False

    async def run(_settings: Flagged, _context: Context) -> None:
        raise AssertionError("--check starts nothing")

    daemon = Daemon(name="x", summary="", settings=Flagged, run=run, flags={"token_on": "what for"})
    codes = [main(daemon, [*arguments, "--check"]) for arguments in ([], ["--token-on"], ["--set", "token_on=true"])]
    said = capsys.readouterr().out

    assert [0, 0, 0] == codes
    assert (1, 2) == (said.count('"token_on": false'), said.count('"token_on": true'))
