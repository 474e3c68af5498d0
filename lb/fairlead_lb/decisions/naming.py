"""Backend names as marathon-lb's (`shop_web_10100`), never the same for two keys.

A name once given belongs to its key while any worker of HAProxy still knows it: an old worker serves by it. A service
that came without a reload stands in a spare backend, under its name, until the next reload.
"""

import hashlib
import re
from collections.abc import Callable, Collection, Mapping, Sequence

from fairlead_discovery import paths
from fairlead_lb.decisions import grammar
from fairlead_lb.decisions.values import Key

Names = Mapping[str, Key]
"""Given names and whose they are."""
_SPARE = re.compile(r"fairlead_g\d+s\d+", re.ASCII)


def base_name(key: Key, app: str, service_port: int) -> str:
    """`/shop/web` on 10100 -> `shop_web_10100`; a foreign `etl:worker` -> `etl_worker_<port>`; no port -> `…_p0`."""
    tail = str(service_port) if service_port else f"p{key.index}"
    if app:
        return f"{grammar.name_part(app.strip('/'))}_{tail}"
    framework, name = paths.split_service_key(key.service)
    return f"{grammar.name_part(framework)}_{grammar.name_part(name.strip('/'))}_{tail}"


def spare_name(generation: int, number: int) -> str:
    """Never given twice while an old worker may know it, and never that of a service (whose end in a port or digest)."""
    return f"fairlead_g{generation}s{number}"


def is_spare(name: str) -> bool:
    return _SPARE.fullmatch(name) is not None


def give(
    wanted: Sequence[tuple[Key, str]], names: Names, in_use: Collection[str], lend: Callable[[Key], str | None]
) -> Names:
    """Names for keys with their base names: a held one stays; a new key gets what `lend` has for it, or its base name,
    with a digest of the key at the end when that is another's.

    Names of keys that are gone are kept while they are `in_use`.
    """
    bases = dict(wanted)
    given = {n: k for n, k in names.items() if n in in_use or (k in bases and _made_of(n, bases[k]))}
    holders = {(k, n) for n, k in given.items()}
    lent = lent_names(given)
    for key, base in wanted:
        if key not in lent and not any((key, n) in holders for n in (base, _apart(base, key))):
            name = lend(key) or (base if base not in given else _apart(base, key))
            given[name] = key
    return given


def lent_names(names: Names) -> Mapping[Key, str]:
    """Who stands in which spare."""
    return {key: name for name, key in names.items() if is_spare(name)}


def name_of(key: Key, base: str, names: Names) -> str:
    """Of a key that stands in no spare."""
    return base if names.get(base) == key else _apart(base, key)


def _made_of(name: str, base: str) -> bool:
    return name == base or name.startswith(f"{base}_")


def _apart(base: str, key: Key) -> str:
    text = f"{key.service}\0{key.index}".encode()
    return f"{base}_{hashlib.sha256(text).hexdigest()[:8]}"
