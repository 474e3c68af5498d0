"""Which ports another process holds: HAProxy would not start on them, though `haproxy -c` finds the file valid."""

import socket
from collections.abc import Iterable


def taken(host: str, ports: Iterable[int]) -> dict[int, str]:
    """Port -> reason, for those that cannot be listened on now."""
    return {port: why for port in ports if (why := _probe(host, port))}


def taken_places(places: Iterable[tuple[str, int]]) -> dict[str, str]:
    """The same for addresses with a port each, by `address:port`."""
    return {f"{host}:{port}": why for host, port in places if (why := _probe(host, port))}


def _probe(host: str, port: int) -> str:
    """Without SO_REUSEPORT, so that a listener that would share its port with us is found too."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        try:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
        except OSError as error:
            return error.strerror or str(error)
    return ""
