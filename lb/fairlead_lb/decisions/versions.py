"""What a HAProxy can, by its version and how it was built: as data, looked at once at the start.

What fairlead does works on 2.6; what later versions add is listed with the version it came in, so that `/status` says
what this one has, and a choice can hang on it.
"""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from fairlead_daemon.errors import BadSettings

Version = tuple[int, int]
LEAST: Version = (2, 6)
_VERSION = re.compile(r"^HAProxy version (\d+)\.(\d+)([^ ]*)", re.MULTILINE)
_FEATURES = re.compile(r"^Feature list : (.*)$", re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Capability:
    """`since`: the version; `built` "": in every build."""

    name: str
    since: Version = LEAST
    built: str = ""
    use: str = ""
    """What fairlead does with it."""


LUA = Capability(name="Lua", built="LUA", use="delays of requests, for tests of services")
CAPABILITIES = (
    Capability(name="slots, maps and certificates at run time", use="every change without a reload"),
    Capability(name="switch-mode http", use="HTTP and TCP on one range of service ports"),
    Capability(name="TLS", built="OPENSSL", use="https_port, certificates, mutual TLS"),
    LUA,
    Capability(name="Prometheus page", built="PROMEX", use="none: counters are read from the sockets, of all workers"),
    Capability(
        name="synchronous reload",
        since=(2, 7),
        use="the master's word where it gives one, not asked by version; else its processes are polled",
    ),
    Capability(
        name="dynamic servers", since=(3, 0), use="none: slots serve all versions alike (2.6's `del server` may crash)"
    ),
    Capability(name="stats file", since=(3, 0), use="none: counters are added up over all workers"),
    Capability(name="init-state", since=(3, 1), use="none yet: new servers get requests at once"),
    Capability(name="dynamic backends", since=(3, 4), use="none yet: spare backends"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """`version` as it says it, `2.6.12-1+deb12u4`; `features` are those it was built with."""

    version: str
    number: Version
    features: frozenset[str]

    def can(self, capability: Capability) -> bool:
        return self.number >= capability.since and (not capability.built or capability.built in self.features)

    def capabilities(self) -> Mapping[str, bool]:
        return {c.name: self.can(c) for c in CAPABILITIES}


def program(told: str, *, path: str) -> Program:
    """From `haproxy -vv`. Raises BadSettings when it is no HAProxy, or too old."""
    match = _VERSION.search(told)
    if match is None:
        raise BadSettings(f"haproxy: {path} is no HAProxy: {told.strip()[:80]!r}")
    number = (int(match[1]), int(match[2]))
    version = f"{match[1]}.{match[2]}{match[3]}"
    if number < LEAST:
        raise BadSettings(f"haproxy: {path} is {version}; it takes 2.6 or later")
    return Program(version=version, number=number, features=_features(told))


def needed(found: Program, *, tls: bool) -> Collection[str]:
    """What the settings ask for and this build lacks."""
    return ("TLS (built without OpenSSL): https_port and certificate need it",) if tls and not _tls(found) else ()


def _tls(found: Program) -> bool:
    return bool(found.features & {"OPENSSL", "OPENSSL_AWSLC", "OPENSSL_WOLFSSL"})


def _features(told: str) -> frozenset[str]:
    match = _FEATURES.search(told)
    return frozenset(word[1:] for word in match[1].split() if word.startswith("+")) if match else frozenset()
