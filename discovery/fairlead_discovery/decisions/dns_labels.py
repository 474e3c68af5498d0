"""Mesos-DNS' label algorithm: any name becomes a legal DNS label. Bit exact, but for a cut label that would end in `-`.

`Web_Shop.2` -> `web-shop-2`; a framework's dots stay dots: `pod_1.Marathon` -> `pod-1.marathon`.
"""

import hashlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache

LABEL_LIMIT = 63
RFC952_LIMIT = 24
HASH_LENGTH = 5
SUFFIX_LENGTH = 8
KEPT = 16384  # labels: all tasks of a service have most in common
ZBASE32 = "ybndrfg8ejkmcpqxot1uwisza345h769"

Spec = Callable[[str], str]
SPEAKABLE = re.compile(r"[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?")
"""A label of a raw discovery name that is published: a host's, or one with the underscores that Aurora's names have."""

_KEPT = {
    **{ord(c): c for c in "abcdefghijklmnopqrstuvwxyz0123456789"},
    **{ord(c): c.lower() for c in "ABCDEFGHIJKLMNOPQRSTUVWXYZ"},
    **{ord(c): "-" for c in "-._"},
}


@dataclass(frozen=True, slots=True)
class _Cut:
    """How a label is trimmed: the length, and what may not stand at its left and right end."""

    limit: int
    left: str
    right: str


_RFC1123 = _Cut(LABEL_LIMIT, "-", "-")
_RFC952 = _Cut(RFC952_LIMIT, "-0123456789", "-")


@lru_cache(maxsize=KEPT)
def rfc1123(text: str) -> str:
    """The default. `%%Nginx_Proxy` -> `nginx-proxy`; "" when nothing legal is in it."""
    return _trim(legal(text), _RFC1123)


@lru_cache(maxsize=KEPT)
def rfc952(text: str) -> str:
    """At most 24 characters, no leading digit: Mesos-DNS' `enforceRFC952`. `4abc123` -> `abc123`."""
    return _trim(legal(text), _RFC952)


def domain_fragment(name: str, spec: Spec) -> str:
    """A framework's name as labels: `pod_123$abc.marathon` -> `pod-123abc.marathon`."""
    return ".".join(label for label in map(spec, name.split(".")) if label)


def task_hash(task_id: str) -> str:
    """First 5 characters of zbase32(sha1(id)): `test` -> `iffe9`."""
    bits = int.from_bytes(hashlib.sha1(task_id.encode()).digest()[:4], "big")  # noqa: S324  # Mesos-DNS' choice
    return "".join(ZBASE32[(bits >> (27 - 5 * i)) & 31] for i in range(HASH_LENGTH))


def agent_tail(agent_id: str) -> str:
    """Last `-` separated field of an agent's id: `2014-S0` -> `s0`; "" when nothing legal is in it."""
    return legal(agent_id.rpartition("-")[2]).strip("-")


def fit(label: str) -> str:
    """A label over 63 bytes is cut and made unique by a digest, as `<54 bytes>-1a2b3c4d`; others stay as they are.

    Mesos-DNS publishes over-long labels, which no resolver can ask for.
    """
    raw = label.encode("utf-8", "surrogatepass")
    if len(raw) <= LABEL_LIMIT:
        return label
    head = raw[: LABEL_LIMIT - SUFFIX_LENGTH - 1].decode("utf-8", "ignore").rstrip("-")
    return f"{head}-{hashlib.sha256(raw).hexdigest()[:SUFFIX_LENGTH]}"


def spoken_names(task: str, discovery: str, spec: Spec) -> Iterator[tuple[str, ...]]:
    """What a task is called, as labels: by its DiscoveryInfo's name, else its own. With DiscoveryInfo Mesos-DNS makes
    all records for the raw name too (`server.dev` stays two labels): Marathon's and Aurora's users rely on it. A raw
    name with a label that nobody could write (`my web`, `-x`) is left out. Of a name with nothing legal in it Mesos-DNS
    made none: it is called `unnamed-1a2b3c4d`, by a digest.
    """
    name = discovery or task
    mangled = spec(name)
    if discovery and is_speakable(name):
        raw = tuple(fit(part) for part in name.lower().split("."))
        if raw != (mangled,):
            yield raw
    elif name and not mangled:
        yield (f"unnamed-{hashlib.sha256(name.encode('utf-8', 'surrogatepass')).hexdigest()[:SUFFIX_LENGTH]}",)
    yield (mangled,)


def is_speakable(name: str) -> bool:
    """Whether a raw discovery name is published as it is written."""
    return all(map(SPEAKABLE.fullmatch, name.lower().split(".")))


def legal(text: str) -> str:
    """What may stand in a label, in lower case: neither cut nor trimmed."""
    return "".join(_KEPT.get(ord(c), "") for c in text)


def _trim(text: str, cut: _Cut) -> str:
    """Mesos-DNS' own trimming: what right-trimming frees is refilled from the rest. It left a `-` that came last so."""
    trimmed = text.lstrip(cut.left)
    size = min(len(trimmed), cut.limit)
    head = trimmed[:size].rstrip(cut.right)
    if len(head) == size:
        return head
    tail = trimmed[size:].lstrip(cut.right)
    return (head + tail[: size - len(head)]).rstrip(cut.right)
