"""What `fairlead console` can be told."""

from typing import Annotated

import msgspec

from fairlead_daemon.settings import DaemonSettings


class ConsoleSettings(DaemonSettings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything the page shows beyond the registry is asked of the daemons named here; an empty one is not asked."""

    port: int = 8000
    """Where the page is."""
    master: str = "http://127.0.0.1:5050"
    """Any master; one that does not lead names the leader. Nodes come from it."""
    services: str = "http://127.0.0.1:8080"
    """The service scheduler: how many instances are wanted, and their health."""
    lb: str = "http://127.0.0.1:9190"
    """The balancer's admin address: servers and their states, and requests per second while no monitor runs."""
    messaging: str = "http://127.0.0.1:8300"
    """Federation links come from it."""
    monitor: str = "http://127.0.0.1:9900"
    """Alerts and the history of requests per second come from it."""
    domain: str = "mesos"
    """The DNS domain in which services have their names: the same as dns' own setting."""
    poll_s: Annotated[float, msgspec.Meta(ge=0.1, le=60)] = 0.4
    """How often daemons are asked while somebody looks. Larger: a change shows later. Slow answers lengthen it."""
    viewers: Annotated[int, msgspec.Meta(ge=1)] = 100
    """Open pages that are kept live at once; further ones are refused and say so."""
