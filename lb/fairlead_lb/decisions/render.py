"""HAProxy's configuration from a picture. Every value has passed the grammar; a last guard looks at each again."""

import functools
import re
from collections.abc import Iterator, Mapping

import jinja2
import msgspec

from fairlead_daemon.errors import Refused
from fairlead_discovery.records import Check, Traffic
from fairlead_lb.decisions import breaking, router_lines
from fairlead_lb.decisions.conditions import Line, line
from fairlead_lb.decisions.nearness import is_far
from fairlead_lb.decisions.values import (
    DIALS,
    DUMMY_HOST,
    DUMMY_PORT,
    MAP_NAMES,
    ROUTERS,
    VERDICTS,
    Admin,
    Frame,
    Maps,
    Picture,
    Shape,
    Slots,
    Structure,
)

_SAFE = re.compile(r"[A-Za-z0-9/._~!$&()*+,=:@%?-]*", re.ASCII)
FASTEST_CHECK_S = 0.25
SLOWEST_AGAIN_S = 1.0
"""A server that is down, or in doubt, is looked at so often at least."""
DELAY_LUA = "delay.lua"
"""Lies beside the maps: HAProxy has no way of its own to let a request wait."""
LOOPBACK = {"0.0.0.0": "127.0.0.1", "::": "::1"}
HANDOVER = "handover"
"""A map that is empty on disk: see `handover`."""


def config(picture: Picture) -> str:
    """The whole file. Raises Refused when a value could leave its place."""
    return config_of(picture.structure, [backend(picture, name) for name in picture.slots])


def config_of(structure: Structure, fragments: list[str]) -> str:
    head = _template("haproxy.cfg.j2").render(
        structure=structure,
        rules=[line(rule) for rule in structure.rules],
        router=_router(structure),
        routed=list(router_lines.response_lines(structure.routers)),
        frame=structure.frame,
        binds=structure.binds,
        tls=bool(structure.frame.https_port and structure.frame.certificates),
        next=LOOPBACK.get(structure.frame.host, structure.frame.host),
        mesh=structure.frame.mesh_host or structure.frame.host,
        next_mesh=_reached(structure.frame.mesh_host or structure.frame.host),
        maps=map_folder(structure.frame),
        socket=worker_socket(structure.frame, structure.generation),
        traffic=_used(structure),
        dials=(*DIALS, *VERDICTS, *ROUTERS, "targets"),
    )
    return "\n\n".join((head.strip("\n"), *_sharing(structure, fragments))) + "\n"


def _sharing(structure: Structure, fragments: list[str]) -> Iterator[str]:
    """What many backends say alike is said once, in defaults of their own: HAProxy starts in two thirds of the time."""
    alike: dict[str, list[tuple[str, str]]] = {}
    for fragment in fragments:
        first, _, rest = fragment.partition("\n")
        body, found, servers = rest.partition("\n    server")
        if _shareable(structure.shapes.get(first.removeprefix("backend "))):
            alike.setdefault(body, []).append((first, found + servers))
        else:
            yield fragment
    for number, (body, backends) in enumerate(alike.items(), 1):
        yield f"defaults fairlead_alike_{number} from common\n{body}"
        yield from (f"{first} from fairlead_alike_{number}{servers}" for first, servers in backends)


def _shareable(shape: Shape | None) -> bool:
    """Traffic rules ask for counters of the backend they stand in (`be_conn`, tables): defaults have none."""
    if shape is None:
        return False
    return shape.mode == "http" and shape.traffic == PLAIN and not shape.sticky and not shape.mtls


def _router(structure: Structure) -> str:
    if not structure.routers:
        return ""
    lines = list(router_lines.request_lines(structure.routers))
    return _template("router.cfg.j2").render(routing=lines, maps=map_folder(structure.frame)).rstrip("\n")


def backend(picture: Picture, name: str) -> str:
    """One tenant's fragment; valid or invalid by itself."""
    return backend_text(name, picture.structure.shapes[name], picture.slots[name], picture.structure.frame)


def backend_text(name: str, shape: Shape, slots: Slots, frame: Frame) -> str:
    """Servers come and go all the time: the rest is rendered once, and each line of a server too."""
    return "\n".join((_without_servers(name, shape, frame), *_servers(slots)))


def _servers(slots: Slots) -> Iterator[str]:
    """Empty slots that follow one another are one line: HAProxy starts a fifth sooner for it."""
    empty: list[str] = []
    weight = 0
    for place, slot in slots.items():
        vacant = slot.empty and slot.admin is not Admin.READY
        if empty and not (vacant and slot.weight == weight and _follows(empty[-1], place)):
            yield _vacant(empty[0], empty[-1], weight)
            empty = []
        if vacant:
            empty.append(place)
            weight = slot.weight
        else:
            yield _server(place, slot.host, slot.port, slot.weight, ready=slot.admin is Admin.READY)
    if empty:
        yield _vacant(empty[0], empty[-1], weight)


