"""What an agent has to offer: what it was told, completed by what was found."""

from collections.abc import Mapping
from typing import Any

from fairlead_core import resources
from fairlead_core.resources import Resources

DEFAULT_PORTS = "ports:[31000-32000]"
GIGABYTE_MB = 1024


def complete(text: str, *, cpus: float, mem_mb: float, disk_mb: float) -> Resources:
    """`text` as Mesos' --resources; kinds it does not name are detected. Raises Refused naming the item."""
    given = resources.parse(text)
    found = {
        "cpus": f"cpus:{cpus:g}",
        "mem": f"mem:{spare(mem_mb, reserve_mb=GIGABYTE_MB):.0f}",
        "disk": f"disk:{spare(disk_mb, reserve_mb=5 * GIGABYTE_MB):.0f}",
        "ports": DEFAULT_PORTS,
    }
    missing = [item for name, item in found.items() if name not in given.names()]
    return given + resources.parse(";".join(missing))


def spare(total_mb: float, *, reserve_mb: float) -> float:
    """Mesos' rule: a reserve is left to the machine, of a small one half."""
    return total_mb - reserve_mb if total_mb > 2 * reserve_mb else total_mb / 2


def attributes(given: Mapping[str, str]) -> tuple[dict[str, Any], ...]:
    return tuple(_attribute(name, text) for name, text in sorted(given.items()))


def _attribute(name: str, text: str) -> dict[str, Any]:
    try:
        return {"name": name, "type": "SCALAR", "scalar": {"value": float(text)}}
    except ValueError:
        return {"name": name, "type": "TEXT", "text": {"value": text}}
