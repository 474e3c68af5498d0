"""An offer, from Mesos' JSON."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fairlead_core.resources import Range, Resources, from_mesos
from fairlead_core.services.decisions.constraints import Place
from fairlead_daemon.errors import Refused


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """`leaves_s`: when the agent's maintenance begins, None when there is none. `role` is what it is allocated to."""

    id: str
    agent: str
    place: Place
    resources: Resources
    role: str = "*"
    leaves_s: float | None = None


def from_json(value: Mapping[str, Any]) -> Offer:
    """Raises Refused when it is no offer."""
    try:
        fault = (value.get("domain") or {}).get("fault_domain") or {}
        return Offer(
            id=value["id"]["value"],
            agent=value["agent_id"]["value"],
            place=Place(
                hostname=value["hostname"],
                attributes={a["name"]: attribute_text(a) for a in value.get("attributes") or ()},
                zone=(fault.get("zone") or {}).get("name", ""),
                region=(fault.get("region") or {}).get("name", ""),
            ),
            resources=from_mesos(value.get("resources") or ()),
            role=(value.get("allocation_info") or {}).get("role", "*"),
            leaves_s=start_s(value.get("unavailability")),
        )
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise Refused(f"offer: {error!r}") from error


def start_s(unavailability: Mapping[str, Any] | None) -> float | None:
    if unavailability is None:
        return None
    return float((unavailability.get("start") or {}).get("nanoseconds", 0)) / 1e9


def attribute_text(attribute: Mapping[str, Any]) -> str:
    """As in Mesos' flags: `r1`, `0.8`, `[1-5]`, `{a,b}`."""
    if "text" in attribute:
        return str(attribute["text"]["value"])
    if "scalar" in attribute:
        return f"{float(attribute['scalar']['value']):g}"
    if "ranges" in attribute:
        return "[" + ",".join(f"{r['begin']}-{r['end']}" for r in attribute["ranges"]["range"]) + "]"
    return "{" + ",".join((attribute.get("set") or {}).get("item", ())) + "}"


def port_count(ranges: tuple[Range, ...]) -> int:
    return sum(end - begin + 1 for begin, end in ranges)
