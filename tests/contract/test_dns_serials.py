"""DNS serials on every backend: one for one content, on every name server of the registry."""

import asyncio
from pathlib import Path

from harness.names import member, publish
from harness.serials import put_agent, servers
from harness.waiting import eventually

from .conftest import Backend


async def test_servers_that_hear_things_in_another_order_never_give_one_serial_to_two_contents(
    backend: Backend, tmp_path: Path
) -> None:
    """The second hears of agents later than the first. In the end both have one serial and one content."""
    async with servers(tmp_path, 0.0, 0.02, url=backend.url) as (one, two):
        for number in range(25):
            await publish(one.registry, member(number))
            await put_agent(one.registry, number % 7)
            await asyncio.sleep(0.003 * (number % 4))

        async def agree() -> bool:
            return len(one.hosts()) == len(two.hosts()) == 7 and one.names.ledger.serial == two.names.ledger.serial

        await eventually("both agree", agree, within_s=30)
        both = one.contents.keys() & two.contents.keys()
        assert {n: one.contents[n] for n in both} == {n: two.contents[n] for n in both}
        assert both
