"""What of `fairlead lb` is Bamboo's."""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from fairlead_daemon.errors import BadSettings
from fairlead_discovery import paths
from fairlead_discovery.adapters.zookeeper_place import Place, parse_place
from fairlead_lb.decisions.bamboo import Manner
from fairlead_lb.decisions.bamboo_config import Mapped, read
from fairlead_lb.mesh_settings import MeshSettings

KEY = "bamboo_config"
_BIND = re.compile(r"(.*):(\d{1,5})", re.ASCII)


class BambooSettings(MeshSettings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Keys of Bamboo's file have the names in brackets there."""

    bamboo_config: str = ""
    """Bamboo's JSON file, read as it is, with its environment variables over it; what is set here as well counts."""
    bamboo_bind: str = ""
    """`[address]:port` where Bamboo's API answers as Bamboo did (`/status` is `OK`). Empty: only on `port`. Without an
    address: that of `host`."""
    bamboo_framework: str = "marathon"
    """Whose apps Bamboo's ids are: `/shop/web` is the service `marathon:/shop/web`."""
    bamboo_default_rules: bool = False
    """Every app without a rule is reached by `path_beg -i <its id>` on any host, as Bamboo did. On with a file of its."""
    bamboo_zookeeper: str = ""
    """A Bamboo's tree, `zk://h1:2181,h2:2181/path`: its rules are followed, ours win (Bamboo.Zookeeper)."""
    bamboo_marathon: str = ""
    """Marathons that say what endpoints do not (environment, labels), for templates and `/api/state`; a comma list
    (Marathon.Endpoint). Empty: nobody is asked."""
    bamboo_template: str = ""
    """A Jinja2 template with Bamboo's objects, rendered at each change, for a HAProxy of yours (HAProxy.TemplatePath)."""
    bamboo_output: str = ""
    """Where it is rendered to, whole or not at all, and only when it is valid (HAProxy.OutputPath)."""
    bamboo_validate: str = "haproxy -c -f {{.}}"
    """A shell command that says whether the file is valid; `{{.}}` is its path (HAProxy.ReloadValidationCommand)."""
    bamboo_reload: str = ""
    """A shell command run when the file has changed; run again until it succeeds (HAProxy.ReloadCommand)."""
    bamboo_cleanup: str = ""
    """A shell command run after each reload, failed or not (HAProxy.ReloadCleanupCommand)."""
    allow_raw_acl: bool = False
    """Whether rules may look at any header, cookie or parameter, and use expressions of any cost. For operators who
    trust everyone with the token: a bad expression can hold up all requests."""
    traefik_root: str = ""
    """Below it the routes are also written as Traefik's key-value tree, into the registry's ZooKeeper (below its chroot),
    by one elected balancer. Empty: not at all."""
    traefik_entrypoints: str = ""
    """Traefik's entry points that get the routers, a comma list. Empty: its defaults."""
    statsd: str = ""
    """`host:port` of a StatsD that gets Bamboo's counters by UDP (StatsD.Host). Empty: none."""
    statsd_prefix: str = "bamboo-server."
    """In front of their names (StatsD.Prefix)."""


def beneath(given: Mapping[str, Any]) -> dict[str, Any]:
    """What Bamboo's file and environment say, by our keys. Raises BadSettings naming the file."""
    file = given.get(KEY)
    return dict(_mapped(file).values) if file and isinstance(file, str) else {}


def notes(settings: BambooSettings) -> tuple[str, ...]:
    """What a person should know of the file that is in use."""
    return _mapped(settings.bamboo_config).notes if settings.bamboo_config else ()


def _mapped(file: str) -> Mapped:
    try:
        return read(Path(file).read_bytes(), os.environ, place=file)
    except OSError as error:
        raise BadSettings(f"{KEY}: {file}: {error.strerror}") from error


def manner(settings: BambooSettings) -> Manner:
    return Manner(
        framework=settings.bamboo_framework, raw=settings.allow_raw_acl, defaults=settings.bamboo_default_rules
    )


def bound(settings: BambooSettings) -> BambooSettings | None:
    """Settings of the server of Bamboo's own address; None without one. Raises BadSettings."""
    if not settings.bamboo_bind:
        return None
    found = _BIND.fullmatch(settings.bamboo_bind)
    if found is None or int(found[2]) > 65_535:
        raise BadSettings(f"bamboo_bind: {settings.bamboo_bind}: expected [address]:port, as :8000")
    return msgspec.structs.replace(settings, host=found[1].strip("[]") or settings.host, port=int(found[2]))


def traefik_root(settings: BambooSettings) -> str:
    """`traefik` -> `/traefik`; "" for none. Raises BadSettings."""
    text, registry = settings.traefik_root, settings.registry
    if not text:
        return ""
    if not registry.startswith("zk://"):
        raise BadSettings(f"traefik_root: Traefik reads ZooKeeper, and the registry is {registry}")
    root = f"/{text.strip('/')}"
    if root == "/" or root.startswith(paths.ROOT) or any(s in ("", ".", "..") for s in root.split("/")[1:]):
        raise BadSettings(f"traefik_root: {text}: expected a path of its own, as traefik")
    return root


def place_of(url: str) -> Place:
    """Raises BadSettings."""
    if not url.startswith("zk://"):
        raise BadSettings(f"bamboo_zookeeper: {url}: expected zk://host:port,host:port/path")
    try:
        place = parse_place(url.removeprefix("zk://"))
    except BadSettings as error:
        raise BadSettings(f"bamboo_zookeeper: {str(error).removeprefix('registry: ')}") from error
    if not place.root:
        raise BadSettings(f"bamboo_zookeeper: {url}: no path of Bamboo's nodes")
    return place


def check(settings: BambooSettings) -> None:
    """What can be wrong together. Raises BadSettings naming the key."""
    bound(settings)
    traefik_root(settings)
    if settings.bamboo_zookeeper:
        place_of(settings.bamboo_zookeeper)
    if settings.bamboo_template and not settings.bamboo_output:
        raise BadSettings("bamboo_output: needed with bamboo_template")
    if settings.statsd and not _BIND.fullmatch(settings.statsd):
        raise BadSettings(f"statsd: {settings.statsd}: expected host:port")
