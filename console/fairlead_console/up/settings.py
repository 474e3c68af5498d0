"""What `fairlead up` can be told: TOML by `--config`, single keys by `--set`."""

from collections.abc import Mapping
from typing import Any, Literal

import msgspec


class UpSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All of one machine. Every port has its key, so that several can run side by side."""

    data_dir: str = ""
    """Where everything is kept. Empty: ./.fairlead, as root /var/lib/fairlead (tasks' users must reach it)."""
    registry: str = ""
    """Where the parts meet, as `zk://h1:2181,h2:2181[/chroot]`. Empty: a local registry process."""
    agents: int = 2
    """How many agents play machines. Fewer than before: those that are gone are drained first."""
    agent_resources: str = "cpus:4;mem:2048;disk:10240"
    """What each agent offers beside its ports, in Mesos' text form. More than the machine has is not prevented."""
    agent_ports: str = "31000-31999"
    """Ports for tasks, split evenly among the agents."""
    master_port: int = 5050
    """Offers, operator API. Mesos' own default."""
    agent_port: int = 5051
    """The first agent's HTTP port; each further one takes the next."""
    services_port: int = 8080
    """Marathon's REST API, at Marathon's own default."""
    dns_port: int = 8053
    """Names on 127.0.0.1, UDP and TCP, without root."""
    dns_http_port: int = 8123
    """Mesos-DNS' HTTP API of the first dns process, at Mesos-DNS' default; the second takes the next port."""
    dns_address: str = "127.0.53.53"
    """As root also serve names here on port 53, and let tasks resolve through it. Empty: neither."""
    lb_admin_port: int = 9190
    """The balancer daemon's own HTTP port."""
    lb_http_port: int = 9080
    """Where HAProxy takes HTTP for virtual hosts."""
    lb_https_port: int = 9443
    """Where HAProxy takes HTTPS for virtual hosts, once `[settings.lb]` has a `certificate`."""
    node: bool = False
    """Also run a balancer as every machine of a mesh has one (`fairlead lb --node`), with DC/OS' VIPs, which the name
    servers then answer."""
    node_address: str = "127.0.0.2"
    """Where that one serves services' ports: not the other balancer's address."""
    node_admin_port: int = 9191
    """Its daemon's own HTTP port."""
    node_http_port: int = 9081
    """Where it takes HTTP for virtual hosts, at its address."""
    service_ports: str = "10100-10999"
    """Ports HAProxy holds for services; services without a port of their own get one from here."""
    monitor_port: int = 9900
    """Measures, alerts, Prometheus' service discovery."""
    messaging_port: int = 8300
    """Broker topologies, federation links."""
    demo_brokers: Literal["auto", "off"] = "auto"
    """Whether the demo has a pair of RabbitMQ brokers. `auto`: when RabbitMQ is installed."""
    console_port: int = 8000
    """The web console's page."""
    ttl_s: int = 5
    """How long resolvers may keep an answer; every rescale waits it out before it kills."""
    token: Literal["auto", "on", "off"] = "auto"  # noqa: S105  # a mode, not a secret
    """Whether HTTP writes need the token in `<data_dir>/token`. `auto`: when other people have logins here."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """Of every daemon, in `<data_dir>/log/`."""
    settings: Mapping[str, Mapping[str, Any]] = msgspec.field(default_factory=dict)
    """Tables `[settings.master]`, `[settings.agent]`, `[settings.dns-2]` …: further keys of that daemon."""
