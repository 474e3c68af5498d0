"""What a label, a host or an app id may look like before it comes near a configuration file or HAProxy's socket.

Everything is an allow-list: blanks, quotes, braces, backslashes, `;`, `#` and control characters are in none of them.
"""

import ipaddress
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache

from fairlead_daemon.errors import Refused
from fairlead_discovery.decisions.words import shown
from fairlead_discovery.records import Check, RoutePort
from fairlead_lb.decisions.traffic import checked_traffic
from fairlead_lb.decisions.values import Shape

_HOST_LABEL = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_HOST = re.compile(rf"(?:\*\.)?{_HOST_LABEL}(?:\.{_HOST_LABEL})*", re.ASCII)
_PATH = re.compile(r"/[A-Za-z0-9/._~!$&()*+,=:@%-]*", re.ASCII)
_CHECK_PATH = re.compile(r"/[A-Za-z0-9/._~!$&()*+,=:@%?-]*", re.ASCII)
_NOT_IN_NAME = re.compile(r"[^A-Za-z0-9_.-]", re.ASCII)
HOST_LIMIT = 253
ADDRESS_LIMIT = 64
PATH_LIMIT = 256
NAME_LIMIT = 128
MODES = ("http", "tcp", "tls")
_BOTH = ("roundrobin", "leastconn", "first", "random", "source")
BALANCES: Mapping[str, Sequence[str]] = {"http": (*_BOTH, "uri"), "tcp": _BOTH, "tls": _BOTH}
_HASHED = re.compile(r"(?:hdr|url_param|cookie)\([A-Za-z0-9][A-Za-z0-9_-]{0,63}\)", re.ASCII)
_OR_HASHED = {"http": ", hdr(NAME), url_param(NAME), cookie(NAME)", "tcp": "", "tls": ""}


def vhost(text: str) -> str:
    """A host name in lower case, perhaps with `*.` in front. Raises Refused."""
    name = text.strip(" ").rstrip(".").lower()
    if len(name) > HOST_LIMIT or not _HOST.fullmatch(name):
        raise Refused(f"virtual host {shown(text)}: not a host name")
    return name


def path(text: str) -> str:
    """`/svc1/` -> `/svc1`; "" and `/` -> "". Raises Refused."""
    if text in ("", "/"):
        return ""
    if len(text) > PATH_LIMIT or not _PATH.fullmatch(text):
        raise Refused(f"path {shown(text)}: not a path this balancer takes")
    return text.rstrip("/")


def name_part(text: str) -> str:
    """Any text as part of a HAProxy name: `shop/web` -> `shop_web`."""
    return _NOT_IN_NAME.sub("_", text)[:NAME_LIMIT]


def address(host: str) -> str | None:
    """The canonical IP address, or None: HAProxy's `set server addr` takes no names."""
    return _address(host) if len(host) <= ADDRESS_LIMIT else None


@lru_cache(maxsize=65_536)
def _address(host: str) -> str | None:
    """Asked for every member of a service whenever one of them changes."""
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        return None


def shape(port: RoutePort) -> Shape:
    """Raises Refused naming the field."""
    if port.mode not in MODES:
        raise Refused(f"mode {shown(port.mode)}: http, tcp or tls")
    if port.balance not in BALANCES[port.mode] and not (port.mode == "http" and _HASHED.fullmatch(port.balance)):
        raise Refused(f"balance {shown(port.balance)}: one of {', '.join(BALANCES[port.mode])}{_OR_HASHED[port.mode]}")
    if port.mtls and port.mode == "tls":
        raise Refused("mtls: mode tls passes on what is encrypted already")
    return Shape(
        mode="http" if port.mode == "http" else "tcp",
        balance=port.balance,
        sticky=port.sticky and port.mode == "http",
        reuse=port.reuse,
        retry_non_idempotent=port.retry_non_idempotent,
        mtls=port.mtls,
        timeout_server_s=_between("timeout_server_s", port.timeout_server_s, 0.1, 86_400),
        check=None if port.check is None else _check(port.check),
        traffic=checked_traffic(port.traffic, port.mode),
    )


def service_port(number: int) -> int:
    if not 0 <= number <= 65_535:
        raise Refused(f"service port {number}: not between 0 and 65535")
    return number


def _check(check: Check) -> Check:
    if check.path and (len(check.path) > PATH_LIMIT or not _CHECK_PATH.fullmatch(check.path)):
        raise Refused(f"check path {shown(check.path)}: not a path this balancer takes")
    return Check(
        path=check.path,
        interval_s=_between("check interval_s", check.interval_s, 0.1, 3_600),
        timeout_s=_between("check timeout_s", check.timeout_s, 0.05, 3_600),
        fall=int(_between("check fall", check.fall, 1, 100)),
    )


def _between(what: str, value: float, least: float, most: float) -> float:
    if not least <= value <= most:
        raise Refused(f"{what} {value:g}: not between {least:g} and {most:g}")
    return value
