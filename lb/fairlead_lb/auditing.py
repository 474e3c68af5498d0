"""When HAProxy is audited: every few seconds, and at once when somebody asks, who may wait for the end of it."""

import asyncio
import time

from fairlead_lb import reading
from fairlead_lb.desk import Desk

AUDIT_S = 5.0


class Auditing:
    """`turn()` is the controller's; `wanted()` may be asked by any page."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._asked = 0
        self._under_way = 0
        """How many had asked when the audit under way began."""
        self._served = 0
        self._news = asyncio.Event()

    async def wanted(self) -> None:
        """Returns when an audit that began after this call is complete; what it found to repair is under way."""
        self._asked += 1
        mine = self._asked
        self._desk.wake.set()
        while self._served < mine:
            await self._news.wait()

    async def turn(self) -> bool:
        """Goes on with the audit that is due, if any; whether that has come to its end. Raises Unavailable."""
        desk = self._desk
        if not (desk.to_audit or self._served < self._asked or time.monotonic() - desk.times.audited > AUDIT_S):
            return False
        if not desk.to_audit:
            self._under_way = self._asked
        if not await reading.audit(desk):
            return False
        self._served = self._under_way
        news, self._news = self._news, asyncio.Event()
        news.set()
        return True
