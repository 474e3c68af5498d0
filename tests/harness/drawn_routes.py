"""Sets of routes, policies and settings, drawn by chance from all that can be said; the same number draws the same set."""

import random
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network
from pathlib import Path

import msgspec

from fairlead_discovery.decisions import labels, words
from fairlead_discovery.policies import (
    Bamboo,
    Canary,
    Destination,
    Failover,
    HashPolicy,
    HeaderChange,
    HeaderMatch,
    Intentions,
    LoadBalancer,
    Policy,
    QueryMatch,
    Resolver,
    RouteMatch,
    Router,
    RouterLeg,
    Share,
    Source,
    Split,
    Subset,
    Target,
    name_of,
)
from fairlead_discovery.records import Check, Discovery, Member, Route, RoutePort
from fairlead_discovery.snapshots import Snapshot, Trust
from fairlead_lb.decisions import grammar, picture, render, routes
from fairlead_lb.decisions.between import Between
from fairlead_lb.decisions.change import Serving, Surroundings
from fairlead_lb.decisions.mesh import MeshRules
from fairlead_lb.decisions.routes import Rules, Wanted
from fairlead_lb.decisions.traffic import HTTP_ONLY
from fairlead_lb.decisions.values import Frame, Structure
from fairlead_lb.decisions.vips import VipRules
from harness.balancer import member
from harness.certificates import self_signed

JOE = "joe:$5$rounds=1000$fairlead$FvBYsSrHKZqtzoCZUg1/m1IJX2G9uXOrrG5sc9MERW9"
TRAFFIC: Mapping[str, tuple[str, ...]] = {
    "allow": ("10.0.0.0/8", "10.0.0.0/8,192.168.1.7,::1/128"),
    "deny": ("10.1.0.0/16", "0.0.0.0/0,::/0"),
    "auth": (f"shop:{JOE}", f"shop:{JOE},ann:{JOE.partition(':')[2]}"),
    "https_only": ("true",),
    "hsts": ("true",),
    "rate": ("10/s", "9999999/m"),
    "client_rate": ("5/s", "1/m"),
    "server_connections": ("1", "100000"),
    "server_queue": ("1", "10"),
    "queue_timeout": ("10ms", "1h"),
    "connect_timeout": ("200ms", "1m"),
    "tunnel_timeout": ("1s", "168h"),
    "retries": ("0", "2", "10"),
    "retry_on": (*words.RETRY_ON, ",".join(words.RETRY_ON)),
    "retry_budget": ("20%", "0.01%"),
    "eject_after": ("1", "1000"),
    "eject_share": ("0%", "33.3%"),
    "eject_least": ("1", "100000"),
    "eject_for": ("1s", "1h"),
    "eject_at_most": ("10%", "100%"),
    "max_connections": ("1", "1000000"),
    "max_pending": ("1", "1000000"),
    "break_at": ("0.01%", "100%"),
    "break_for": ("1s", "1h"),
    "break_least": ("1", "1000000"),
    "abort": ("5%:503", "0.01%:400", "100%:599"),
    "delay": ("10%:500ms", "100%:1ms"),
    "strip_path": ("/svc1", "/a%20b/c~d"),
    "location_prefix": ("/svc1", "/a%20b/c~d"),
    "deadlines": ("true",),
    "protocol": ("h2", "grpc", "http1"),
}
"""Every word with values that may stand for it."""
KNOWN = (
    "[NOTICE]",
    "HTTP log/header format not usable with frontend 'fairlead_ports'",
    "HTTP log/header format not usable with frontend 'fairlead_vips'",
)
"""Of what HAProxy says: those frontends become HTTP only once a connection's service does, and log both in one format."""
MODES = ("http", "http", "http", "tcp", "tls")
ROOT_DOMAIN = "fairlead.test"


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawn:
    """`wanted.refused` is what our own grammar turned down."""

    wanted: Wanted
    text: str
    maps: Mapping[str, str]


