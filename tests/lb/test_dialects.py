"""Dialects that say the same give the same routes; whatever the grammar lets through, HAProxy's own parser takes."""

import random
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairlead_discovery.decisions import labels
from fairlead_discovery.records import Check, Route, RoutePort
from fairlead_discovery.snapshots import Snapshot, Trust
from fairlead_lb.decisions import grammar, picture, render, route_files, routes
from fairlead_lb.decisions.change import Serving, Surroundings
from fairlead_lb.decisions.parts import derive
from fairlead_lb.decisions.route_files import Entry
from fairlead_lb.decisions.routes import Rules, Wanted
from fairlead_lb.decisions.values import Frame, Structure
from harness.servers import require

SERVICE = "erp:db"
TRAFFIC: Mapping[str, tuple[str, ...]] = {
    "rate": ("10/s", "100/m"),
    "client_rate": ("5/s",),
    "allow": ("10.0.0.0/8", "10.0.0.0/8,192.168.1.7"),
    "deny": ("10.1.0.0/16",),
    "retries": ("0", "2"),
    "queue_timeout": ("1s",),
    "connect_timeout": ("200ms",),
    "server_connections": ("50",),
    "eject_after": ("5",),
    "max_connections": ("100",),
    "max_pending": ("10",),
    "break_at": ("50%",),
    "deadlines": ("true",),
}
"""Some of the words that labels and files share, with values."""


@st.composite
def asked(draw: st.DrawFn) -> dict[str, str]:
    """By the names of a file's keys; few values, so that all meet."""
    found = {
        "hosts": draw(st.sampled_from(("a.example", "a.example,*.b.example"))),
        "path": draw(st.sampled_from(("", "/svc1", "/svc1/deep"))),
        "port": draw(st.sampled_from(("", "10100"))),
        "balance": draw(st.sampled_from(("roundrobin", "leastconn", "source", "uri"))),
        "sticky": draw(st.sampled_from(("", "true"))),
        "timeout": draw(st.sampled_from(("1m", "500ms"))),
        "reuse": draw(st.sampled_from(("", "true"))),
        "retry_non_idempotent": draw(st.sampled_from(("", "true"))),
    }
    for word in draw(st.lists(st.sampled_from(sorted(TRAFFIC)), unique=True, max_size=4)):
        found[word] = draw(st.sampled_from(TRAFFIC[word]))
    return found


AS_LABELS = {
    "hosts": "HAPROXY_0_VHOST",
    "path": "HAPROXY_0_PATH",
    "port": "HAPROXY_0_PORT",
    "balance": "HAPROXY_0_BALANCE",
    "sticky": "HAPROXY_0_STICKY",
    "timeout": "FAIRLEAD_0_TIMEOUT",
    "reuse": "FAIRLEAD_0_REUSE",
    "retry_non_idempotent": "FAIRLEAD_0_RETRY_NON_IDEMPOTENT",
}


def as_labels(given_: Mapping[str, str]) -> dict[str, str]:
    return {AS_LABELS.get(key, f"FAIRLEAD_0_{key.upper()}"): value for key, value in given_.items() if value}


def as_entry(given_: Mapping[str, str]) -> Entry:
    return Entry(
        service=SERVICE,
        hosts=tuple(given_["hosts"].split(",")),
        path=given_["path"],
        port=int(given_["port"] or 0),
        balance=given_["balance"],
        sticky=bool(given_["sticky"]),
        timeout=given_["timeout"],
        reuse=bool(given_["reuse"]),
        retry_non_idempotent=bool(given_["retry_non_idempotent"]),
        traffic={key: value for key, value in given_.items() if key in TRAFFIC},
    )


@settings(max_examples=150, deadline=None)
@given(asked())
def test_labels_and_files_that_say_the_same_are_the_same_route(given_: dict[str, str]):
    """Shape, hosts, port and limits of what HAProxy gets."""
    by_labels, problems = labels.route_of(SERVICE, as_labels(given_), [RoutePort(index=0)])
    by_file = route_files.routes_of([as_entry(given_)], "routes.toml")[SERVICE]

    assert () == problems
    assert by_file.ports == by_labels.ports
    assert derive(SERVICE, by_file, {}).parts == derive(SERVICE, by_labels, {}).parts


def drawn(chance: random.Random, number: int) -> Route:
    """One of thousands: any balance, check and limits together that the words can say."""
    mode = chance.choice(("http", "http", "tcp"))
    words = chance.sample(sorted(TRAFFIC), chance.randrange(5)) if mode == "http" else []
    given_ = {f"FAIRLEAD_0_{word.upper()}": chance.choice(TRAFFIC[word]) for word in words}
    given_["HAPROXY_0_BALANCE"] = chance.choice(grammar.BALANCES[mode])
    if mode == "http":
        given_["HAPROXY_0_VHOST"] = f"{chance.choice(('', '*.', 'a.'))}n{number}.example"
        given_["HAPROXY_0_PATH"] = chance.choice(("", "/a", "/a/b~c", "/%20x", "/a=b&c"))
        given_["HAPROXY_0_STICKY"] = chance.choice(("true", "false"))
    given_["HAPROXY_0_MODE"] = mode
    given_["FAIRLEAD_0_TIMEOUT"] = chance.choice(("100ms", "1m", "1h"))
    given_["FAIRLEAD_0_REUSE"] = chance.choice(("true", "false"))
    ports = [RoutePort(index=0, check=chance.choice((None, a_check(chance))))]
    return labels.route_of(f"marathon:/n/{number}", {k: v for k, v in given_.items() if v}, ports, app=f"/n/{number}")[
        0
    ]


def a_check(chance: random.Random) -> Check:
    return Check(path=chance.choice(("", "/", "/health?x=1&y=%20", "/a/b")), interval_s=chance.choice((0.1, 2, 60)))


@pytest.mark.needs("haproxy")
@pytest.mark.parametrize("batches", [1, pytest.param(20, marks=pytest.mark.soak)])
def test_haproxys_own_parser_takes_thousands_of_generated_routes(tmp_path: Path, batches: int):
    """Four hundred a process; not one was refused by our grammar, not one by HAProxy."""
    program = require("haproxy")
    around = Surroundings(frame=Frame(folder=str(tmp_path), sockets=str(tmp_path)), service_ports=(20100, 20110))
    (tmp_path / "maps").mkdir()
    for batch in range(batches):
        chance = random.Random(batch)
        given_ = {r.service: r for r in (drawn(chance, number) for number in range(400))}
        snapshot = Snapshot(revision=1, trust=Trust.LIVE, routes=given_)
        wanted = routes.wanted(snapshot, Wanted(), Rules(), lambda *_: None)
        made = picture.wanted_picture(Serving(structure=Structure(frame=around.frame)), wanted, around)
        for name, text in render.map_files(made.maps).items():
            (tmp_path / "maps" / name).write_text(text)
        file = tmp_path / "haproxy.cfg"
        file.write_text(render.config(made))
        done = subprocess.run([program, "-c", "-q", "-f", str(file)], capture_output=True, text=True, check=False)

        assert {} == wanted.refused, batch
        assert (400, 0) == (len(wanted.backends), done.returncode), f"seed {batch}: {done.stderr[:2000]}"
