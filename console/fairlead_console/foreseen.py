"""What registered balancers say that a change of routes would cost them: runtime commands, or a reload and why."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fairlead_console.use import Calls
from fairlead_daemon.errors import FairleadError

WAIT_S = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Foreseen:
    """`error` when the balancer did not say."""

    balancer: str
    reload: Sequence[str] = ()
    commands: Sequence[str] = ()
    refused: Mapping[str, str] = field(default_factory=dict)
    error: str = ""

    def lines(self) -> Sequence[str]:
        """For a person."""
        if self.error:
            return (f"{self.balancer}: does not say: {self.error}",)
        told = f"{len(self.commands)} runtime command{'' if len(self.commands) == 1 else 's'}"
        cost = f"a reload ({'; '.join(self.reload)})" if self.reload else f"{told}, no reload"
        refused = [f"{self.balancer}: refuses {service}: {why}" for service, why in sorted(self.refused.items())]
        return (f"{self.balancer}: {cost}", *refused)


async def ask(calls: Calls, balancers: Sequence[tuple[str, str]], change: Mapping[str, Any]) -> Sequence[Foreseen]:
    """`balancers`: id and URL of the admin pages; `change`: routes and policies by name, None for what goes."""
    return await asyncio.gather(*(_ask(calls, name, admin, change) for name, admin in balancers))


async def _ask(calls: Calls, name: str, admin: str, change: Mapping[str, Any]) -> Foreseen:
    try:
        async with asyncio.timeout(WAIT_S):
            said = await calls.url("POST", f"{admin}/fairlead/plan", change)
        return Foreseen(balancer=name, **{key: said[key] for key in ("reload", "commands", "refused")})
    except (FairleadError, TimeoutError, TypeError, KeyError) as error:
        return Foreseen(balancer=name, error=str(error) or "no answer in time")
