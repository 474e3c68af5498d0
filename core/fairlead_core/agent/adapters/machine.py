"""What the kernel says of this machine."""

import os
import shutil
import socket
from pathlib import Path

from fairlead_core.agent.decisions import inventory
from fairlead_core.agent.settings import AgentSettings
from fairlead_core.resources import Resources
from fairlead_daemon.errors import BadSettings, Refused

WILDCARDS = frozenset({"0.0.0.0", "::", ""})  # compared with, not bound
MEGABYTE = 1024 * 1024
_KEPT_VARIABLES = ("LANG", "LC_ALL", "TZ")


def our_resources(settings: AgentSettings) -> Resources:
    """Raises BadSettings naming the key."""
    try:
        return inventory.complete(
            settings.resources,
            cpus=len(os.sched_getaffinity(0)),
            mem_mb=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / MEGABYTE,
            disk_mb=shutil.disk_usage(_existing(settings.folder())).total / MEGABYTE,
        )
    except Refused as error:
        raise BadSettings(str(error)) from error


def _existing(folder: Path) -> Path:
    while not folder.exists():
        folder = folder.parent
    return folder


def our_ip(settings: AgentSettings) -> str:
    if settings.ip:
        return settings.ip
    return _outward_ip() if settings.host in WILDCARDS else _resolved(settings.host)


def _resolved(host: str) -> str:
    try:
        return socket.gethostbyname(host) if ":" not in host else host
    except OSError as error:
        raise BadSettings(f"host: {host}: {error.strerror or error}") from error


def _outward_ip() -> str:
    """The address this machine would speak to others from; nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
            return str(probe.getsockname()[0])
        except OSError:
            return "127.0.0.1"


def our_hostname(settings: AgentSettings) -> str:
    return settings.hostname or socket.gethostname()


def home_variables() -> dict[str, str]:
    """What tasks get of the agent's own environment: language and time zone."""
    return {name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ}
