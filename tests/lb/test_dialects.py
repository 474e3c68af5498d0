"""Dialects that say the same give the same routes; whatever the grammar lets through, HAProxy's own parser takes."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairlead_discovery.decisions import labels, words
from fairlead_discovery.policies import Bamboo, name_of
from fairlead_discovery.records import Route, RoutePort
from fairlead_discovery.snapshots import Snapshot, Trust
from fairlead_lb.decisions import route_files, routes
from fairlead_lb.decisions.parts import derive
from fairlead_lb.decisions.route_files import Entry
from fairlead_lb.decisions.routes import Rules, Wanted
from harness import drawn_routes
from harness.drawn_routes import TRAFFIC
from harness.servers import require

SERVICE = "erp:db"


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


HOSTS = ("a.example", "b.example", "*.c.example", "*.b.example")
PATHS = ("", "/svc1", "/svc1/deep", "/x~y")


def as_rule(hosts: Sequence[str], path: str) -> str:
    """Bamboo's text: the exact ones in one condition, each wildcard an end of its own, the path beside each."""
    exact = " ".join(h for h in hosts if not h.startswith("*."))
    ends = [f"{{ hdr_end(host) -i {h[1:]} }}" for h in hosts if h.startswith("*.")]
    of_host = [*([f"{{ hdr(host) -i {exact} }}"] if exact else []), *ends]
    return " || ".join(f"{one} {{ path_beg {path} }}" if path else one for one in of_host)


services = st.tuples(st.lists(st.sampled_from(HOSTS), unique=True, min_size=1), st.sampled_from(PATHS))


@settings(max_examples=150, deadline=None)
@given(st.lists(services, min_size=1, max_size=3))
def test_labels_and_bamboos_rules_that_say_the_same_lead_to_the_same(asked_: list[tuple[list[str], str]]):
    """Hosts, wildcards and beginnings of paths, of services that contend for them too: whoever is first by name has them."""
    names = [f"marathon:/s{number}" for number in range(len(asked_))]
    given_: dict[str, Route] = {}
    for name, (hosts, path) in zip(names, asked_, strict=True):
        said = {"HAPROXY_0_VHOST": ",".join(hosts), **({"HAPROXY_0_PATH": path} if path else {})}
        given_[name], problems = labels.route_of(name, said, [RoutePort(index=0)], app=name[9:])
        assert () == problems
    rules = [Bamboo(service=n, acl=as_rule(*one)) for n, one in zip(names, asked_, strict=True)]
    plain = {n: Route(service=n, app=n[9:], ports=(RoutePort(index=0),)) for n in names}
    by_labels = wanted_of(Snapshot(revision=1, trust=Trust.LIVE, routes=given_))
    by_rules = wanted_of(Snapshot(revision=1, trust=Trust.LIVE, routes=plain, policies={name_of(r): r for r in rules}))

    assert by_labels.maps == by_rules.maps
    assert by_labels.backends == by_rules.backends
    assert by_labels.refused.keys() == by_rules.refused.keys()


def wanted_of(snapshot: Snapshot) -> Wanted:
    return routes.wanted(snapshot, Wanted(), Rules(), lambda *_: None)


def test_every_word_of_traffic_rules_is_drawn():
    """A new one too, or HAProxy's parser would never see it."""
    assert words.TRAFFIC.keys() == TRAFFIC.keys()


@pytest.mark.needs("haproxy")
@pytest.mark.timeout(900)
@pytest.mark.parametrize("sets", [60, pytest.param(2000, marks=pytest.mark.soak)])
def test_haproxys_own_parser_takes_thousands_of_generated_sets_of_routes(tmp_path: Path, sets: int):
    """Any rule, policy and setting together: not one was refused by our grammar, not one by HAProxy, nor warned of."""
    program, folder = require("haproxy"), drawn_routes.folder_of(tmp_path)
    for number in range(sets):
        found = drawn_routes.drawn(number, folder)

        assert {} == found.wanted.refused, number
        assert "" == drawn_routes.refusal(program, found, folder), number
