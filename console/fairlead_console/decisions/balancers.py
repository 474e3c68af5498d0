"""What balancers say of apps, and what the registry says of balancers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

SILENT_S = 35.0
"""A balancer writes its progress every 10 s; three in a row were missed."""

NODE_SILENT = "silent for {age_s:.0f} s: its machine's tasks may reach no service; no kill waits for it"
SILENT = "silent for {age_s:.0f} s: every kill waits its full drain time for it; `fairlead lb forget {id}` ends that"


@dataclass(frozen=True, slots=True, kw_only=True)
class Registration:
    """A registered balancer. `applied` and `age_s` are None when it never said; the age is by its own clock."""

    id: str
    admin: str
    node: bool = False
    """One a machine: no kill waits for it."""
    applied: int | None = None
    age_s: float | None = None

    @property
    def state(self) -> str:
        if self.age_s is None:
            return "unknown"
        return "silent" if self.age_s > SILENT_S else "ok"


def problems_of(status: Mapping[str, Any], app_id: str) -> list[str]:
    """What one app asked for and does not get, from a balancer's `/status`."""
    return [text for service, told in _told(status) if _name(service) == app_id for text in told]


def problems(
    status: Mapping[str, Any], registered: Sequence[Registration], *, unreadable_by_dns: int = 0
) -> list[tuple[str, str]]:
    """(what, problem): services first, then unreadable records, then balancers that are silent.

    Name servers only count the unreadable; without a balancer's names that must do.
    """
    rows = [(_name(service), text) for service, told in _told(status) for text in told]
    if unreadable := sorted(status.get("unreadable") or {}):
        rows.append(("registry", f"{len(unreadable)} unreadable records: {', '.join(unreadable)}"))
    elif unreadable_by_dns:
        rows.append(("registry", f"{unreadable_by_dns} unreadable records; `fairlead registry check` names them"))
    rows += [
        (
            f"balancer {one.id}",
            (NODE_SILENT if one.node else SILENT).format(age_s=one.age_s, id=one.id),
        )
        for one in registered
        if one.state == "silent"
    ]
    return rows


def _told(status: Mapping[str, Any]) -> list[tuple[str, Sequence[str]]]:
    unreadable = status.get("unreadable") or {}
    return [(service, told) for service, told in (status.get("problems") or {}).items() if service not in unreadable]


def _name(service: str) -> str:
    """`marathon:/shop/web` -> `/shop/web`, as those who deployed it know it."""
    name = service.partition(":")[2]
    return name if name.startswith("/") else service
