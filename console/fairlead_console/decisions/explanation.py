"""The scheduler's explanation of an app (`GET /fairlead/explain?app=`), as people read it."""

from collections.abc import Mapping
from typing import Any


def sentences(told: Mapping[str, Any]) -> list[str]:
    """Most important first; none when the scheduler said none."""
    return [str(sentence) for sentence in told.get("reasons") or ()]


def refusals(told: Mapping[str, Any]) -> list[tuple[str, str, str, str]]:
    """Why each agent cannot take an instance: (agent, host, reason, detail)."""
    return [
        (str(a.get("agent", "?")), str(a.get("host", "?")), str(a.get("reason", "?")), str(a.get("detail", "")))
        for a in told.get("agents") or ()
    ]
