"""What a HAProxy can is read from what it says of itself; one that cannot serve us is refused with the reason."""

import pytest

from fairlead_daemon.errors import BadSettings
from fairlead_lb.decisions.versions import LEAST, needed, program

TOLD = """HAProxy version {version} 2025/06/02 - https://haproxy.org/
Status: long-term supported branch
Feature list : -51DEGREES +ACCEPT4 {tls}OPENSSL +LUA -QUIC
"""


def told(version: str, tls: str = "+") -> str:
    return TOLD.format(version=version, tls=tls)


@pytest.mark.parametrize(
    ("version", "dynamic_servers", "dynamic_backends"),
    [("2.6.12-1+deb12u4", False, False), ("3.0.11", True, False), ("3.4-dev2", True, True), ("10.0.1", True, True)],
)
def test_capabilities_come_with_versions(version: str, dynamic_servers: bool, dynamic_backends: bool):
    """As a table, by number and not by text."""
    found = program(told(version), path="haproxy")
    can = found.capabilities()

    assert version == found.version
    assert (dynamic_servers, dynamic_backends) == (can["dynamic servers"], can["dynamic backends"])
    assert can["TLS"]
    assert can["Lua"]


@pytest.mark.parametrize("version", ["2.4.22", "1.8.0", "2.5-dev3"])
def test_one_that_is_too_old_is_refused(version: str):
    """With what it is, and what it takes."""
    with pytest.raises(BadSettings, match=f"/x/haproxy is {version}; it takes 2.6 or later"):
        program(told(version), path="/x/haproxy")


def test_another_program_is_refused():
    """Somebody set the wrong path."""
    with pytest.raises(BadSettings, match="/bin/true is no HAProxy"):
        program("true (GNU coreutils) 9.1", path="/bin/true")


def test_what_settings_ask_for_and_a_build_lacks_is_named():
    """HAProxy's own words would come at the first reload only."""
    without = program(told(f"{LEAST[0]}.{LEAST[1]}.0", tls="-"), path="haproxy")

    assert [] == list(needed(without, tls=False))
    assert "OpenSSL" in " ".join(needed(without, tls=True))
    assert [] == list(needed(program(told("3.0.1"), path="haproxy"), tls=True))
