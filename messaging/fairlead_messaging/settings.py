"""The settings of `fairlead messaging`."""

from fairlead_daemon.settings import DaemonSettings


class MessagingSettings(DaemonSettings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What `fairlead messaging` can be told."""

    port: int = 8300
    """Port of `/status` and `/metrics`."""
    topologies: tuple[str, ...] = ()
    """Topology files it keeps, beside those handed over in the registry. A bad one refuses the start."""
    every_s: float = 5.0
    """How often the brokers are looked at: a link that broke, or a policy somebody deleted, is seen that late."""
    repair: bool = True
    """Whether it makes brokers what is declared again. Off: it only looks and tells."""
