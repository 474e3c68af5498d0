"""A Mesos master over HTTP, found by its ZooKeeper nodes or a list. Only the pages that Mesos-DNS read."""

import asyncio
import ssl
from base64 import b64encode
from dataclasses import replace
from http import HTTPStatus
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
import msgspec

from fairlead_daemon.errors import BadSettings, FairleadError, Refused, Unavailable
from fairlead_daemon.logs import Log
from fairlead_discovery.adapters.zookeeper import Client
from fairlead_discovery.adapters.zookeeper_place import parse_place
from fairlead_discovery.records import MasterInfo
from fairlead_dns.adapters.regular import read_regular
from fairlead_dns.decisions.mesos_state import candidates, is_change, master, master_of_node
from fairlead_dns.naming_settings import MesosSource

log = Log("dns")
PAGES = ("/master/state", "/master/state.json")
"""The second one for masters before 0.25."""
LOOK_S = 10.0
SILENCE_S = 60.0
"""Mesos' operator stream beats every 15 s."""
REDIRECTS = frozenset({301, 302, 307, 308})


class Credentials(msgspec.Struct, frozen=True, rename={"mesos": "mesosCredentials"}):
    """A credentials file: its own keys, or those of Mesos-DNS' config."""

    principal: str = ""
    secret: str = ""
    mesos: "Credentials | None" = None


TLS_FILES = ("ca_file", "cert_file", "key_file")


class MesosMaster:
    """Owned by one task. Raises BadSettings naming the key when it is made."""

    def __init__(self, source: MesosSource) -> None:
        self.masters: tuple[MasterInfo, ...] = tuple(filter(None, map(_listed, source.masters)))
        """Those that are known: of the list, or as ZooKeeper shows them, the leader first."""
        self._source = source
        self._blind = False
        tls, headers = _tls(source) if source.https else True, _credentials(source.credentials_file)
        self._path, self._zookeeper = _zookeeper(source.zk)
        self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=tls), headers=headers)

    async def close(self) -> None:
        await self._session.close()
        if self._zookeeper is not None:
            await self._zookeeper.close()

    async def state(self) -> tuple[bytes, str]:
        """The leader's state, and where it is from. Raises Unavailable naming every place that was asked."""
        await self._look()
        why: list[str] = []
        known = (f"{_host(each.address.ip)}:{each.address.port}" for each in self.masters)
        for place in dict.fromkeys((*known, *self._source.masters)):
            try:
                return await self._read(place), place
            except FairleadError as error:
                why.append(str(error))
        raise Unavailable("; ".join(why) or f"{self._source.zk}: no master there")

    async def changes(self, place: str, changed: asyncio.Event) -> None:
        """Sets `changed` when the master tells of a task, an agent or a framework; returns when it tells no more."""
        url = f"{'https' if self._source.https else 'http'}://{place}/api/v1"
        patient = aiohttp.ClientTimeout(total=None, sock_connect=self._source.timeout_s, sock_read=SILENCE_S)
        try:
            async with self._session.post(url, json={"type": "SUBSCRIBE"}, timeout=patient) as response:
                if response.status != HTTPStatus.OK:
                    log.debug("master tells no events", place=place, status=response.status)
                    return
                async for part in response.content.iter_any():
                    if is_change(part):
                        changed.set()
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            log.debug("master's events ended", place=place, why=str(error) or "silence")

    async def _look(self) -> None:
        """Masters as ZooKeeper shows them now; while it is out of sight those that were known."""
        if self._zookeeper is None:
            return
        try:
            async with asyncio.timeout(LOOK_S):
                names = candidates(await self._zookeeper.children(self._path) or ())
                nodes = [(name, await self._zookeeper.get(f"{self._path}/{name}")) for name in names]
        except (FairleadError, TimeoutError) as error:
            if not self._blind:
                log.warning("masters not found by ZooKeeper", zk=self._source.zk, why=str(error) or "no answer")
            self._blind = True
            return
        if self._blind:
            log.info("masters found by ZooKeeper again", zk=self._source.zk)
        self._blind = False
        found = [master_of_node(name, node.data) for name, node in nodes if node is not None]
        self.masters = tuple(each for each in found if each is not None) or self.masters

    async def _read(self, place: str) -> bytes:
        for page in PAGES:
            status, data, elsewhere = await self._get(place, page)
            if status in REDIRECTS and elsewhere:
                status, data, _ = await self._get(elsewhere, page)
            if status != HTTPStatus.NOT_FOUND:
                break
        if status != HTTPStatus.OK:
            raise Refused(f"{place}: HTTP {status}")
        return data

    async def _get(self, place: str, page: str) -> tuple[int, bytes, str]:
        """Status, body, and the place of a redirect: followed by ourselves, for it must get the credentials."""
        url = f"{'https' if self._source.https else 'http'}://{place}{page}"
        try:
            async with (
                asyncio.timeout(self._source.timeout_s),
                self._session.get(url, allow_redirects=False) as response,
            ):
                data = await response.read() if response.status == HTTPStatus.OK else b""
                return response.status, data, urlsplit(response.headers.get("Location", "")).netloc
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise Unavailable(f"{place}: {error or 'no answer'}") from error


def _zookeeper(zk: str) -> tuple[str, Client | None]:
    """The path, and a client of the servers. Raises BadSettings."""
    if not zk:
        return "", None
    try:
        place = parse_place(zk.removeprefix("zk://"))
    except BadSettings as error:
        raise BadSettings(f"mesos.zk: {str(error).removeprefix('registry: ')}") from error
    if not place.root:
        raise BadSettings(f"mesos.zk: {zk}: no path of the masters' nodes, as /mesos")
    return place.root, Client(replace(place, root=""), lambda _link: None)


def _listed(place: str) -> MasterInfo | None:
    """`10.0.0.1:5050`; None for a host name, which is asked all the same but gets no record."""
    return master(f"master@{place}")


def _host(ip: str) -> str:
    return f"[{ip}]" if ":" in ip else ip


def _tls(source: MesosSource) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=source.ca_file or None)
        if source.cert_file:
            context.load_cert_chain(source.cert_file, source.key_file or None)
    except OSError as error:  # ssl's own errors are of it
        files = [f"{key} {getattr(source, key)}" for key in TLS_FILES if getattr(source, key)]
        raise BadSettings(f"mesos: {', '.join(files)}: {error}") from error
    return context


def check(source: MesosSource) -> None:
    """What making a MesosMaster finds, without opening anything. Raises BadSettings naming key and file."""
    if source.https:
        _tls(source)
    _credentials(source.credentials_file)


def _credentials(file: str) -> dict[str, str]:
    """The header that says who we are."""
    if not file:
        return {}
    try:
        found = msgspec.json.decode(read_regular(Path(file)), type=Credentials)
    except (OSError, msgspec.DecodeError) as error:
        raise BadSettings(f"mesos.credentials_file: {file}: {error}") from error
    found = found.mesos or found
    if not found.principal:
        raise BadSettings(f"mesos.credentials_file: {file}: no principal")
    return {"Authorization": f"Basic {b64encode(f'{found.principal}:{found.secret}'.encode()).decode()}"}
