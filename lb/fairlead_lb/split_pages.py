"""What `/status` says of splits, failovers, canaries and routers."""

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from fairlead_daemon.errors import Refused
from fairlead_discovery.policies import AnyPolicy, Canary, CanaryStage, Router, name_of, of_kind
from fairlead_lb.decisions import buckets
from fairlead_lb.decisions.canary import ABORTED, PROMOTED, checked
from fairlead_lb.decisions.splits import Way, percent_of, refusal, split_of
from fairlead_lb.decisions.values import Admin, Key, Slots
from fairlead_lb.state import State


def splits_of(state: State, slots: Mapping[str, Slots], service: str = "") -> list[Mapping[str, Any]]:
    """By service and port; "": of all services. What `slots` lacks is as last read."""
    if not state.wanted.ways:
        return []
    ready = _ready(state, {**(state.serving.slots if state.serving is not None else {}), **slots})
    pinned = state.serving.maps.pins if state.serving is not None else {}
    names = {b.key: name for name, b in state.wanted.backends.items()}
    return [
        {
            "service": key.service,
            "port_index": key.index,
            "by": way.why,
            "sticky": way.sticky,
            "ready": ready.get(key, 0),
            "rest_percent": (buckets.BUCKETS - sum(size for _, size in way.shares)) / 100,
            "shares": list(_shares(way, ready)),
            "failover": _failover(key, way, ready, held=names.get(key, "") in pinned),
        }
        for key, way in sorted(state.wanted.ways.items())
        if service in ("", key.service)
    ]


def _shares(way: Way, ready: Mapping[Key, int]) -> Iterator[Mapping[str, Any]]:
    for to, size in way.shares:
        servers = ready.get(to, 0)
        yield {
            "service": to.service,
            "port_index": to.index,
            "percent": size / 100,
            "ready": servers,
            "falls_back": bool(size) and not servers,
        }


def _failover(key: Key, way: Way, ready: Mapping[Key, int], *, held: bool) -> Mapping[str, Any] | None:
    """`to` in order; `active` is who answers now instead of the service, `held` that it could answer again."""
    if not way.falls:
        return None
    enough = ready.get(key, 0) >= way.min_ready
    answers = next((to.service for to in way.falls if ready.get(to, 0)), "") if held or not enough else ""
    return {
        "to": [{"service": to.service, "port_index": to.index, "ready": ready.get(to, 0)} for to in way.falls],
        "min_ready": way.min_ready,
        "active": answers,
        "held": held and enough,
    }


def _ready(state: State, slots: Mapping[str, Slots]) -> Mapping[Key, int]:
    serving = state.serving
    owners = serving.structure.owners if serving is not None else {}
    return {
        key: sum(s.admin is Admin.READY and s.up and not s.empty for s in slots.get(name, {}).values())
        for name, key in owners.items()
    }


def routers_of(state: State) -> list[Mapping[str, Any]]:
    """Every router that counts: its record, and which port and backend each leg leads to (none: it answers 503).
    `in_force`: whether HAProxy looks at it, as it does after its reload.
    """
    names = {b.key: name for name, b in state.wanted.backends.items()}
    served = {r.id for r in state.serving.structure.routers} if state.serving is not None else set()
    return [
        {
            "service": key.service,
            "port_index": key.index,
            "in_force": lead.front.id in served,
            "router": msgspec.to_builtins(state.wanted.kept[name_of(Router(service=key.service))]),
            "to": [
                {"service": k.service, "port_index": k.index, "backend": names[k]} if k is not None else None
                for k in lead.to
            ],
        }
        for key, lead in sorted(state.wanted.leads.items())
    ]


def canaries_of(policies: Mapping[str, AnyPolicy], modes: Mapping[Key, str] | None = None) -> list[Mapping[str, Any]]:
    """Every canary and how far it is; one that is refused with the reason. `modes`: see `splits.refusal`."""
    stages = of_kind(policies, CanaryStage)
    return [_canary(c, stages.get(service), modes) for service, c in sorted(of_kind(policies, Canary).items())]


def _canary(canary: Canary, stage: CanaryStage | None, modes: Mapping[Key, str] | None) -> Mapping[str, Any]:
    current = stage if stage is not None and stage.id == canary.id else None
    refused = refusal(split_of(canary, current), modes)
    state = current.state if current is not None else "waiting"
    reason = current.reason if current is not None else "the leading balancer has not seen it yet"
    return {
        "service": canary.service,
        "port_index": canary.index,
        "to": canary.to.service,
        "to_index": canary.to.index,
        "order": canary.order,
        "state": "refused" if refused else state,
        "percent": 0.0 if refused else percent_of(canary, current),
        "step": current.step + 1 if current is not None else 0,
        "steps": list(canary.steps),
        "reason": refused or _held(canary, state) or reason,
        "since_s": current.since_s if current is not None else 0.0,
    }


def _held(canary: Canary, state: str) -> str:
    """Why it goes no further, of what was ordered; "" when it may."""
    try:
        checked(canary)
    except Refused as error:
        return "" if state in (PROMOTED, ABORTED) else f"it goes no further: {error}"
    return ""
