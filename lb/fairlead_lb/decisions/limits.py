"""How many file descriptors HAProxy needs, and how many connections it may therefore have."""

from fairlead_daemon.errors import BadSettings
from fairlead_lb.decisions.values import Picture

RESERVE = 200  # logs, sockets, threads, the reload's passing of listeners
LEAST_CONNECTIONS = 100


def descriptors(picture: Picture, connections: int) -> int:
    """Two a connection, one a listener, one a checked slot even when it is disabled (measured)."""
    listeners = sum(high - low + 1 for low, high in picture.structure.binds) + 2
    listeners += len(picture.structure.vips)
    checked = sum(
        len(slots)
        for name, slots in picture.slots.items()
        if picture.structure.frame.passive_s or picture.structure.shapes[name].check is not None
    )
    return 2 * connections + listeners + checked + RESERVE


def connections(picture: Picture, wanted: int, *, hard_limit: int) -> int:
    """The wanted connections, or as many as the limit leaves. Raises BadSettings when that is next to none."""
    spare = (hard_limit - descriptors(picture, 0)) // 2
    if spare < LEAST_CONNECTIONS:
        raise BadSettings(
            f"max_connections: the limit of open files ({hard_limit}) leaves room for {max(0, spare)} connections"
        )
    return min(wanted, spare)
