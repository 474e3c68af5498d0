"""What of /v1 and /v2 a client may read: of the zones that `zone_access` closes to it nothing, as over DNS."""

from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from fairlead_daemon.web import error_response
from fairlead_discovery.listing import Listing, NotThere
from fairlead_dns.decisions import mesosdns, wire
from fairlead_dns.decisions.asked import View
from fairlead_dns.decisions.forward_chain import is_within
from fairlead_dns.names import Names

LISTS = frozenset({"/v1/enumerate", "/v1/axfr"})
OF_ONE = {"/v1/hosts/{host}": "host", "/v1/services/{service}": "service"}
OF_NAMES = {"/v2/records": ("name", "under"), "/v2/history": ("name",), "/v2/changes": ("zone",)}


def view_of(request: web.Request, names: Names) -> View:
    return names.front.views.of(request.remote or "")


def sees_lists(view: View, names: Names) -> bool:
    """Whether the client may have lists that are not taken apart by zone: none of our zones is closed to it, nor a part."""
    apexes = names.authority.apexes
    return not any(is_within(zone, apex) or is_within(apex, zone) for zone in view.denied for apex in apexes)


def closed_words(who: str, zone: bytes) -> str:
    return f"{who} may not read names of {wire.text(zone) or 'the root zone'}; see the `zone_access` setting"


@dataclass(frozen=True, slots=True)
class ClosedZones:
    """Refuses with 403 what is asked of one closed zone, and lists. Pages that show several names leave out closed ones
    themselves.
    """

    names: Names
    listing: Listing

    @property
    def rule(self) -> Any:
        @web.middleware
        async def rule(
            request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
        ) -> web.StreamResponse:
            view, resource = view_of(request, self.names), request.match_info.route.resource
            if not view.denied or resource is None:
                return await handler(request)
            who, asked = request.remote or "", list(self._asked(request, resource.canonical))
            shut = next(filter(None, map(view.closed, asked)), b"")
            if shut:
                return error_response(403, closed_words(who, shut))
            lists = resource.canonical in LISTS or (resource.canonical == "/v2/services" and not asked)
            if lists and not sees_lists(view, self.names):
                return error_response(
                    403, f"some zones are closed to {who}: ask by name; see the `zone_access` setting"
                )
            return await handler(request)

        return rule

    def _asked(self, request: web.Request, page: str) -> Iterator[bytes]:
        """The names that the page would be about, in wire form; what is no name is for the page to refuse."""
        if page in OF_ONE:
            yield from filter(None, [mesosdns.asked(request.match_info[OF_ONE[page]])])
        elif page in OF_NAMES:
            texts = [text for key in OF_NAMES[page] for text in request.query.getall(key, [])]
            yield from filter(None, (wire.parse_text(text.lower()) for text in texts if text))
        elif page == "/v2/services":
            for text in request.query.getall("name", []):
                yield from self._of_service(text)
        elif page.startswith("/v2/services/"):
            yield from self._of_service(request.match_info["name"])

    def _of_service(self, text: str) -> Iterator[bytes]:
        """The text as a name, and all names of the services that it means."""
        try:
            services = self.listing.meant((text,))
        except NotThere:
            services = frozenset()
        known = (name for service in services for name in self.listing.dns_names(service))
        yield from filter(None, (wire.parse_text(each.lower()) for each in (text, *known)))
