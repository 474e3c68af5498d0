"""The agent's settings."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import msgspec

from fairlead_daemon.settings import DaemonSettings

ROOTS_DATA = "/var/lib/fairlead"
PORT = 5051


def default_data_dir() -> str:
    return ROOTS_DATA if os.geteuid() == 0 else ".fairlead"


class AgentSettings(DaemonSettings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What an agent can be told. Agents on one machine need a `data_dir`, a `port` and ports in `resources` each."""

    data_dir: str = msgspec.field(default_factory=default_data_dir)
    """Sandboxes, checkpoints and the keeper live below it. As root /var/lib/fairlead: task users must reach it."""
    port: int = PORT
    """Port of the agent's HTTP server, Mesos' own."""
    master: str = ""
    """`host:port` of a master. Empty: the leader is found through the registry."""
    hostname: str = ""
    """Name in offers and constraints. Empty: the machine's."""
    ip: str = ""
    """Address of tasks in names and balancers. Empty: `host`, or if that is a wildcard, the machine's own address."""
    resources: str = ""
    """As Mesos' --resources, `cpus:4;mem:8192;ports:[31000-31999]`. What is left out is detected; ports 31000-32000."""
    attributes: Mapping[str, str] = msgspec.field(default_factory=dict)
    """For constraints: numbers become SCALAR, the rest TEXT."""
    zone: str = ""
    """Fault domain, given on in offers and endpoints."""
    region: str = ""
    """Fault domain above the zone."""
    dns_address: str = ""
    """First name server in tasks' own resolv.conf, on port 53. Empty: their resolv.conf is left alone."""
    allow_root_tasks: bool = False
    """Whether a task whose user is root runs as root. Without it, it runs as `task_user`."""
    task_user: str = ""
    """User of tasks that name none, when the agent is root. Empty: SUDO_USER, else nobody."""
    log_limit_mb: int = 64
    """A task's stdout or stderr beyond it is moved to `stdout.1`, and what was there before is dropped."""
    identities: Literal["asked", "all", "off"] = "asked"
    """Which tasks get a certificate: those whose label asks, all of them, none (a task that asks is refused then)."""
    identity_wait_s: float = 10.0
    """How long the launch of a task whose label asks waits for it, before it fails with the reason."""
    mesh: str = ""
    """`host:port` of this machine's balancer for callers with a certificate; told to tasks that have one."""
    mesh_tcp: str = ""
    """The same for TCP services."""
    sandbox_keep_s: float = 7 * 24 * 3600.0
    """How long the sandbox of an ended task stays. Mesos kept it a week."""

    def folder(self) -> Path:
        return Path(self.data_dir).absolute()