def _follows(place: str, other: str) -> bool:
    return place[0] == other[0] and int(place[1:]) + 1 == int(other[1:])


@functools.lru_cache(maxsize=4096)
def _vacant(first: str, last: str, weight: int) -> str:
    """`server-template s 11-28 127.0.0.1:1 weight 100 disabled`."""
    one = _server(first, DUMMY_HOST, DUMMY_PORT, weight, ready=False)
    if first == last:
        return one
    return one.replace(f"server {first} ", f"server-template {first[0]} {first[1:]}-{last[1:]} ", 1)


@functools.lru_cache(maxsize=16_384)
def _without_servers(name: str, shape: Shape, frame: Frame) -> str:
    shape = _checked(shape, frame)
    text = _template("backend.cfg.j2").render(name=name, shape=shape, maps=map_folder(frame), frame=frame)
    return "\n".join(line for line in text.split("\n") if line.strip())


@functools.lru_cache(maxsize=65_536)
def _server(place: str, host: str, port: int, weight: int, *, ready: bool) -> str:
    address = f"{guard(_at(host))}:{guard(port)}"
    flags = f"{' backup' if is_far(place) else ''}{'' if ready else ' disabled'}"
    return f"    server {guard(place)} {address} weight {guard(weight)}{flags}"


def _checked(shape: Shape, frame: Frame) -> Shape:
    """As this balancer checks: see Frame.passive_s."""
    if not frame.passive_s:
        return shape
    check = shape.check or Check()
    return msgspec.structs.replace(
        shape, check=msgspec.structs.replace(check, interval_s=max(check.interval_s, frame.passive_s))
    )


def _used(structure: Structure) -> Mapping[str, bool]:
    """Which traffic rules any backend has: what they share is rendered for them alone."""
    rules = [shape.traffic for shape in structure.shapes.values() if shape.traffic != PLAIN]
    return {
        "rates": any(r.rate or r.client_rate for r in rules),
        "breakers": any(r.break_at_percent for r in rules),
        "deadlines": any(r.deadlines for r in rules),
        "delays": any(r.delay is not None for r in rules),
    }


PLAIN = Traffic()


def _reached(host: str) -> str:
    return LOOPBACK.get(host, host)


def map_folder(frame: Frame) -> str:
    return f"{frame.folder}/maps"


def handover(frame: Frame) -> tuple[str, ...]:
    """What makes a worker hand everything to its successor: where to, and no host that needs no second look."""
    folder = map_folder(frame)
    return f"add map {folder}/{HANDOVER}.map all fairlead_handover", f"clear map {folder}/plain.map"


def worker_socket(frame: Frame, generation: int) -> str:
    """One a generation, so that whoever answers is known; short (HAProxy takes 97 characters)."""
    return f"{frame.sockets}/w{generation % 100_000}.sock"


def map_files(maps: Maps) -> Mapping[str, str]:
    """File name -> text. Raises Refused as `config` does."""
    tables = {**{name: getattr(maps, name) for name in MAP_NAMES}, HANDOVER: {}}
    return {
        **{f"{name}.map": map_text(table) for name, table in tables.items()},
        DELAY_LUA: _template(DELAY_LUA).render(),
    }


def map_text(table: Mapping[str, str]) -> str:
    return "".join(f"{guard(key)} {guard(value)}\n" for key, value in table.items())


def guard(value: object) -> str:
    """Any value on its way into the text. Raises Refused when it is more than one plain word."""
    if isinstance(value, Line):
        return value
    text = str(value)
    if not _SAFE.fullmatch(text):
        raise Refused(f"{text[:80]!r} does not belong into a configuration")
    return text


def milliseconds(value_s: float) -> int:
    return max(1, round(value_s * 1000))


def _faster(interval_s: float) -> float:
    return min(SLOWEST_AGAIN_S, max(FASTEST_CHECK_S, interval_s / 4)) if interval_s > FASTEST_CHECK_S else interval_s


def literal(text: str) -> str:
    """A value inside one of HAProxy's format strings."""
    return guard(text).replace("%", "%%")


def _at(host: str) -> str:
    """An address as HAProxy takes it before a port: IPv6 wants no brackets there, but `ipv6@` tells it apart."""
    return f"ipv6@{host}" if ":" in host else host


@functools.cache
def _template(name: str) -> jinja2.Template:
    environment = jinja2.Environment(
        finalize=guard,
        undefined=jinja2.StrictUndefined,
        autoescape=False,  # noqa: S701  # no HTML; `guard` refuses instead of escaping
        loader=jinja2.PackageLoader("fairlead_lb"),
    )
    environment.globals.update(
        trials=breaking.TRIALS, forgotten_s=breaking.FORGOTTEN_S, ms=milliseconds, fast=_faster, at=_at, literal=literal
    )
    return environment.get_template(name)
