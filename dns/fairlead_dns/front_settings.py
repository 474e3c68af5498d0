"""What `fairlead dns` can be told about how queries come and who may ask, and what follows from it."""

from collections.abc import Iterable, Mapping
from typing import Literal

from fairlead_daemon.errors import BadSettings
from fairlead_dns.decisions import wire
from fairlead_dns.decisions.acl import Acl, parse_networks
from fairlead_dns.decisions.identity import Identity, told
from fairlead_dns.decisions.rate import Kind, Limiter, Rates
from fairlead_dns.naming_settings import NamingSettings

NSID_BYTES = 64
HIGHEST_RATE = 1_000_000


class FrontSettings(NamingSettings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Lists of networks take `10.0.0.0/8`, `2001:db8::/32`, `any`, `private` and `none`."""

    listen_tls: tuple[str, ...] = ()
    """Addresses for DNS over TLS (RFC 7858), usually port 853; needs `certificate`."""
    listen_https: tuple[str, ...] = ()
    """Addresses for DNS over HTTPS (RFC 8484), HTTP/1.1 and HTTP/2; needs `certificate`."""
    https_path: str = "/dns-query"
    """Where DNS is on them."""
    certificate: str = ""
    """PEM file with the certificate and its chain. It is read again when it changes; a bad one leaves the old one."""
    certificate_key: str = ""
    """PEM file with its private key. Empty: it stands in `certificate` too."""
    proxied: tuple[str, ...] = ()
    """Of the addresses above those where each connection or datagram begins with a PROXY header, version 1 or 2."""
    proxied_by: tuple[str, ...] = ("127.0.0.0/8", "::1")
    """Networks whose PROXY headers are believed; whoever else asks at a `proxied` address is turned away."""
    udp_loop: Literal["auto", "python", "compiled"] = "auto"
    """`auto` takes the compiled loop where fairlead-dns-fast is installed: two fifths less CPU a query."""
    allow_query: tuple[str, ...] = ("any",)
    """Networks that may ask at all; others are refused with extended error 18."""
    zone_access: Mapping[str, tuple[str, ...]] = {}
    """Networks that may have the names of one zone, ours or forwarded, `.` of all; the longest zone counts, others are
    everyone's (of `allow_query`). For the rest answers stop where they lead there. A transfer is its key's: it is whole."""
    tcp_queries: int = 10_000
    """A TCP connection is closed in order after so many queries."""
    cookie_secrets: str = ""
    """File with a secret of 32 hexadecimal digits a line, the same for all replicas: the first makes DNS cookies (RFC
    9018), all are accepted; read again when it changes. Empty: no cookies."""
    require_cookies: Literal["off", "tcp-or-cookie"] = "off"
    """`tcp-or-cookie`: over UDP a client without a valid cookie gets BADCOOKIE with a new one or, if it sends none, an empty
    cut reply, so that nobody can be flooded with answers; needs `cookie_secrets` (RFC 7873)."""
    nsid: str = ""
    """Told to clients that ask which server answered (RFC 5001). Empty: nothing is."""
    chaos: bool = False
    """Whether version.bind and id.server are told (class CH). They are refused otherwise."""
    rate_answers: int = 0
    """Most equal answers a second over UDP to one network, as BIND's rate-limit. 0: not limited."""
    rate_nodata: int = 0
    """The same for answers without records, a zone."""
    rate_nxdomain: int = 0
    """The same for "no such name", a zone."""
    rate_errors: int = 0
    """The same for refusals and failures."""
    rate_window_s: int = 15
    """How long a network that asked too much is held to its rate."""
    rate_slip: int = 2
    """Every so manieth withheld reply goes out cut, so that a real client comes over TCP. 0: none."""
    rate_v4_bits: int = 24
    """IPv4 clients with so many leading bits in common count as one."""
    rate_v6_bits: int = 56
    """The same for IPv6."""
    rate_report_only: bool = False
    """Count what would be withheld, and send it."""
    rate_exempt: tuple[str, ...] = ()
    """Networks that are not limited; TCP and clients with a valid cookie never are."""


def check(settings: FrontSettings) -> None:
    """Raises BadSettings naming the key."""
    zone_access(settings)
    for key in ("allow_query", "proxied_by", "rate_exempt"):
        acl(key, getattr(settings, key))
    for key, most in (("rate_window_s", 3600), ("rate_slip", 10), ("rate_v4_bits", 32), ("rate_v6_bits", 128)):
        _check_number(key, getattr(settings, key), 0 if key == "rate_slip" else 1, most)
    for key in ("rate_answers", "rate_nodata", "rate_nxdomain", "rate_errors"):
        _check_number(key, getattr(settings, key), 0, HIGHEST_RATE)
    _check_number("tcp_queries", settings.tcp_queries, 1, HIGHEST_RATE)
    if len(settings.nsid.encode()) > NSID_BYTES:
        raise BadSettings(f"nsid: more than {NSID_BYTES} bytes")
    if settings.require_cookies != "off" and not settings.cookie_secrets:
        raise BadSettings("require_cookies: needs cookie_secrets, or no client could ever have one")
    if not settings.https_path.startswith("/") or "?" in settings.https_path:
        raise BadSettings(f"https_path: {settings.https_path!r} is no path")
    for key in ("listen_tls", "listen_https"):
        if getattr(settings, key) and not settings.certificate:
            raise BadSettings(f"certificate: {key} needs one")


def check_proxied(settings: FrontSettings, listen: Iterable[str]) -> None:
    """Raises BadSettings for a `proxied` address that is listened on nowhere."""
    known = {*listen, *settings.listen_tls, *settings.listen_https}
    for text in settings.proxied:
        if text not in known:
            raise BadSettings(f"proxied: {text!r} is not among the addresses listened on")


def acl(key: str, texts: tuple[str, ...]) -> Acl:
    """Raises BadSettings naming the key."""
    try:
        return Acl(parse_networks(texts))
    except ValueError as error:
        raise BadSettings(f"{key}: {error}") from error


def zone_access(settings: FrontSettings) -> dict[bytes, Acl]:
    """Raises BadSettings naming the key."""
    found = {}
    for text, networks in settings.zone_access.items():
        zone = wire.parse_text(text)
        if zone is None or not text:
            raise BadSettings(f"zone_access: {text!r} is no domain name")
        found[zone] = acl("zone_access", networks)
    return found


def identity(settings: FrontSettings, version: str, server: str) -> Identity:
    chaos = told(version, server) if settings.chaos else ()
    return Identity(nsid=settings.nsid.encode(), chaos=chaos)


def limiter(settings: FrontSettings) -> Limiter | None:
    """None when nothing is limited."""
    per_second = {
        Kind.ANSWER: settings.rate_answers,
        Kind.NODATA: settings.rate_nodata,
        Kind.NXDOMAIN: settings.rate_nxdomain,
        Kind.ERROR: settings.rate_errors,
    }
    if not any(per_second.values()):
        return None
    return Limiter(
        Rates(
            per_second=per_second,
            window_s=settings.rate_window_s,
            slip=settings.rate_slip,
            v4_bits=settings.rate_v4_bits,
            v6_bits=settings.rate_v6_bits,
            report_only=settings.rate_report_only,
            exempt=acl("rate_exempt", settings.rate_exempt),
        )
    )


def _check_number(key: str, value: int, least: int, most: int) -> None:
    if not least <= value <= most:
        raise BadSettings(f"{key}: {value} is not between {least} and {most}")
