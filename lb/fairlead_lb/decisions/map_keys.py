"""Keys of the map of hosts: `shop.example.com/cart/`, found by the longest prefix of host + path + `/`.

`*/cart/` is for any host that no other key takes. On a host where one rule disregards case in paths (Bamboo's `-i`) all
do: its keys are `shop.example.com~/cart/`, in lower case, or the longest would not win.

`!/.well-known/acme-challenge/` is for any host, before what any host has: only an operator's route gets it.
"""

from collections.abc import Collection, Iterable

ANY_HOST = "*"
CHALLENGES = "/.well-known/acme-challenge"
"""Where an ACME server looks for the answer to its HTTP-01 challenge, at whatever host a certificate is for."""
EVERY_HOST = "!"
_FOLDED = "~"


def key(host: str, path: str, *, fold: bool = False) -> str:
    """`a.com`, `/svc1` -> `a.com/svc1/`: paths end at segments, so `/svc10` is no match."""
    return f"{host}{_FOLDED}{path.lower()}/" if fold else f"{host}{path}/"


def folding(keys: Iterable[str]) -> frozenset[str]:
    """Hosts whose paths are looked up without regard to case."""
    hosts = (k.partition("/")[0] for k in keys if f"{_FOLDED}/" in k)
    return frozenset(h.removesuffix(_FOLDED) for h in hosts if h.endswith(_FOLDED))


def spelled(one: str, folding: Collection[str]) -> str:
    """The key as it stands in the map."""
    host, _, rest = one.partition("/")
    return f"{host}{_FOLDED}/{rest.lower()}" if host in folding else one


def host_of(one: str) -> str:
    return one.partition("/")[0].removesuffix(_FOLDED)


def is_host(text: str) -> bool:
    """A host's own name: not any host, every host, whatever ends so, or one whose paths disregard case."""
    return not text.startswith((ANY_HOST, EVERY_HOST)) and not text.endswith(_FOLDED)


def shown(one: str) -> str:
    """For people: `shop.example.com/cart`, `*/cart`, `!/.well-known/acme-challenge`."""
    host, _, rest = one.partition("/")
    return f"{host.removesuffix(_FOLDED)}/{rest}".removesuffix("/")