def folder_of(tmp_path: Path) -> Path:
    """With the certificates that any drawn setting names."""
    cert, key = self_signed(tmp_path)
    for name in ("identity.pem", "default.pem"):
        (tmp_path / name).write_text(cert.read_text() + key.read_text())
    (tmp_path / "bundle.pem").write_text(cert.read_text())
    (tmp_path / "crt-list").write_text(f"{tmp_path}/default.pem\n")
    (tmp_path / "maps").mkdir()
    return tmp_path


def drawn(number: int, folder: Path) -> Drawn:
    chance = random.Random(number)
    frame = _frame(chance, folder)
    given = [_route(chance, n, chance.choice(_modes(frame))) for n in range(chance.randrange(1, 9))]
    snapshot = Snapshot(
        revision=1,
        trust=Trust.LIVE,
        routes={r.service: r for r in given},
        members={r.service: {f"m{n}": _member(chance, r, n) for n in range(chance.randrange(4))} for r in given},
        policies={name_of(p): p for p in _policies(chance, given)},  # type: ignore[misc]  # each is one of them
    )
    callers = MeshRules(default=chance.choice(("allow", "deny")), trust_domain=ROOT_DOMAIN if frame.identity else "")
    vips = VipRules(network=IPv4Network("127.128.0.0/9")) if chance.random() < 0.5 else None
    between = Between(own=frozenset({"10.0.0.1"}), doors={f"10.0.0.{n}": (f"10.0.0.{n}", 9443) for n in (1, 2)})
    asked = between if frame.between else None
    rules = Rules(vips=vips, passthrough=frame.passthrough, callers=callers, between=asked)
    wanted = routes.wanted(snapshot, Wanted(), rules, lambda *_: None)
    around = Surroundings(
        frame=frame,
        service_ports=(20100, 20110),
        spare_backends=chance.randrange(3),
        vips=vips,
        callers=callers,
        between=asked,
    )
    made = picture.wanted_picture(Serving(structure=Structure(frame=frame)), wanted, around)
    return Drawn(wanted=wanted, text=render.config(made), maps=render.map_files(made.maps))


def refusal(program: str, found: Drawn, folder: Path) -> str:
    """What HAProxy's own parser says of it, "" when it takes it without a word."""
    for name, text in found.maps.items():
        (folder / "maps" / name).write_text(text)
    (folder / "haproxy.cfg").write_text(found.text)
    done = subprocess.run([program, "-c", "-f", "haproxy.cfg"], cwd=folder, capture_output=True, text=True, check=False)
    said = [line for line in done.stderr.splitlines() if not any(known in line for known in KNOWN)]
    return "\n".join(said) or (f"ended with {done.returncode}" if done.returncode else "")


def _frame(chance: random.Random, folder: Path) -> Frame:
    tls, mesh, log = (chance.random() < 0.5 for _ in range(3))
    passthrough = chance.random() < 0.4
    return Frame(
        folder=str(folder),
        sockets=str(folder),
        host=chance.choice(("127.0.0.1", "0.0.0.0", "::1")),  # nothing is bound: HAProxy reads it only
        http_port=18080,
        https_port=18443 if tls or passthrough else 0,
        health_port=chance.choice((0, 18081)),
        certificates=str(folder / "crt-list") if tls else "",
        passthrough=passthrough,
        keepalive_s=chance.choice((30.0, 0.5)),
        old_worker_s=chance.choice((0.0, 60.0)),
        sticky_header=chance.choice(("X-User", "x_y-z")),
        user=chance.choice(("", "nobody")),
        group="nogroup",
        mesh_port=19443 if mesh else 0,
        mesh_tcp_port=chance.choice((0, 19444)) if mesh else 0,
        mesh_host=chance.choice(("", "127.0.0.2")),
        between=mesh and chance.random() < 0.5,
        identity=str(folder) if mesh else "",
        identity_name="balancer:lb-1" if mesh else "",
        access_log=chance.choice(("denied", "all")) if log else "off",
        access_log_query=chance.random() < 0.5,
        log_name="127.83.12.201:24514" if log else "",
        request_ids=chance.random() < 0.5,
        trace_sampled=chance.choice((-1, 0, 10_000)),
        far_slots=chance.random() < 0.5,
        trusted=chance.choice(((), ("10.0.0.0/8", "fd00::/8"))),
        passive_s=chance.choice((0.0, 2.0, 30.0)),
    )


