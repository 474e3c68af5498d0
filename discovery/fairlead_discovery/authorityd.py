"""`fairlead ca`: the identity authority. Signs short-lived certificates for services; tells the registry whom to believe."""

import asyncio
import time
from pathlib import Path
from typing import Any, Literal

import msgspec
from aiohttp import web
from prometheus_client import Counter, Gauge

from fairlead_daemon.errors import BadSettings, FairleadError, Refused, Unavailable
from fairlead_daemon.logs import Log
from fairlead_daemon.main import Context, Daemon, until_stopped
from fairlead_daemon.settings import DaemonSettings
from fairlead_daemon.web import json_response, make_app, serve
from fairlead_discovery import paths
from fairlead_discovery.adapters import x509
from fairlead_discovery.authority import Authority, Terms
from fairlead_discovery.backends import open_registry
from fairlead_discovery.decisions import identity
from fairlead_discovery.identities import Trust
from fairlead_discovery.records import encode
from fairlead_discovery.registry import Registry
from fairlead_discovery.signers import Command, Hook, Signer

log = Log("ca")
TELL_S = 10.0
WAIT_S = 5.0
API = "/v1"

ISSUED = Counter("fairlead_ca_issued_total", "Signing requests by result", ["result"])
ROOT_EXPIRY = Gauge("fairlead_ca_root_expiry_timestamp_seconds", "When the first of the believed roots ends, Unix time")
ROOTS = Gauge("fairlead_ca_roots", "Roots that are to be believed; two while one replaces the other")
TOLD = Gauge("fairlead_ca_told_timestamp_seconds", "When the registry last took the bundle, Unix time")


