"""Settings of who may call whom, of the mesh ports, and of what is told of each request."""

from typing import Literal

import msgspec

from fairlead_daemon.errors import BadSettings
from fairlead_daemon.settings import DaemonSettings
from fairlead_lb.decisions import grammar
from fairlead_lb.decisions.values import Frame


class MeshSettings(DaemonSettings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A part of LbSettings."""

    intentions_default: Literal["allow", "deny"] = "allow"
    """Whether a caller may call a service that no intention speaks of; `deny` also counts for clients without a certificate."""
    mesh_port: int = 0
    """Port for callers with a certificate of the identity authority, over HTTP/1.1 and HTTP/2. 0: none."""
    mesh_tcp_port: int = 0
    """The same for TCP services, which a caller names by SNI (the host name in the service's certificate). 0: none."""
    mesh_bind: str = ""
    """Address of both mesh ports. Empty: as all others (`bind`). Callers of other machines need one that they reach."""
    mesh_between: bool = False
    """Node balancers: HTTP services of other machines are asked through their node balancers, over mTLS, never in plain.
    Each machine needs it, with a `mesh_port` and a `mesh_bind` that the others reach."""
    identity_authority: str = "http://127.0.0.1:8450"
    """`fairlead ca`, asked for this balancer's own certificate with the house's token."""
    access_log: Literal["off", "denied", "all"] = "denied"
    """A line of JSON for each request; `denied`: for those that an intention refused, which costs others nothing."""
    access_log_file: str = ""
    """Where. Empty: `<data_dir>/lb/access.log`; `stdout` for the daemon's own output."""
    access_log_mb: int = 100
    """Above this the file is put aside and a new one begun."""
    access_log_keep: int = 5
    """Files put aside that are kept."""
    access_log_query: bool = False
    """Whether paths are logged with what follows the `?`: often secrets."""
    request_ids: bool = False
    """Gives each request an X-Request-Id, unless the client sent a sane one."""
    trace_percent: float = -1.0
    """Gives each request a W3C `traceparent`, unless the client sent a valid one; so many of a hundred new ones are
    marked as sampled. Below 0: such headers are left alone."""


def with_mesh(frame: Frame, settings: MeshSettings, log_name: str) -> Frame:
    """Raises BadSettings naming the key."""
    for key in ("mesh_port", "mesh_tcp_port"):
        if not 0 <= getattr(settings, key) < 65_536:
            raise BadSettings(f"{key}: {getattr(settings, key)}: not a port")
    if settings.mesh_port and settings.mesh_port == settings.mesh_tcp_port:
        raise BadSettings(f"mesh_tcp_port: {settings.mesh_tcp_port}: is mesh_port already")
    if settings.mesh_between and not settings.mesh_port:
        raise BadSettings("mesh_between: needs a mesh_port, which the other machines' balancers ask")
    if settings.trace_percent > 100:
        raise BadSettings(f"trace_percent: {settings.trace_percent:g}: more than 100")
    for key in ("access_log_mb", "access_log_keep"):
        if getattr(settings, key) < 1:
            raise BadSettings(f"{key}: {getattr(settings, key)}: below 1")
    return msgspec.structs.replace(
        frame,
        mesh_port=settings.mesh_port,
        mesh_tcp_port=settings.mesh_tcp_port,
        mesh_host=_mesh_host(settings),
        between=settings.mesh_between,
        access_log=settings.access_log,
        access_log_query=settings.access_log_query,
        log_name=log_name if settings.access_log != "off" else "",
        request_ids=settings.request_ids,
        trace_sampled=round(settings.trace_percent * 100) if settings.trace_percent >= 0 else -1,
    )


def _mesh_host(settings: MeshSettings) -> str:
    if not settings.mesh_bind:
        return ""
    address = grammar.address(settings.mesh_bind)
    if address is None:
        raise BadSettings(f"mesh_bind: {settings.mesh_bind}: not an IP address")
    return address
