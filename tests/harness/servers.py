"""A server process of a test: its own session, its log in a file, ended by pid with everything it started."""

import os
import shutil
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import pytest

from harness.waiting import wait_until


def require(program: str) -> str:
    """Path of a program. Missing: the test is skipped on a laptop, failed under CI."""
    for folder in (None, "/usr/sbin:/usr/lib/zookeeper/bin:/usr/local/sbin:/sbin"):
        if found := shutil.which(program, path=folder):
            return found
    missing(f"{program} is not installed")
    raise AssertionError  # not reached: missing() raises


def missing(reason: str) -> None:
    if os.environ.get("CI"):
        pytest.fail(f"{reason}, and CI demands it")
    pytest.skip(reason)


@dataclass
class Server:
    """Started by start(), paused by pause(), killed by kill() (SIGKILL), ended by stop() (SIGTERM, then SIGKILL)."""

    command: Sequence[str]
    log: Path
    env: Mapping[str, str] = field(default_factory=dict)
    cwd: Path | None = None
    process: "subprocess.Popen[bytes] | None" = None

    def start(self) -> Self:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **self.env},
                cwd=self.cwd,
                start_new_session=True,
            )
        return self

    @property
    def pid(self) -> int:
        assert self.process is not None, "not started"
        return self.process.pid

    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def pause(self) -> None:
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def kill(self) -> None:
        if self.running():
            os.kill(self.pid, signal.SIGKILL)
        if self.process is not None:
            self.process.wait(10)

    def stop(self, *, grace_s: float = 10.0) -> int | None:
        """Exit code."""
        if self.process is None:
            return None
        if self.running():
            os.kill(self.pid, signal.SIGCONT)
            os.kill(self.pid, signal.SIGTERM)
        try:
            return self.process.wait(grace_s)
        except subprocess.TimeoutExpired:
            os.killpg(self.pid, signal.SIGKILL)
            return self.process.wait(10)

    def tail(self, lines: int = 30) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def wait_ready(self, what: str, probe: "object", *, within_s: float = 20.0) -> Self:
        """`probe` is a callable; a server that ended meanwhile fails with its log."""
        assert callable(probe)

        def check() -> object:
            if not self.running():
                raise RuntimeError(
                    f"{what} ended with {self.process.returncode if self.process else '?'}:\n{self.tail()}"
                )
            return probe()

        wait_until(what, check, within_s=within_s)
        return self
