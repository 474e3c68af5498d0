"""Backoff, files, processes, logs."""

import io
import logging
import os
import signal
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead_daemon import logs
from fairlead_daemon.backoff import Backoff
from fairlead_daemon.files import replace_file
from fairlead_daemon.processes import Identity, alive, command_line, identify, neighbours, send_signal
from harness.waiting import wait_until


@given(st.integers(0, 10_000), st.floats(0, 1))
def test_backoff_never_waits_longer_than_its_cap_nor_less_than_half_the_first(attempt: int, chance: float):
    """However often it failed."""
    delay_s = Backoff(first_s=0.1, factor=2, most_s=5).delay_s(attempt, chance=chance)

    assert 0.05 <= delay_s <= 5


def test_backoff_grows():
    """0.1, 0.2, 0.4 … at full chance."""
    assert [0.1, 0.2, 0.4] == [Backoff().delay_s(n, chance=1.0) for n in range(3)]


def test_a_replaced_file_has_its_mode_and_leaves_nothing_beside(tmp_path: Path):
    """Written beside, renamed over."""
    file = tmp_path / "deep" / "token"
    replace_file(file, b"one", mode=0o600)
    replace_file(file, b"two", mode=0o600)

    assert b"two" == file.read_bytes()
    assert 0o600 == file.stat().st_mode & 0o777
    assert ["token"] == [p.name for p in file.parent.iterdir()]


def test_a_failed_replacement_leaves_the_old_file(tmp_path: Path):
    """The target is a folder: the rename fails, nothing is left beside it."""
    (tmp_path / "x" / "y").mkdir(parents=True)

    with pytest.raises(OSError):
        replace_file(tmp_path / "x", b"data")

    assert ["x"] == [p.name for p in tmp_path.iterdir()]


def test_a_process_is_itself_and_not_who_gets_its_pid_next():
    """Pid and start time together."""
    own = identify(os.getpid())
    assert own is not None

    assert alive(own)
    assert not alive(Identity(own.pid, own.start_ticks - 1))
    assert not send_signal(Identity(own.pid, own.start_ticks - 1), signal.SIGKILL)


def test_an_ended_child_is_not_alive_even_before_it_is_reaped():
    """A zombie runs no more."""
    child = subprocess.Popen(["sleep", "60"])
    identity = identify(child.pid)
    assert identity is not None

    assert send_signal(identity, signal.SIGKILL)
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)

    assert not alive(identity)
    child.wait()
    assert not send_signal(identity, signal.SIGKILL)


def test_a_log_line_cannot_be_forged_by_a_value():
    """Newlines, quotes and escapes of a peer stay inside their field."""
    stream = io.StringIO()
    old = logging.getLogger().handlers[:]
    try:
        logs.set_up("info", stream)
        logs.Log("dns").info("asked", name='x"\n2026-01-01 error forged', plain="a.b", ratio=0.123456789, none="")
    finally:
        logging.getLogger().handlers[:] = old

    line = stream.getvalue()
    assert 1 == line.count("\n")
    assert ' info dns asked name="x\\"\\n2026-01-01 error forged" plain=a.b ratio=0.123457 none=""' in line


@pytest.mark.skipif(os.geteuid() != 0, reason="another root directory needs root")
def test_a_process_with_another_root_is_no_neighbour(tmp_path: Path):
    """The same path in its command line names another file: two containers of one machine never meddle."""
    here = subprocess.Popen(["sleep", "60"])
    there = subprocess.Popen(
        ["unshare", "--mount", "sh", "-c", f"mount --bind / {tmp_path} && exec chroot {tmp_path}/usr /bin/sleep 60"]
    )
    try:
        wait_until("it sleeps", lambda: command_line(there.pid)[0] == b"/bin/sleep")

        assert here.pid in set(neighbours())
        assert there.pid not in set(neighbours())
        assert here.pid not in set(neighbours(tmp_path / "none"))
    finally:
        for child in (here, there):
            child.kill()
            child.wait()
