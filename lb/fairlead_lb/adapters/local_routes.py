"""Networks whose every address is this machine's own: `ip route add local NETWORK dev lo`. 127.0.0.0/8 is so already."""

import asyncio
import os
from collections.abc import Iterator
from ipaddress import IPv4Network

from fairlead_daemon.errors import BadSettings
from fairlead_lb.decisions.vips import LOOPBACK, VipRules

WAIT_S = 10.0


def needed(rules: VipRules | None) -> Iterator[IPv4Network]:
    """Of all that VIPs may have."""
    for network in (rules.network, *rules.literal) if rules is not None else ():
        if not network.subnet_of(LOOPBACK):
            yield network


async def add(network: IPv4Network) -> None:
    """There already is as good. Raises BadSettings saying what is missing."""
    if os.geteuid() != 0:
        raise BadSettings(
            f"vip_range, ip_vips: {network} is not in {LOOPBACK}: only root can make it this machine's own"
        )
    if said := await _ip("route", "replace", "local", str(network), "dev", "lo"):
        raise BadSettings(f"vip_range, ip_vips: {network}: {said}")


async def remove(network: IPv4Network) -> None:
    await _ip("route", "del", "local", str(network), "dev", "lo")


async def _ip(*arguments: str) -> str:
    """What `ip` says against it, "" when nothing."""
    try:
        process = await asyncio.create_subprocess_exec(
            "ip", *arguments, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE
        )
        async with asyncio.timeout(WAIT_S):
            _, said = await process.communicate()
    except (OSError, TimeoutError) as error:
        return f"ip: {error or 'no answer'}"
    return (said.decode("utf-8", "replace").strip() or f"ip: exit {process.returncode}") if process.returncode else ""
