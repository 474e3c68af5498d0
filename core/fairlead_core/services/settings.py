"""What `fairlead services` can be told."""

from fairlead_core.services.decisions.routing import PortRules
from fairlead_daemon.errors import BadSettings
from fairlead_daemon.settings import DaemonSettings
from fairlead_discovery.decisions.ports import parse_ranges


class ServicesSettings(DaemonSettings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The service scheduler's settings."""

    port: int = 8080
    """Marathon's port: its clients look there."""
    framework: str = "marathon"
    """Name of the framework: the second label of every DNS name (`web-shop.marathon.mesos`) and of service keys."""
    role: str = "*"
    """Mesos role whose resources are used."""
    task_user: str = ""
    """Account that tasks of apps without `user` run as; empty leaves it to the agent, which never takes root by itself."""
    master: str = ""
    """`host:port[,host:port]` of a foreign Mesos master; empty: the leading master of the registry."""
    service_ports: str = "10100-10999"
    """Service ports given to apps that name none; the balancer binds this range, so it must be the same there."""
    reserved_ports: str = ""
    """Ports that no app may have as service port, as `5050,5051-5060,31000-32000`: where daemons and tasks of the
    balancers' machines listen. `fairlead up` passes all of its own."""
    low_service_ports: bool = False
    """Whether apps may have service ports below 1024, which are the machine's own services' by custom."""
    failover_timeout_s: float = 604800.0
    """How long the master keeps our tasks while no scheduler is subscribed. Marathon's: one week."""
    decline_s: float = 120.0
    """How long declined offers are not made again while nothing waits for them. Marathon's."""
    retry_s: float = 5.0
    """How often offers are asked for again while an instance finds no place."""
    kill_retry_s: float = 10.0
    """How often a kill is repeated until the task has ended; leaving before dying may take 30 s."""
    reconcile_s: float = 600.0
    """How often the master is asked for the state of all tasks. Marathon's 10 min."""
    settle_s: float = 1.0
    """How long after each subscribing nothing is ended yet: task states and inverse offers come first."""
    launch_timeout_s: float = 300.0
    """How long a launch may go without a word before it is given up and made again. Marathon's 5 min."""
    versions_kept: int = 50
    """Versions of an app that can be rolled back to. Marathon's."""


def port_rules(settings: ServicesSettings) -> PortRules:
    """Raises BadSettings naming the key."""
    first, sign, last = settings.service_ports.partition("-")
    digits = all(text.isascii() and text.isdigit() and len(text) <= 5 for text in (first, last))
    if not sign or not digits or not 1 <= int(first) <= int(last) <= 65535:
        raise BadSettings(f"service_ports: {settings.service_ports}: expected low-high, as 10100-10999")
    reserved = parse_ranges(settings.reserved_ports, place="reserved_ports")
    return PortRules(first=int(first), last=int(last), reserved=reserved, low=settings.low_service_ports)