def _modes(frame: Frame) -> Sequence[str]:
    return MODES if frame.passthrough else MODES[:-1]


def _route(chance: random.Random, number: int, mode: str) -> Route:
    app = f"/n/{number}"
    known = sorted(w for w in TRAFFIC if mode == "http" or w not in HTTP_ONLY)
    said = {f"FAIRLEAD_0_{w.upper()}": chance.choice(TRAFFIC[w]) for w in chance.sample(known, chance.randrange(7))}
    said |= {
        "HAPROXY_0_MODE": mode,
        "HAPROXY_0_BALANCE": chance.choice(grammar.BALANCES[mode]),
        "FAIRLEAD_0_TIMEOUT": chance.choice(("100ms", "1m", "1h")),
        "FAIRLEAD_0_REUSE": chance.choice(("true", "false")),
        "FAIRLEAD_0_RETRY_NON_IDEMPOTENT": chance.choice(("true", "false")),
    }
    if mode != "tls":
        said["FAIRLEAD_0_MTLS"] = chance.choice(("true", "false", "false"))
        said["HAPROXY_0_PORT"] = str(20100 + number + chance.choice((0, 1000)))
    if mode == "http":
        said["HAPROXY_0_PATH"] = chance.choice(("", "/a", "/a/b~c", "/%20x", "/a=b&c"))
        said["HAPROXY_0_STICKY"] = chance.choice(("true", "false"))
    if mode != "tcp":
        said["HAPROXY_0_VHOST"] = f"{chance.choice(('', '*.', 'a.'))}n{number}.example"
    ports = [RoutePort(index=0, check=chance.choice((None, _check(chance))))]
    made, problems = labels.route_of(f"marathon:{app}", {k: v for k, v in said.items() if v}, ports, app=app)
    assert not problems, problems
    return made


def _check(chance: random.Random) -> Check:
    return Check(
        path=chance.choice(("", "/", "/health?x=1&y=%20", "/a/b")),
        interval_s=chance.choice((0.1, 2, 60)),
        timeout_s=chance.choice((0.1, 20)),
        fall=chance.choice((1, 3)),
    )


def _member(chance: random.Random, route: Route, number: int) -> Member:
    task = f"{route.app}-{number}"
    one = member(task, 31000 + number, app=route.app, host=f"10.0.0.{chance.choice((1, 2))}")
    (port,) = one.ports
    vip = {"VIP_0": f"/vip{route.app.strip('/').replace('/', '-')}:{chance.choice((1080, 2080))}"}
    port = msgspec.structs.replace(port, labels=chance.choice(({}, vip)))
    discovery = Discovery(labels={"version": chance.choice(("v1", "v2"))})
    return msgspec.structs.replace(one, ports=(port,), discovery=discovery)


def _policies(chance: random.Random, given: Sequence[Route]) -> list[Policy]:
    """At most one way a service, so that no two of them gainsay each other, and intentions beside."""
    web = [r.service for r in given if r.ports[0].mode == "http"]
    found: list[Policy] = []
    for number, service in enumerate(web):
        others = [s for s in web if s != service]
        made = chance.choice(WAYS)(chance, service, others, number) if others else None
        found += [made] if made is not None else []
    for route in given:
        if chance.random() < 0.3:
            found.append(_intentions(chance, route))
    return found


def _split(chance: random.Random, service: str, others: Sequence[str], _number: int) -> Policy:
    shares = tuple(
        Share(service=s, percent=chance.choice((0, 33.33))) for s in chance.sample(others, min(len(others), 2))
    )
    return Split(service=service, shares=shares, sticky=chance.choice(("", "cookie", "source", "header")))


