"""What most requests have: a host that is one backend's whole, and a backend that no map turns.

HAProxy looks at these two maps first, and a request in both skips every other look-up; so whoever adds one says here
who needs it. To be left out of `plain`, or to be in `special` without need, only costs time.
"""

from collections.abc import Mapping

import msgspec

from fairlead_lb.decisions import map_keys
from fairlead_lb.decisions.values import Maps

SPECIAL = ("timeouts", "guarded")
"""What a backend looks up after its `allow`, by its own name."""


def with_plain(maps: Maps) -> Maps:
    """The same, and the two maps that are made of the others."""
    return msgspec.structs.replace(maps, plain=plain(maps), special=special(maps))


def plain(maps: Maps) -> Mapping[str, str]:
    """Host -> backend, where all that is said of the host is `host/`, and the backend keeps what it gets."""
    found: dict[str, str] = {}
    several: set[str] = set()
    for key, backend in maps.hosts.items():
        host, _, path = key.partition("/")
        if path or backend in maps.ways or not map_keys.is_host(host):
            several.add(map_keys.host_of(key))
        else:
            found[host] = backend
    return {host: backend for host, backend in found.items() if host not in several} if several else found


def special(maps: Maps) -> Mapping[str, str]:
    """Backend -> `yes`."""
    return {backend: "yes" for name in SPECIAL for backend in getattr(maps, name)}
