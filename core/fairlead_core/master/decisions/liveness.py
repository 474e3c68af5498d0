"""How long an agent may be silent before its endpoints are withdrawn, and before its tasks are given up."""

from dataclasses import dataclass

from fairlead_core.agent_protocol import RESTART_GRACE_S, SUSPECT_S, UNREACHABLE_S


@dataclass(frozen=True, slots=True, kw_only=True)
class Signs:
    """What is known of an agent. `closed`: its stream was closed by a machine that answers, or it said goodbye.

    An agent that has not registered with this leader yet is `heard_s` when the leader took over, and `closed` while
    it is announced in the registry: then it lives, and has only not found us yet.
    """

    heard_s: float
    closed: bool = False
    suspect: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    suspect: bool
    unreachable: bool


def judge(signs: Signs, *, now_s: float, leading_since_s: float) -> Verdict:
    """A suspect stays one until it is heard again. A new leader suspects nobody in its first SUSPECT_S."""
    silent_s = now_s - signs.heard_s
    patience_s = RESTART_GRACE_S if signs.closed else SUSPECT_S
    settled = now_s - leading_since_s >= SUSPECT_S
    return Verdict(suspect=settled and (signs.suspect or silent_s >= patience_s), unreachable=silent_s >= UNREACHABLE_S)
