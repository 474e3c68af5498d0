"""Who may ask what: networks, and the view each client has."""

from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network

from fairlead_dns.decisions.asked import Next, View

EVERYONE = ("0.0.0.0/0", "::/0")
PRIVATE = (
    *("127.0.0.0/8", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "169.254.0.0/16"),
    *("::1/128", "fc00::/7", "fe80::/10"),
)
CLIENTS = 65_536  # a spoofed flood has an address a packet: then all begin anew
VIEWS = 1024


def parse_networks(texts: Iterable[str]) -> tuple[IPv4Network | IPv6Network, ...]:
    """`10.0.0.0/8`, `::1`, `any`, `private`, `none`. Raises ValueError naming the one that is no network."""
    words = {"any": EVERYONE, "private": PRIVATE, "none": ()}
    return tuple(_network(each) for text in texts for each in words.get(text, (text,)))


def _network(text: str) -> IPv4Network | IPv6Network:
    try:
        return ip_network(text)
    except ValueError as error:
        raise ValueError(f"{text!r} is no network: {error}") from error


@dataclass(frozen=True)
class Acl:
    """A set of networks. `admits` takes an address as text and says no to what is none (a unix socket's peer)."""

    networks: tuple[IPv4Network | IPv6Network, ...]

    @cached_property
    def everyone(self) -> bool:
        return {4, 6} <= {n.version for n in self.networks if n.prefixlen == 0}

    def admits(self, client: str) -> bool:
        if self.everyone:
            return True
        try:
            address = ip_address(client)
        except ValueError:
            return False
        if address.version == 6 and address.ipv4_mapped is not None:
            address = address.ipv4_mapped
        return any(address in network for network in self.networks if network.version == address.version)


ALL = Acl(parse_networks(("any",)))
LOCAL = Acl(parse_networks(("private",)))
NOBODY = Acl(())


@dataclass(slots=True)
class Views:
    """Each client's view, worked out once and kept; bounded.

    `classify` is asked for a client's place (locality, subset) and must give few different keys; `forget` when it
    would answer otherwise now.
    """

    query: Acl = ALL
    recursion: Acl = NOBODY
    zones: Mapping[bytes, Acl] = field(default_factory=dict)
    """Who may have names at and below each of these; of several the longest counts. See View.closed."""
    classify: Callable[[str], Hashable] = lambda _: None
    tables: dict[str, dict[bytes, Next]] = field(default_factory=dict)
    """Client -> its view's `fast`: what the UDP loop looks into."""
    _clients: dict[str, View] = field(default_factory=dict)
    _views: dict[Hashable, View] = field(default_factory=dict)

    def of(self, client: str) -> View:
        known = self._clients.get(client)
        return self._enter(client) if known is None else known

    def forget(self) -> None:
        """Every client is classified anew, every prebuilt packet is gone."""
        self.tables.clear()
        self._clients.clear()
        for view in self._views.values():
            view.fast.clear()
        self._views.clear()

    def clear_fast(self) -> None:
        """Every prebuilt packet is gone: another handler may be the one for it now."""
        for view in self._views.values():
            view.fast.clear()

    def _enter(self, client: str) -> View:
        if len(self._clients) >= CLIENTS:
            self.tables.clear()
            self._clients.clear()
        if len(self._views) >= VIEWS:
            self.forget()
        query, recursion = self.query.admits(client), self.recursion.admits(client)
        denied = frozenset(zone for zone, acl in self.zones.items() if not acl.admits(client))
        key = self.classify(client)
        ruled = frozenset(self.zones) if denied else frozenset()
        view = self._views.setdefault(
            (query, recursion, denied, key),
            View(query=query, recursion=recursion, denied=denied, ruled=ruled, key=key),
        )
        self._clients[client] = view
        self.tables[client] = view.fast
        return view