def _canary(chance: random.Random, service: str, others: Sequence[str], number: int) -> Policy:
    return Canary(service=service, id=f"c{number}", to=Target(service=chance.choice(others)))


def _failover(chance: random.Random, service: str, others: Sequence[str], _number: int) -> Policy:
    return Failover(service=service, to=(Target(service=chance.choice(others)),), min_ready=chance.randrange(1, 4))


def _router(chance: random.Random, service: str, others: Sequence[str], _number: int) -> Policy:
    texts = ("v1", "50%", "a,b;q=0.5", "a=b&c")
    headers = (
        HeaderMatch(name="X-A", exact=chance.choice(texts), ignore_case=chance.random() < 0.5),
        HeaderMatch(name="x-b", contains=chance.choice(texts), invert=True),
        HeaderMatch(name="X-C", present=True),
        HeaderMatch(name="X-D", regex="^[0-9]+$"),
    )
    match = RouteMatch(
        header=tuple(chance.sample(headers, chance.randrange(3))),
        methods=chance.choice(((), ("GET", "PUT"))),
        query_param=chance.choice(((), (QueryMatch(name="a-b", exact=chance.choice(texts)),))),
        **chance.choice(({}, {"path_exact": "/a~b"}, {"path_prefix": "/api/"}, {"path_regex": "^/v[12]/"})),
    )
    change = HeaderChange(set={"X-C": chance.choice(texts)}, add={"X-D": "w"}, remove=("X-E",))
    there = Destination(
        service=chance.choice(("", *others)),
        prefix_rewrite="/v2/" if match.path_prefix else "",
        request_timeout_s=chance.choice((0.0, 1.5)),
        num_retries=chance.choice((-1, 0)),
        request_headers=chance.choice((HeaderChange(), change)),
        response_headers=chance.choice((HeaderChange(), change)),
    )
    return Router(service=service, route=(RouterLeg(match=match, destination=there),))


def _resolver(chance: random.Random, service: str, _others: Sequence[str], _number: int) -> Policy:
    hashed = HashPolicy(field=chance.choice(("header", "cookie", "query_parameter")), field_value="user-id")
    how = (
        LoadBalancer(),
        LoadBalancer(policy="least_request"),
        LoadBalancer(policy="maglev", hash_policies=(hashed,)),
    )
    return Resolver(
        service=service,
        subsets={"v1": Subset(filter="version == v1"), "v2": Subset(filter="version == v2")},
        default_subset=chance.choice(("", "v1")),
        load_balancer=chance.choice(how),
        connect_timeout_s=chance.choice((0, 0.5)),
        request_timeout_s=chance.choice((0, 7)),
    )


def _bamboo(chance: random.Random, service: str, _others: Sequence[str], number: int) -> Policy:
    texts = (
        f"hdr(host) -i b{number}.example",
        f"path_beg -i /bamboo{number}",
        f"hdr_end(host) .b{number}.example",
        f"hdr(host) b{number}.example",
        f"path_reg ^/b{number}/[0-9]+",
    )
    return Bamboo(service=service, acl=chance.choice(texts))


def _intentions(chance: random.Random, route: Route) -> Policy:
    web = route.ports[0].mode == "http"
    sources = tuple(
        Source(
            name=name,
            action=chance.choice(("allow", "deny")),
            methods=chance.choice(((), ("GET", "PUT"))) if web else (),
            paths=chance.choice(((), ("/a", "/a/b/"))) if web else (),
        )
        for name in chance.sample(("marathon:/n/0", "*", "anonymous", "erp:db"), chance.randrange(4))
    )
    return Intentions(service=route.service, default=chance.choice(("", "allow", "deny")), sources=sources)


Way = Callable[[random.Random, str, Sequence[str], int], Policy]
WAYS: Sequence[Way] = (
    _split,
    _canary,
    _failover,
    _router,
    _resolver,
    _bamboo,
)
