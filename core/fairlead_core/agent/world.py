"""What every task of an agent shares: the keeper, the disk, accounts, the way to the master."""

from collections.abc import Mapping
from dataclasses import dataclass

import aiohttp

from fairlead_core.agent.adapters.accounts import Accounts
from fairlead_core.agent.adapters.checkpoints import Checkpoints, Meta
from fairlead_core.agent.adapters.keepers import Keepers
from fairlead_core.agent.adapters.resolver import Resolver
from fairlead_core.agent.adapters.sandboxes import Sandboxes
from fairlead_core.agent.identities import Identities
from fairlead_core.agent.outbox import Outbox
from fairlead_core.agent.settings import AgentSettings
from fairlead_daemon.web import Health


@dataclass(slots=True, kw_only=True)
class World:
    settings: AgentSettings
    health: Health
    checkpoints: Checkpoints
    keepers: Keepers
    accounts: Accounts
    sandboxes: Sandboxes
    resolver: Resolver
    identities: Identities
    http: aiohttp.ClientSession
    """For health checks: no cookies, every connection closed after its request."""
    outbox: Outbox
    ip: str
    home_variables: Mapping[str, str]
    meta: Meta
    """Replaced when the agent's id or the epoch changes."""
    port: int = 0
    """Of the agent's HTTP server, once it listens."""
