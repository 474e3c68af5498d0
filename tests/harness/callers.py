"""HAProxy's way through the maps that say who may call whom."""

from collections.abc import Mapping

from fairlead_discovery.decisions import identity
from fairlead_discovery.decisions.identity import ANONYMOUS, word
from fairlead_lb.decisions.intentions import ALLOW, ANYBODY, OTHERS, RULES, Compiled, decoded


def looked_up(found: Compiled, service: str, caller: str, method: str, path: str) -> bool:
    """Whether the request goes on."""
    head = f"{word(service)}="
    name = caller if caller in (ANYBODY, ANONYMOUS) else identity.common_name(caller)
    verdict = found.verdicts.get(head + name)
    if verdict is None and caller != ANONYMOUS:
        verdict = found.verdicts.get(f"{head}{ANYBODY}")
    if verdict is not None and verdict.startswith(RULES):
        judged = decoded(path)
        if judged is None:
            return False
        tables = (f"{verdict}{whose}{judged}/" for whose in (method, OTHERS))
        verdict = next(filter(None, (_longest(found.rules, text) for text in tables)), None)
    return verdict == ALLOW


def _longest(rules: Mapping[str, str], text: str) -> str | None:
    """`map_beg`, whose longest entry HAProxy finds."""
    entry = max((k for k in rules if text.startswith(k)), key=len, default=None)
    return None if entry is None else rules[entry]
