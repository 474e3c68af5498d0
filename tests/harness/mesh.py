"""An identity authority in the test's own loop, callers with certificates, and a balancer with a mesh port."""

import asyncio
import contextlib
import ssl
import time
from collections.abc import AsyncIterator
from pathlib import Path

from fairlead_daemon.logs import Log
from fairlead_daemon.main import Context
from fairlead_discovery import authorityd
from fairlead_discovery.adapters import x509
from fairlead_discovery.authority import Authority, Terms
from fairlead_discovery.authorityd import AuthoritySettings
from fairlead_discovery.identities import Answer, Identity
from fairlead_discovery.policies import Intentions, Source, path_of
from fairlead_discovery.records import encode
from fairlead_discovery.registry import Put
from harness.balancer import Balancer
from harness.ports import free_port
from harness.waiting import eventually

DOMAIN = "test.internal"


class Caller:
    """A service with a certificate, as a program that speaks TLS itself."""

    def __init__(self, folder: Path) -> None:
        self.place = Identity(folder)

    def context(self, *, alpn: tuple[str, ...] = ()) -> ssl.SSLContext:
        made = ssl.create_default_context(cafile=str(self.place.bundle_file))
        made.check_hostname = False  # the balancer's name is its own; its root is checked
        made.load_cert_chain(self.place.folder / "cert.pem", self.place.folder / "key.pem")
        if alpn:
            made.set_alpn_protocols(list(alpn))
        return made

    async def ask(
        self, port: int, service: str = "", path: str = "/", *, sni: str = "x", **more: str
    ) -> tuple[int, str]:
        """Status and body, on a connection of its own. Raises OSError (ssl.SSLError is one) when it is refused."""
        async with asyncio.timeout(15):
            reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=self.context(), server_hostname=sni)
            try:
                writer.write(request(service, path, close=True, **more))
                raw = await reader.read(-1)
            finally:
                writer.close()
        if not raw.startswith(b"HTTP/"):
            raise ConnectionError(f"cut answer: {raw[:40]!r}")
        head, _, body = raw.partition(b"\r\n\r\n")
        return int(head.split()[1]), body.decode()


def request(service: str, path: str = "/", *, close: bool = False, **more: str) -> bytes:
    method = more.pop("method", "GET")
    headers = {"Host": more.pop("host", "any"), **{k.replace("_", "-"): v for k, v in more.items()}}
    if service:
        headers["X-Fairlead-Service"] = service
    if close:
        headers["Connection"] = "close"
    lines = "".join(f"{k}: {v}\r\n" for k, v in headers.items())
    return f"{method} {path} HTTP/1.1\r\n{lines}\r\n".encode()


class Mesh:
    """`authority` is the daemon's folder opened once more, with a clock of the test's."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.settings: AuthoritySettings | None = None
        self._running: asyncio.Task[None] | None = None
        self._context = Context(name="ca", log=Log("ca"))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def start(self, registry: str) -> None:
        self.settings = AuthoritySettings(
            registry=registry, data_dir=str(self.folder / "ca-data"), port=self.port, trust_domain=DOMAIN,
            token="off", overlap_s=1.0,
        )  # fmt: skip
        self._context = Context(name="ca", log=Log("ca"))
        self._running = asyncio.create_task(authorityd.run(self.settings, self._context))
        await eventually("the authority has a root", self._has_root)

    async def _has_root(self) -> bool:
        assert self._running is not None
        if self._running.done():
            await self._running
        return await is_open(self.port) and (self.folder / "ca-data" / "ca" / "authority.json").exists()

    async def stop(self) -> None:
        self._context.stop.set()
        if self._running is not None:
            await asyncio.wait_for(self._running, 10)
            self._running = None

    def authority(self, *, ago_s: float = 0.0, folder: str = "ca-data/ca") -> Authority:
        made = Authority(
            folder=self.folder / folder, trust_domain=DOMAIN, terms=Terms(overlap_s=1.0),
            clock=lambda: time.time() - ago_s,
        )  # fmt: skip
        made.open()
        return made

    async def caller(self, service: str, *, of: Authority | None = None) -> Caller:
        """`of`: another authority than ours; whom to believe is ours all the same."""
        key, ours = x509.new_key(), self.authority()
        issued = await (of or ours).issue(service, x509.request(key, "x", "spiffe://x/y"))
        made = Caller(self.folder / "callers" / f"{time.monotonic_ns()}")
        answer = Answer(spiffe_id="", chain=issued.chain, bundle=ours.bundle(), not_after_s=0)
        made.place.keep(key, answer)
        return made


async def intend(place: Balancer, *sources: Source, default: str = "", to: str = "marathon:/shop/web") -> None:
    record = Intentions(service=to, sources=sources, default=default)
    await place.applied(await place.registry.commit([Put(path_of(record), encode(record))]))


@contextlib.asynccontextmanager
async def meshed(folder: Path, **settings: object) -> AsyncIterator[tuple[Balancer, Mesh]]:
    """A balancer with its identity, and its authority."""
    mesh = Mesh(folder)
    ports = {"mesh_port": free_port(), "mesh_tcp_port": free_port(), "identity_authority": mesh.url}
    async with Balancer(folder, **{**ports, "spare_backends": 4, **settings}) as place:
        await mesh.start(place.url)
        try:
            await place.start()
            await eventually("the mesh port is open", lambda: is_open(place.settings.mesh_port), within_s=20)
            yield place, mesh
        finally:
            await mesh.stop()


async def is_open(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True
