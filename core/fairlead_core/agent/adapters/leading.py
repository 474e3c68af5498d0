"""Where the leading master is: a setting, or the registry's word."""

import asyncio

from fairlead_discovery.leaders import masters
from fairlead_discovery.registry import Registry


class Leader:
    """`address` is `host:port`, "" while nobody is known to lead. `changed` is set at every change."""

    def __init__(self, fixed: str) -> None:
        self._fixed = fixed
        self.address = fixed
        self.changed = asyncio.Event()

    def set(self, address: str) -> None:
        if address != self.address:
            self.address = address
            self.changed.set()

    def lost(self) -> None:
        """Whoever we were sent to does not answer: the setting is asked again."""
        self.address = self._fixed or self.address

    async def follow(self, registry: Registry) -> None:
        """For ever. Nobody leading keeps the last address: its stream may live on, and it may lead again."""
        async for master in masters(registry):
            if master is not None:
                self.set(joined(master.address.ip or master.address.hostname, master.address.port))


def joined(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
