"""Backend names as marathon-lb's (`shop_web_10100`), never the same for two keys.

A name once given belongs to its key while any worker of HAProxy still knows it: an old worker serves by it.
"""

import hashlib
from collections.abc import Collection, Mapping, Sequence

from fairlead_discovery import paths
from fairlead_lb.decisions import grammar
from fairlead_lb.decisions.values import Key

Names = Mapping[str, Key]
"""Given names and whose they are."""


def base_name(key: Key, app: str, service_port: int) -> str:
    """`/shop/web` on 10100 -> `shop_web_10100`; a foreign `etl:worker` -> `etl_worker_<port>`; no port -> `…_p0`."""
    tail = str(service_port) if service_port else f"p{key.index}"
    if app:
        return f"{grammar.name_part(app.strip('/'))}_{tail}"
    framework, name = paths.split_service_key(key.service)
    return f"{grammar.name_part(framework)}_{grammar.name_part(name.strip('/'))}_{tail}"


def give(wanted: Sequence[tuple[Key, str]], names: Names, in_use: Collection[str]) -> Names:
    """Names for keys with their base names: a held one stays; a clash gets a digest of its key at the end.

    Names of keys that are gone are kept while they are `in_use`.
    """
    bases = dict(wanted)
    given = {n: k for n, k in names.items() if n in in_use or (k in bases and _made_of(n, bases[k]))}
    holders = {(k, n) for n, k in given.items()}
    for key, base in wanted:
        if not any((key, n) in holders for n in (base, _apart(base, key))):
            name = base if base not in given else _apart(base, key)
            given[name] = key
    return given


def name_of(key: Key, base: str, names: Names) -> str:
    return base if names.get(base) == key else _apart(base, key)


def _made_of(name: str, base: str) -> bool:
    return name == base or name.startswith(f"{base}_")


def _apart(base: str, key: Key) -> str:
    text = f"{key.service}\0{key.index}".encode()
    return f"{base}_{hashlib.sha256(text).hexdigest()[:8]}"
