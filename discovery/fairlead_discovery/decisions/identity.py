"""Identities of services: their SPIFFE ids, the names certificates carry, which root signs when.

A service's identity is its key (`marathon:/shop/web`): nothing that a task, a machine or an address is called.
"""

import functools
import hashlib
import re
from collections.abc import Sequence
from urllib.parse import quote, unquote

import msgspec

from fairlead_daemon.errors import Refused
from fairlead_discovery import paths

CN_LIMIT = 64
"""X.509's upper bound of a common name."""
DIGEST = "sha256"
"""What the common name of a longer key begins with; no framework may be called so."""
ANONYMOUS = "anonymous"
"""Who calls without a certificate. No service: a key has a `:`."""
BALANCER = "balancer"
"""The framework of balancers' own identities, which tell for whom they ask: no task may have one."""
SPIFFE_LIMIT = 2048
CLOCK_SKEW_S = 300.0
MOST_KNOWN = 65_536
"""Names that are worked out once: a balancer asks for all of them at every change."""
LONGEST_LEAF_S = 30 * 86_400.0
SHORTEST_LEAF_S = 60.0
_DOMAIN = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*", re.ASCII)
_PLAIN = re.compile(rb"[A-Za-z0-9.-]", re.ASCII)


def trust_domain(text: str) -> str:
    """Lower case letters, digits, `-` and `.`, as SPIFFE wants it. Raises Refused."""
    if len(text) > 200 or not _DOMAIN.fullmatch(text):
        raise Refused(f"trust domain {text[:80]!r}: lower case letters, digits, `-` and `.` only")
    return text


def service(text: str) -> str:
    """A key as it is written, `framework:name`. Raises Refused."""
    framework, sign, name = text.partition(":")
    if not sign or not framework or not name or not text.isprintable():
        raise Refused(f"service {text[:80]!r}: expected framework:name, as marathon:/shop/web")
    if framework == DIGEST:
        raise Refused(f"service {text[:80]!r}: {DIGEST} is the name of no framework")
    if len(text.encode()) > paths.SEGMENT_LIMIT_BYTES // 3:
        raise Refused(f"service {text[:80]!r}…: too long")
    return text


def of_task(key: str) -> str:
    """A key that a task may be. Raises Refused: who could be a balancer could be anybody."""
    if paths.split_service_key(service(key))[0] == BALANCER:
        raise Refused(f"service {key[:80]!r}: identities of {BALANCER} are for balancers alone")
    return key


def spiffe_id(domain: str, key: str) -> str:
    """`marathon:/shop/web` -> `spiffe://<domain>/app/marathon/shop/web`; `etl:worker` -> `…/task/etl/worker`.

    Never the same for two keys. Raises Refused.
    """
    framework, name = paths.split_service_key(service(key))
    kind, segments = ("app", name[1:].split("/")) if name.startswith("/") else ("task", name.split("/"))
    found = f"spiffe://{domain}/{kind}/" + "/".join(map(_segment, (framework, *segments)))
    if len(found) > SPIFFE_LIMIT:
        raise Refused(f"service {key[:80]!r}…: too long for a SPIFFE id")
    return found


def service_of(domain: str, uri: str) -> str | None:
    """The other way; None when it is no id of that domain and form."""
    head = f"spiffe://{domain}/"
    kind, _, rest = uri.removeprefix(head).partition("/")
    framework, _, name = rest.partition("/")
    if not uri.startswith(head) or kind not in ("app", "task") or not framework or not name:
        return None
    try:
        names = "/".join(map(_unsegment, name.split("/")))
        key = paths.service_key(_unsegment(framework), f"/{names}" if kind == "app" else names)
        return key if spiffe_id(domain, key) == uri else None
    except (Refused, ValueError):
        return None


@functools.lru_cache(MOST_KNOWN)
def word(key: str) -> str:
    """A key as one word of a map, a header or a common name: `marathon:%2Fshop%2Fweb`."""
    return quote(key, safe=":@~")


def unword(text: str) -> str:
    return unquote(text)


@functools.lru_cache(MOST_KNOWN)
def common_name(key: str) -> str:
    """`word(key)`, or its digest when that is too long for a certificate."""
    text = word(key)
    if len(text) <= CN_LIMIT:
        return text
    return f"{DIGEST}:{hashlib.sha256(key.encode()).hexdigest()[:56]}"


@functools.lru_cache(MOST_KNOWN)
def dns_name(domain: str, key: str, index: int = 0) -> str:
    """What a certificate of the service is good for towards TLS clients, and the mesh's SNI for its port `index`."""
    digest = hashlib.sha256(key.encode()).hexdigest()[:32]
    return f"{digest}.{domain}" if index == 0 else f"p{index}.{digest}.{domain}"


def balancers_name(domain: str) -> str:
    """What every balancer's certificate is good for, and nobody else's: whom balancers ask at other machines."""
    return f"balancers.{domain}"


def names(domain: str, key: str) -> tuple[str, ...]:
    """What a certificate of the service is good for."""
    shared = (balancers_name(domain),) if paths.split_service_key(key)[0] == BALANCER else ()
    return (dns_name(domain, key), *shared)


def renew_at_s(not_before_s: float, not_after_s: float) -> float:
    """Half of its life: a day's certificate survives an authority that is away for half a day."""
    return (not_before_s + not_after_s) / 2


class Root(msgspec.Struct, frozen=True, kw_only=True):
    """A root of trust. `name` is that of its files. It signs from `active_from_s`, and is believed until `retire_s`."""

    name: str
    active_from_s: float
    retire_s: float = 0.0
    """0: for good."""


Roots = Sequence[Root]


def issuing(roots: Roots, now_s: float) -> Root:
    """The newest that is active. There always is one."""
    active = [r for r in roots if r.active_from_s <= now_s]
    return max(active or roots, key=lambda r: (r.active_from_s, r.name))


def trusted(roots: Roots, now_s: float) -> tuple[Root, ...]:
    """The bundle: who signs, who will, and who has signed what may still be in use."""
    return tuple(r for r in roots if not r.retire_s or r.retire_s > now_s)


def rotated(roots: Roots, name: str, now_s: float, *, overlap_s: float, leaf_s: float) -> tuple[Root, ...]:
    """With a new root: believed at once, signing after `overlap_s`, when everybody has its bundle. Those before it are
    believed until their last leaf has ended. Raises Refused while an earlier rotation has not come to signing.
    """
    if overlap_s and any(r.active_from_s > now_s for r in roots):
        raise Refused("a rotation is under way: its root does not sign yet")
    active_from_s = now_s + overlap_s
    retire_s = active_from_s + leaf_s + CLOCK_SKEW_S if overlap_s else now_s
    old = [msgspec.structs.replace(r, retire_s=min(r.retire_s or retire_s, retire_s)) for r in trusted(roots, now_s)]
    return (*old, Root(name=name, active_from_s=active_from_s))


def _segment(text: str) -> str:
    """One path segment of SPIFFE's few characters: others as `_2f`, a byte each."""
    plain = "".join(chr(b) if _PLAIN.fullmatch(bytes([b])) else f"_{b:02x}" for b in text.encode())
    return {"": "_", ".": "_2e", "..": "_2e_2e"}.get(plain, plain)


def _unsegment(text: str) -> str:
    if text == "_":
        return ""
    raw = re.sub(r"_([0-9a-f]{2})", lambda m: f"%{m[1]}", text.replace("%", "%25"))
    return unquote(raw, errors="strict")
