"""Where this process stands: leading, standing by behind another, or without any leader in sight."""

import asyncio
from dataclasses import dataclass

from aiohttp import web

from fairlead_core.master.leadership import Leadership
from fairlead_daemon.web import error_response
from fairlead_discovery.records import MasterInfo

NO_LEADER_HOLD_S = 1.0
"""Some clients reconnect at once after a 503, thousands of times a second: the answer is held back for them."""


@dataclass(slots=True)
class Seat:
    """`leader` is whoever is known to lead, when it is not us."""

    info: MasterInfo
    leadership: Leadership | None = None
    leader: MasterInfo | None = None

    def leading(self) -> Leadership:
        """Raises Elsewhere when it is not us."""
        if self.leadership is None:
            raise Elsewhere
        return self.leadership

    async def elsewhere(self, request: web.Request) -> web.Response:
        """307 to the leader, in Mesos' scheme-relative form; 503 after a while when none is known."""
        leader = self.elsewhere_leads()
        if leader is None:
            await asyncio.sleep(NO_LEADER_HOLD_S)
            return error_response(503, "no leading master is known yet; try again")
        return moved(leader, request.path_qs)

    def elsewhere_leads(self) -> MasterInfo | None:
        """The leader, if it is another and can be asked. What leads at our own address is our predecessor, killed a
        moment ago, whose session still lasts: whoever were sent there would come back here.
        """
        leader = self.leader
        if leader is None or leader.id == self.info.id:
            return None
        ours = (self.info.address.ip, self.info.port)
        return None if (leader.address.ip, leader.port) == ours else leader


def moved(leader: MasterInfo, path: str) -> web.Response:
    where = f"//{leader.address.ip}:{leader.port}{path}"
    return web.Response(status=307, headers={"Location": where})


class Elsewhere(Exception):  # noqa: N818  # a turn in the road, not a fault
    """Somebody else leads, or nobody."""