class AuthoritySettings(DaemonSettings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of `fairlead ca`."""

    port: int = 8450
    """Port of the signing API."""
    token: Literal["auto", "on", "off"] = "on"  # noqa: S105  # a mode, not a secret
    """Whoever may write may have any identity: `off` means every process that reaches the port."""
    trust_domain: str = "fairlead.internal"
    """What SPIFFE ids begin with. Another one is another authority: certificates of the first mean nothing to it."""
    ca_dir: str = ""
    """Keys and roots, mode 0700. Empty: `<data_dir>/ca`."""
    leaf_s: float = 86_400.0
    """How long a service's certificate lives; renewed at half. Revocation is no more than this and an intention that denies."""
    overlap_s: float = 3_600.0
    """How long a new root is told before it signs: longer than a balancer may be without the registry."""
    signer: tuple[str, ...] = ()
    """Command that signs instead: the request on stdin, FAIRLEAD_SPIFFE_ID … in its environment, the chain on stdout."""
    signer_url: str = ""
    """The same as an HTTP hook, https:// unless it is on this machine."""
    signer_token_file: str = ""
    """Its bearer token."""
    signer_roots: str = ""
    """PEM file of the external signer's roots."""


def check(settings: AuthoritySettings) -> None:
    """Raises BadSettings naming the key."""
    try:
        identity.trust_domain(settings.trust_domain)
    except Refused as error:
        raise BadSettings(f"trust_domain: {error}") from error
    if not identity.SHORTEST_LEAF_S <= settings.leaf_s <= identity.LONGEST_LEAF_S:
        raise BadSettings(
            f"leaf_s: {settings.leaf_s:g}: not between {identity.SHORTEST_LEAF_S:g} and {identity.LONGEST_LEAF_S:g}"
        )
    if settings.overlap_s <= 0:
        raise BadSettings(f"overlap_s: {settings.overlap_s:g} is not above 0")
    if settings.signer and settings.signer_url:
        raise BadSettings("signer_url: there is a signer already; one of both")
    if bool(settings.signer or settings.signer_url) != bool(settings.signer_roots):
        raise BadSettings("signer_roots: an external signer needs the PEM file of its roots, and nobody else does")
    if settings.signer_url and not settings.signer_url.startswith(("https://", "http://127.0.0.1:", "http://[::1]:")):
        raise BadSettings(f"signer_url: {settings.signer_url}: https:// only, or http://127.0.0.1")


def authority(settings: AuthoritySettings) -> Authority:
    """Not opened yet. Raises BadSettings."""
    check(settings)
    return Authority(
        folder=Path(settings.ca_dir) if settings.ca_dir else Path(settings.data_dir) / "ca",
        trust_domain=settings.trust_domain,
        terms=Terms(leaf_s=settings.leaf_s, overlap_s=settings.overlap_s),
        signer=_signer(settings),
        anchors=Path(settings.signer_roots) if settings.signer_roots else None,
    )


def _signer(settings: AuthoritySettings) -> Signer | None:
    if settings.signer:
        return Command(settings.signer)
    if settings.signer_url:
        return Hook(settings.signer_url, Path(settings.signer_token_file) if settings.signer_token_file else None)
    return None


class SignRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Body of `POST /v1/sign`. The caller makes its key, and keeps it."""

    service: str
    csr: str
    dns: tuple[str, ...] = ()
    life_s: float = 0.0


class RotateRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    at_once: bool = False


class Pages:
    """The API. Answers hold certificates, never keys."""

    def __init__(self, made: Authority, tell: asyncio.Event) -> None:
        self._authority = made
        self._tell = tell

    async def sign(self, request: web.Request) -> web.Response:
        body = msgspec.json.decode(await request.read(), type=SignRequest)
        try:
            found = await self._authority.issue(body.service, body.csr, dns=body.dns, life_s=body.life_s)
        except FairleadError:
            ISSUED.labels("refused").inc()
            raise
        ISSUED.labels("issued").inc()
        bundle = self._authority.bundle()
        return json_response({**msgspec.to_builtins(_Issued.of(found)), "bundle": bundle})

    async def bundle(self, _request: web.Request) -> web.Response:
        return web.Response(text=self._authority.bundle(), content_type="application/x-pem-file")

    async def status(self, _request: web.Request) -> web.Response:
        return json_response(status_of(self._authority))

    async def rotate(self, request: web.Request) -> web.Response:
        raw = await request.read()
        body = msgspec.json.decode(raw, type=RotateRequest) if raw else RotateRequest()
        self._authority.rotate(at_once=body.at_once)
        self._tell.set()
        return json_response(status_of(self._authority))


class _Issued(msgspec.Struct, frozen=True):
    service: str
    spiffe_id: str
    chain: str
    not_after_s: float

    @classmethod
    def of(cls, found: Any) -> "_Issued":
        return cls(found.service, found.spiffe_id, found.chain, found.not_after_s)


def status_of(made: Authority) -> dict[str, Any]:
    now_s = made.clock()
    found: dict[str, Any] = {
        "trust_domain": made.trust_domain,
        "leaf_s": made.terms.leaf_s,
        "overlap_s": made.terms.overlap_s,
        "signs": "an external signer" if made.signer is not None else "this authority",
        "roots": [],
    }
    if made.signer is None:
        signing = identity.issuing(made.roots, now_s).name
        found["roots"] = [
            {"name": r.name, "signs": r.name == signing, "active_from_s": r.active_from_s, "retire_s": r.retire_s}
            for r in identity.trusted(made.roots, now_s)
        ]
    return found


async def run(settings: AuthoritySettings, context: Context) -> None:
    """See Daemon. Signs while the registry is away; what serves goes on while this is away, until leaves end."""
    made = authority(settings)
    made.open()
    tell = asyncio.Event()
    app = make_app(settings, context.health)
    pages = Pages(made, tell)
    app.router.add_post(f"{API}/sign", pages.sign)
    app.router.add_post(f"{API}/rotate", pages.rotate)
    app.router.add_get(f"{API}/bundle", pages.bundle)
    app.router.add_get(f"{API}/status", pages.status)
    registry = await open_registry(settings.registry)
    try:
        runner, port = await serve(app, settings)
        try:
            context.log.info("serving", http=f"{settings.host}:{port}", trust_domain=settings.trust_domain)
            await until_stopped(context, _tell(made, registry, tell, f"http://{settings.host}:{port}"))
        finally:
            await runner.cleanup()
    finally:
        await registry.close()


async def _tell(made: Authority, registry: Registry, changed: asyncio.Event, url: str) -> None:
    """For ever: the registry has the bundle, also after it was restored from elsewhere."""
    failed = False
    while True:
        changed.clear()
        try:
            made.forget_retired()
            await _write(made, registry, url)
            failed = False
        except FairleadError as error:
            if not failed:
                log.warning("the registry does not have the bundle", reason=str(error))
            failed = True
        try:
            async with asyncio.timeout(TELL_S if not failed else 1.0):
                await changed.wait()
        except TimeoutError:
            pass


async def _write(made: Authority, registry: Registry, url: str) -> None:
    """Raises FairleadError."""
    bundle = made.bundle()
    ends = [x509.seen(one).not_after_s for one in x509.split(bundle)]
    ROOTS.set(len(ends))
    ROOT_EXPIRY.set(min(ends))
    data = encode(Trust(trust_domain=made.trust_domain, bundle=bundle, authority=url))
    try:
        async with asyncio.timeout(WAIT_S):
            there = await registry.read(paths.TRUST)
            if there is None or there.data != data:
                await registry.write(paths.TRUST, data)
    except TimeoutError as error:
        raise Unavailable("registry: no answer") from error
    TOLD.set(time.time())


DAEMON = Daemon(
    name="ca",
    summary="The identity authority: short-lived certificates for services.",
    settings=AuthoritySettings,
    run=run,
    check=check,
)
