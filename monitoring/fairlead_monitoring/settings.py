"""What `fairlead monitor` can be told."""

from collections.abc import Mapping

import msgspec

from fairlead_daemon.errors import BadSettings
from fairlead_daemon.settings import DaemonSettings


class MonitorSettings(DaemonSettings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Sources that stand in the registry (leading master and scheduler, agents, balancers) need no address here."""

    port: int = 9900
    """Port of /metrics, /sd and /api. 0 lets the kernel choose."""
    id: str = ""
    """Names this monitor in the election. Empty: `<host name>-<port>`."""
    master: str = ""
    """Address of a master, as http://127.0.0.1:5050. Empty: the leader's, from the registry."""
    services: str = ""
    """Address of a service scheduler. Empty: the leader's, from the registry."""
    framework: str = "marathon"
    """The service scheduler's framework name: the first part of its services' keys."""
    dns: tuple[str, ...] = ()
    """HTTP addresses of name servers; the registry knows only where they answer DNS."""
    messaging: str = ""
    """Address of `fairlead messaging`, as http://127.0.0.1:8300. Absent until it has answered once. Empty: none."""
    rabbitmq: tuple[str, ...] = ()
    """Pages of RabbitMQ's Prometheus plugin, as http://127.0.0.1:15692/metrics."""
    scrape: Mapping[str, str] = msgspec.field(default_factory=dict)
    """Further pages in Prometheus' text, by name: {"node" = "http://127.0.0.1:9100/metrics"}."""
    interval_s: float = 5.0
    """How often whole `/metrics` pages are read. Shorter costs their daemons CPU."""
    quick_interval_s: float = 1.0
    """How often apps, agents and balancers are looked at: what an alert waits for."""
    timeout_s: float = 4.0
    """A source that has not answered by then is down for this round."""
    keep_s: float = 3600.0
    """How long samples are kept in memory; graphs and spans in rules reach no further."""
    forget_s: float = 300.0
    """A series absent for so long is forgotten."""
    most_series: int = 20_000
    """More are left out and counted. One takes 8 bytes a round: up to 29 KB an hour at one look a second."""
    most_series_per_page: int = 5_000
    """A page with more is cut there."""
    rules: tuple[str, ...] = ()
    """TOML files with [[rule]] tables; a rule named as a default one replaces it. Read again on SIGHUP."""
    default_rules: bool = True
    """Whether fairlead's own rules are judged."""
    webhooks: tuple[str, ...] = ()
    """URLs that get a POST for each change of an alert's state."""
    webhook_timeout_s: float = 10.0
    """A webhook that has not answered by then is called again, with the same Idempotency-Key."""
    webhook_retry_most_s: float = 60.0
    """Longest pause between two tries while a webhook is down."""
    graphite: str = ""
    """Carbon's plain-text receiver, as 127.0.0.1:2003. Empty: nothing is exported or spooled."""
    graphite_prefix: str = "fairlead"
    """First part of every path."""
    graphite_interval_s: int = 10
    """Seconds between two points of a path; not below the finest retention of Graphite's schema."""
    graphite_settle_s: float = 60.0
    """How long carbon may hold a point in memory before it is on its disk: points are kept so long and, when the
    connection breaks meanwhile, sent again. Carbon's MAX_UPDATES_PER_SECOND and the number of series decide it."""
    graphite_points_per_s: float = 50_000.0
    """Most points a second, so that a long backlog does not flood carbon. 0: no limit."""
    graphite_spool_mb: int = 256
    """Most that is kept on disk while carbon is away; beyond it the oldest points are lost, and counted."""


def check(settings: MonitorSettings) -> None:
    """Raises BadSettings naming the key."""
    for key in ("interval_s", "quick_interval_s", "timeout_s", "graphite_interval_s", "webhook_timeout_s"):
        if not 0.05 <= getattr(settings, key) <= 3600:
            raise BadSettings(f"{key}: {getattr(settings, key)} is not between 0.05 and 3600")
    for key in ("graphite_spool_mb", "most_series", "most_series_per_page", "keep_s", "forget_s"):
        if getattr(settings, key) <= 0:
            raise BadSettings(f"{key}: {getattr(settings, key)} is not above 0")
    addresses = [("master", settings.master), ("services", settings.services), ("messaging", settings.messaging)]
    addresses += [(key, url) for key in ("dns", "rabbitmq", "webhooks") for url in getattr(settings, key)]
    addresses += [(f"scrape.{name}", url) for name, url in settings.scrape.items()]
    for key, url in addresses:
        if url and not url.startswith(("http://", "https://")):
            raise BadSettings(f"{key}: {url!r} is no http:// address")
    if settings.graphite:
        carbon_address(settings.graphite)


def carbon_address(text: str) -> tuple[str, int]:
    """`127.0.0.1:2003`, `[::1]:2003`. Raises BadSettings."""
    host, colon, port = text.rpartition(":")
    if not colon or not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise BadSettings(f"graphite: {text!r} is no address, expected host:port")
    return host.strip("[]"), int(port)
