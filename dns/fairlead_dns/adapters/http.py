"""Mesos-DNS' HTTP API on our web server."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from importlib.metadata import version
from typing import Any, TypeVar
from urllib.parse import urlsplit

from aiohttp import web

from fairlead_daemon.web import json_response
from fairlead_dns import settings as told
from fairlead_dns.adapters.api_access import view_of
from fairlead_dns.adapters.sockets import parse_place
from fairlead_dns.decisions import mesosdns
from fairlead_dns.forward_settings import forwards
from fairlead_dns.names import Names
from fairlead_dns.settings import DnsSettings

T = TypeVar("T")
SLICE = 25


def add_routes(app: web.Application, settings: DnsSettings, names: Names) -> None:
    """Every answer comes from the names as they are at this moment. Nothing where `mesos_dns_api` is off."""
    if not settings.mesos_dns_api:
        return

    async def show_version(_request: web.Request) -> web.Response:
        return json_response({"Service": "Mesos-DNS", "Version": version("fairlead"), "URL": mesosdns.URL})

    async def show_config(_request: web.Request) -> web.Response:
        return json_response(
            mesosdns.config(
                {**_config(settings), "SOASerial": names.answers.serial}, names.master_places() or _masters(settings)
            )
        )

    async def hosts(request: web.Request) -> web.Response:
        return json_response(mesosdns.hosts(names.zone, request.match_info["host"]))

    async def ports(_request: web.Request) -> web.Response:
        return web.Response(status=501, text="Not Implemented")

    async def services(request: web.Request) -> web.Response:
        return json_response(
            mesosdns.services(names.zone, request.match_info["service"], view_of(request, names).closed)
        )

    async def enumerate_all(_request: web.Request) -> web.Response:
        _check_enumeration(settings)
        return json_response({"frameworks": await _frameworks(names)})

    async def axfr(_request: web.Request) -> web.Response:
        _check_enumeration(settings)
        return json_response(await _axfr(settings, names))

    app.router.add_get("/v1/version", show_version)
    app.router.add_get("/v1/config", show_config)
    app.router.add_get("/v1/hosts/{host}", hosts)
    app.router.add_get("/v1/hosts/{host}/ports", ports)
    app.router.add_get("/v1/services/{service}", services)
    app.router.add_get("/v1/enumerate", enumerate_all)
    app.router.add_get("/v1/axfr", axfr)


def _check_enumeration(settings: DnsSettings) -> None:
    if not settings.enumeration:
        raise web.HTTPNotFound(reason="enumeration is off, see the `enumeration` setting")


async def _frameworks(names: Names) -> list[dict[str, object]]:
    found: dict[str, list[dict[str, Any]]] = {}
    tasks = sorted(names.tasks(), key=lambda task: (task.task.framework, task.task.id))
    async for some in _slices(tasks):
        for framework, rows in mesosdns.enumerate_tasks(some, names.rules).items():
            found.setdefault(framework, []).extend(rows)
    return [{"name": framework, "tasks": rows} for framework, rows in found.items()]


async def _axfr(settings: DnsSettings, names: Names) -> dict[str, object]:
    records: dict[str, dict[str, list[str]]] = {section: {} for section in mesosdns.SECTIONS.values()}
    apex = names.authority.apexes[0]
    async for some in _slices([name for name in names.zone.names if name.endswith(apex)]):
        for section, rows in mesosdns.axfr(names.zone, some).items():
            records[section].update(rows)
    return {
        "TTL": settings.ttl_s,
        "Serial": names.answers.serial,
        "RefreshSeconds": _refresh_s(settings),
        "Mname": f"{told.mname(settings)}.",
        "Rname": _rname(settings),
        "Domain": names.rules.domain,
        "Records": records,
    }


async def _slices(items: Sequence[T]) -> AsyncIterator[Sequence[T]]:
    """DNS is answered between the slices: a page of everything may take a second of CPU."""
    for at in range(0, len(items), SLICE):
        yield items[at : at + SLICE]
        await asyncio.sleep(0)


def _rname(settings: DnsSettings) -> str:
    return mesosdns.dotted(told.authority(settings).rname)


def _refresh_s(settings: DnsSettings) -> int:
    """0 with a registry, which tells us by itself."""
    return int(settings.mesos.refresh_s) if settings.mesos is not None else 0


def _config(settings: DnsSettings) -> dict[str, object]:
    us, mesos = told.authority(settings), settings.mesos
    place = parse_place("listen", settings.listen[0]) if settings.listen else None
    return {
        "Zk": _without_credentials(mesos.zk if mesos is not None else settings.registry),
        "RefreshSeconds": _refresh_s(settings),
        "StateTimeoutSeconds": int(mesos.timeout_s) if mesos is not None else 0,
        "MesosHTTPSOn": mesos is not None and mesos.https,
        "Timeout": int(settings.patience_s),
        "Resolvers": list(settings.resolvers or ()),
        "ZoneResolvers": {zone: list(places) for zone, places in settings.zone_resolvers.items()},
        "ExternalOn": forwards(settings),
        "RecurseOn": forwards(settings),
        "File": settings.mesos_dns_config,
        "TTL": settings.ttl_s,
        "Domain": settings.domain.strip(".").lower(),
        "Port": place.port if place else 0,
        "Listener": place.ip if place else "",
        "SOAMname": f"{told.mname(settings)}.",
        "SOARname": _rname(settings),
        "SOARefresh": us.refresh_s,
        "SOARetry": us.retry_s,
        "SOAExpire": us.expire_s,
        "SOAMinttl": us.negative_ttl_s,
        "HttpPort": settings.port,
        "HTTPListener": settings.host,
        "IPSources": list(settings.ip_sources),
        "EnforceRFC952": settings.enforce_rfc952,
        "SRVRecordDefaultWeight": settings.srv_weight,
        "EnumerationOn": settings.enumeration,
    }


def _masters(settings: DnsSettings) -> list[str]:
    """Those that the settings name, until one has been heard."""
    return list(settings.mesos.masters) if settings.mesos is not None else []


def _without_credentials(url: str) -> str:
    """`zk://user:secret@h:2181/x` -> `zk://h:2181/x`; what is no ZooKeeper is shown as nothing, as it is none."""
    parts = urlsplit(url)
    return f"zk://{parts.netloc.rpartition('@')[2]}{parts.path}" if parts.scheme == "zk" else ""
