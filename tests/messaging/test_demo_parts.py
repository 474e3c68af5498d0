"""The demo's messages without a broker: why there are none, and that what the apps import is all they need."""

import subprocess
import tomllib
from pathlib import Path

import pytest

from fairlead_console.demo import brokers
from fairlead_console.up import demonstrate_messages
from fairlead_messaging.decisions.declared import read


def test_without_rabbitmq_it_says_how(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """The demo goes on without messages."""
    monkeypatch.setattr(brokers, "SERVER", tmp_path / "absent")

    assert "make up ARGS=--with-rabbitmq" in demonstrate_messages.why_not("auto")
    assert "demo_brokers is off" == demonstrate_messages.why_not("off")


def test_its_topology_can_be_read():
    """With the two brokers that are its apps."""
    found = read(tomllib.loads(brokers.TOPOLOGY), where="demo")

    assert {brokers.EAST, brokers.WEST} == {broker.service for broker in found.brokers.values()}


def test_the_apps_need_nothing_but_what_is_copied(tmp_path: Path):
    """A task's user may not reach our environment: the system's Python runs a Bus from the copies alone."""
    demonstrate_messages.copy_library(tmp_path / "lib")
    done = subprocess.run(
        ["/usr/bin/env", "-i", f"PYTHONPATH={tmp_path / 'lib'}", "/usr/bin/python3", "-S", "-c", "from fairlead_messaging import Bus; print(Bus.__name__)"],
        capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip

    assert ("Bus\n", "") == (done.stdout, done.stderr)
    assert 0o644 == (tmp_path / "lib" / "pika" / "channel.py").stat().st_mode & 0o777
