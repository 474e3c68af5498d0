"""An agent that is wanted no more leaves as a machine does: drained first, so that no request is lost, then gone."""

import asyncio
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fairlead_console.addresses import Addresses
from fairlead_console.decisions.nodes import address
from fairlead_console.up import children
from fairlead_console.up.screen import Screen
from fairlead_daemon.client import call, make_session
from fairlead_daemon.errors import FairleadError
from fairlead_daemon.processes import Identity

PATIENCE_S = 60.0
NANOSECONDS = 1_000_000_000


async def retire(name: str, agent: Identity, addresses: Addresses, screen: Screen) -> None:
    """Returns when it has exited, or draining took too long; its end is the caller's then."""
    place = _place(Path(addresses.data_dir) / "etc" / f"{name}.toml")
    async with make_session(addresses.token_path) as session:
        try:
            known = (await call(session, "GET", f"{addresses.master}/slaves"))["slaves"]
            mine = next((a for a in known if address(a) == place), None)
            if mine is None:
                return
            await call(session, "POST", f"{addresses.master}/api/v1", body=drain_call(mine))
            screen.step(name, "wanted no more: its tasks move to the others", style="note")
            async with asyncio.timeout(PATIENCE_S):
                await children.gone(agent)
        except (FairleadError, TimeoutError) as error:
            screen.step(name, f"could not be drained ({str(error) or 'too slow'}), ended as it is", style="bad")


def _place(settings: Path) -> str:
    """`127.0.0.1:5053`, from what the agent was told at its start; "" when that cannot be read."""
    try:
        values = tomllib.loads(settings.read_text(encoding="utf-8"))
    except (OSError, tomllib.TOMLDecodeError):
        return ""
    return f"{values.get('host', '127.0.0.1')}:{values.get('port', '')}"


def drain_call(agent: Mapping[str, Any]) -> Mapping[str, Any]:
    """Mesos' DRAIN_AGENT, after which the agent is gone for good."""
    grace = {"nanoseconds": round(PATIENCE_S / 2 * NANOSECONDS)}
    drain = {"agent_id": {"value": agent["id"]}, "max_grace_period": grace, "mark_gone": True}
    return {"type": "DRAIN_AGENT", "drain_agent": drain}
