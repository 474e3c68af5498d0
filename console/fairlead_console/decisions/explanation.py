"""The scheduler's explanation of an app (`GET /fairlead/explain?app=`) as sentences."""

from collections.abc import Mapping, Sequence
from typing import Any


def sentences(told: Mapping[str, Any]) -> list[str]:
    """To be completed with the scheduler's answer."""
    found = told.get("reasons") or told.get("why") or told.get("summary") or ()
    return [found] if isinstance(found, str) else [str(s) for s in found] if isinstance(found, Sequence) else []
