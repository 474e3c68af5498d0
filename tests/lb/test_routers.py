"""Where requests lead by what they say: words, lines, maps, and what stays when a router cannot be taken."""

import random
import re
import subprocess
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairlead_daemon.errors import Refused
from fairlead_discovery import paths
from fairlead_discovery.policies import (
    AnyPolicy,
    Destination,
    HeaderChange,
    HeaderMatch,
    Intentions,
    Policy,
    QueryMatch,
    RouteMatch,
    Router,
    RouterLeg,
    Source,
    name_of,
)
from fairlead_discovery.records import Route, RoutePort
from fairlead_discovery.snapshots import Snapshot, Trust
from fairlead_lb.decisions import change as changes
from fairlead_lb.decisions import picture, render, router_files, router_lines, routers, routes, spares, split_files
from fairlead_lb.decisions.change import Reload, Serving
from fairlead_lb.decisions.last_good import Past
from fairlead_lb.decisions.router_lines import FrontRouter
from fairlead_lb.decisions.router_matches import Request, taken
from fairlead_lb.decisions.routes import Rules, Wanted
from fairlead_lb.decisions.values import Key, Structure
from harness.balancer import member
from harness.haproxy_model import AROUND, Model
from harness.servers import require

A, B, C = "o:a", "o:b", "o:c"


def named(*policies: Policy) -> dict[str, AnyPolicy]:
    return {name_of(p): p for p in policies}  # type: ignore[misc]  # each is one of them


def leg(to: str = "", match: RouteMatch | None = None, **more: object) -> RouterLeg:
    return RouterLeg(match=match or RouteMatch(), destination=Destination(service=to, **more))  # type: ignore[arg-type]  # its fields


def router(*legs: RouterLeg, service: str = A) -> Router:
    return Router(service=service, route=legs)


def snapshot(*policies: Policy, without: tuple[str, ...] = (), bad: dict[str, str] | None = None) -> Snapshot:
    there = {
        s: Route(service=s, ports=(RoutePort(index=0, vhosts=(f"{s[2:]}.example",)),))
        for s in (A, B, C)
        if s not in without
    }
    members = {s: {"m": member(f"t{s}", 31000 + n)} for n, s in enumerate(there)}
    return Snapshot(
        revision=1, trust=Trust.LIVE, routes=there, members=members, policies=named(*policies), bad=bad or {}
    )


def underived(_service: str, _members: object) -> None:
    return None


def wanted_of(snap: Snapshot, last: Wanted | None = None, past: Past | None = None) -> Wanted:
    return routes.wanted(snap, last or Wanted(), Rules(past=past or Past()), underived)


API = leg(B, RouteMatch(path_prefix="/api"))


# --- words -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("match", "fits", "fits_not"),
    [
        (RouteMatch(path_exact="/a"), Request(path="/a", query="x=1"), Request(path="/a/")),
        (RouteMatch(path_prefix="/v"), Request(path="/v10"), Request(path="/x/v")),
        (RouteMatch(path_regex="/v[0-9]+"), Request(path="/v10"), Request(path="/v10/x")),
        (RouteMatch(path_exact="/A", case_insensitive=True), Request(path="/a"), Request(path="/b")),
        (RouteMatch(methods=("GET", "PUT")), Request(method="PUT"), Request(method="POST")),
        (
            RouteMatch(header=(HeaderMatch(name="X-V", exact="1"),)),
            Request(headers={"x-v": ["2", "1"]}),
            Request(headers={"x-v": ["11"]}),
        ),
        (
            RouteMatch(header=(HeaderMatch(name="X-V", exact="1", invert=True),)),
            Request(),
            Request(headers={"x-v": ["1"]}),
        ),
        (
            RouteMatch(
                header=(HeaderMatch(name="X-V", prefix="Ab", ignore_case=True), HeaderMatch(name="Y", suffix="z"))
            ),
            Request(headers={"x-v": ["abc"], "y": ["yz"]}),
            Request(headers={"x-v": ["abc"]}),
        ),
        (RouteMatch(header=(HeaderMatch(name="X-V", present=True),)), Request(headers={"x-v": [""]}), Request()),
        (
            RouteMatch(query_param=(QueryMatch(name="a", exact="x y"),)),
            Request(query="b=1&a=x%20y"),
            Request(query="a=x"),
        ),
        (
            RouteMatch(query_param=(QueryMatch(name="a", regex="[0-9]+"),)),
            Request(query="a=12"),
            Request(query="a=12a"),
        ),
        (RouteMatch(query_param=(QueryMatch(name="a", present=True),)), Request(query="b&a"), Request(query="aa=1&ba")),
    ],
)
def test_a_match_means_what_consuls_does(match: RouteMatch, fits: Request, fits_not: Request):
    """Prefixes are of characters, expressions of the whole value; what is not there is fitted by its inverse."""
    one = router(leg(B, match))

    assert (1, 0) == (taken(one, fits), taken(one, fits_not))


def test_the_first_leg_that_fits_takes_the_request():
    """In the order of the record."""
    one = router(leg(B, RouteMatch(path_prefix="/a")), leg(C, RouteMatch(path_prefix="/a/b")), leg(B))

    assert [1, 1, 3] == [taken(one, Request(path=p)) for p in ("/a", "/a/b", "/x")]


NASTY = ("a b'", "a\nb", "a\0", "'", "é", "a\x7f", "{", "a" * 300)
BAD = [
    *((RouteMatch(path_prefix=f"/{text}"), {}) for text in NASTY if text != "{"),
    *((RouteMatch(path_exact=text), {}) for text in ("x", "/a?b", "/a#b", "/a b")),
    *((RouteMatch(path_regex=text), {}) for text in ("(", "a)(b", "(a+)+", "a*b*c*", "(?=x)", "x'", "a b")),
    *((RouteMatch(methods=(text,)), {}) for text in ("get", "GET POST", "")),
    *((RouteMatch(header=(HeaderMatch(name=text, present=True),)), {}) for text in ("", "a b", "a:", "x\n", "a)", "é")),
    *((RouteMatch(header=(HeaderMatch(name="x", exact=text),)), {}) for text in NASTY),
    (RouteMatch(header=(HeaderMatch(name="x"),)), {}),
    (RouteMatch(header=(HeaderMatch(name="x", exact="1", present=True),)), {}),
    (RouteMatch(header=(HeaderMatch(name="x", exact="1", prefix="1"),)), {}),
    *((RouteMatch(query_param=(QueryMatch(name=text, present=True),)), {}) for text in ("", "a b", "a=", "a[", ".*")),
    (RouteMatch(path_exact="/a", path_prefix="/a"), {}),
    *(
        (RouteMatch(path_prefix="/a"), {"prefix_rewrite": text})
        for text in ("x", "/a b", "/'", "/a\n", '/"', "//", "/../x")
    ),
    (RouteMatch(path_regex="/a"), {"prefix_rewrite": "/"}),
    *((RouteMatch(), {"request_timeout_s": value}) for value in (-1.0, 1e9, float("nan"))),
    (RouteMatch(), {"num_retries": 3}),
    *(
        (RouteMatch(), {"request_headers": HeaderChange(set={"X-A": text})})
        for text in (*NASTY, "", " a", "a ", '"', "\\", "%[env(HOME)]")
    ),
    *(
        (RouteMatch(), {"response_headers": HeaderChange(remove=(text,))})
        for text in ("", "a b", "Transfer-Encoding", "X-Fairlead-Caller", "x_fairlead_caller", "Connection")
    ),
]


@pytest.mark.parametrize(("match", "more"), BAD)
def test_what_cannot_be_is_refused_with_its_leg(match: RouteMatch, more: dict[str, object]):
    """By the grammar, before anything is rendered."""
    with pytest.raises(Refused, match=r"^route 2: "):
        routers.checked(router(API, leg(B, match, **more)))


def test_a_router_has_bounds():
    """HAProxy looks at its legs one by one, in its only loop."""
    for one in (router(), router(*[API] * 65), router(*[leg(B, RouteMatch(path_regex="/a"))] * 17)):
        with pytest.raises(Refused):
            routers.checked(one)


# --- files -----------------------------------------------------------------------------------------------------------

FILE = """
[[router]]
service = "o:a"

[[router.route]]
match = { path_prefix = "/api", methods = ["GET"], header = [{ name = "X-V", exact = "1", invert = true }] }
destination = { service = "o:b", prefix_rewrite = "/", request_timeout = "1500ms", request_headers = { set = { X-A = "b" } } }

[[router.route]]
destination = { service = "o:c" }
"""
WRITTEN = router(
    leg(
        B,
        RouteMatch(path_prefix="/api", methods=("GET",), header=(HeaderMatch(name="X-V", exact="1", invert=True),)),
        prefix_rewrite="/",
        request_timeout_s=1.5,
        request_headers=HeaderChange(set={"X-A": "b"}),
    ),
    leg(C),
)


def test_a_file_is_a_router_and_back():
    """With durations as text, and nothing but what was said."""
    found = split_files.parse(FILE, "f.toml")
    [(table, entry)] = split_files.entries_of(list(found.values()))
    assert isinstance(entry, dict)

    assert {"router~o:a": WRITTEN} == found
    assert "router" == table
    assert WRITTEN == router_files.router_of(entry, "again")
    assert "1500ms" == entry["route"][0]["destination"]["request_timeout"]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (
            'route = [{ match = { paths = "/a" } }]',
            "f: router 1: Object contains unknown field `$.route[0].match.paths`",
        ),
        ('route = [{ match = { header = [{ name = "x", is = "1" }] } }]', "f: router 1: Object contains unknown field"),
        ('route = [{ destination = { service = "b" } }]', "f: router 1: b: no service key"),
        (
            'route = [{ destination = { request_timeout = "soon" } }]',
            "f: router 1: route 1: request_timeout: 'soon' is no",
        ),
        ('route = [{ match = { path_prefix = "x" } }]', "f: router 1: route 1: path_prefix 'x': not a path"),
        ("", "f: router 1: 0 routes; between 1 and 64"),
        ("route = 1", "f: router 1: Expected `array`"),
    ],
)
def test_mistakes_are_told_with_their_place(text: str, told: str):
    """File, table, route, field."""
    with pytest.raises(Refused) as caught:
        split_files.parse(f'[[router]]\nservice = "o:a"\n{text}', "f")

    assert str(caught.value).startswith(told)


# --- maps and structure ----------------------------------------------------------------------------------------------


def test_destinations_are_in_a_map_and_what_is_asked_in_the_structure():
    """Whoever has a router has a way, so that others leave at the first rule."""
    found = wanted_of(snapshot(router(API, leg(C))))
    one = found.fronts[0].id

    assert {} == found.refused
    assert {"o_a_p0": one} == found.maps.routers
    assert {f"{one}.1": "o_b_p0", f"{one}.2": "o_c_p0"} == found.maps.hops
    assert {"o_a_p0": "none:0"} == found.maps.ways
    assert found.fronts[0].id == wanted_of(snapshot(router(leg(C, API.match), leg(B)))).fronts[0].id


def test_a_leg_without_a_service_leads_to_the_service_itself():
    """As Consul's: only what is done on the way counts."""
    found = wanted_of(snapshot(router(leg(match=API.match, prefix_rewrite="/"))))

    assert ["o_a_p0"] == list(found.maps.hops.values())


@pytest.mark.parametrize(
    ("snap", "told"),
    [
        (snapshot(router(API), without=(B,)), "router: route 1 to o:b port 0: nothing is known of it"),
        (snapshot(router(leg(B, index=1))), "router: route 1 to o:b port 1: nothing is known of it"),
        (snapshot(router(API, service="o:x")), "router: o:x port 0 has no route"),
        (snapshot(router(leg(B, RouteMatch(path_prefix="x")))), "router: route 1: path_prefix 'x': not a path"),
    ],
)
def test_what_is_not_in_force_is_told(snap: Snapshot, told: str):
    """A leg to nobody takes its requests all the same, and they are answered with 503."""
    found = wanted_of(snap)

    assert any(why.startswith(told) for why in found.refused.values()), found.refused
    assert {} == found.maps.hops


def test_a_bad_router_leaves_the_last_good_one():
    """Refused by the grammar, unreadable, or turned down by HAProxy's own check."""
    good, bad = router(API), router(leg(C, RouteMatch(path_prefix="x")))
    other = router(leg(C, RouteMatch(path_regex="/x")))
    unreadable = {f"{paths.POLICIES}/router~o%3Aa": "it is no JSON"}
    past = Past(good={name_of(good): good}, refused={routers.checked(other).id: "no such thing"})
    by_grammar = wanted_of(snapshot(bad), past=past)
    by_reading = wanted_of(snapshot(bad=unreadable), past=past)
    by_check = wanted_of(snapshot(other), past=past)

    assert [good] * 3 == [w.kept[name_of(good)] for w in (by_grammar, by_reading, by_check)]
    assert ["o_b_p0"] * 3 == [w.maps.hops[f"{w.maps.routers['o_a_p0']}.1"] for w in (by_grammar, by_reading, by_check)]
    assert "router: HAProxy refused it: no such thing; its last good one stays" == by_check.refused[A]


def test_a_target_that_nobody_routes_to_is_as_closed_as_the_service():
    """It is served as the service is, and the service's intentions count for it."""
    closed = Intentions(service=A, sources=(Source(name="anonymous", action="deny"),))
    snap = snapshot(router(API), closed, without=(B,))
    found = wanted_of(replace(snap, members={**snap.members, B: {"m": member("tb", 31009)}}))

    assert {} == found.refused
    assert {"o_a_p0", "shop_web_p0"} == set(found.maps.guarded)
    assert "deny" == found.maps.intentions["o:b=anonymous"]


def test_a_time_limit_is_known_to_its_destination_alone():
    """Others are spared the question."""
    found = wanted_of(snapshot(router(leg(B, request_timeout_s=1.5))))

    assert ["o_b_p0"] == [name for name, b in found.backends.items() if b.shape.timed]


ROUTERS = (
    (),
    (router(API),),
    (router(leg(C, API.match)),),
    (router(API, leg(C)),),
    (router(leg("o:d")), router(leg(A), service=B)),
    (router(API, leg(C)), router(leg(C, request_timeout_s=1), service=B)),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(ROUTERS), st.sampled_from(((), (B,), (C,)))), min_size=1, max_size=5))
def test_haproxy_comes_to_route_as_is_wanted(sights: list[tuple[tuple[Router, ...], tuple[str, ...]]]):
    """Through any row of routers and of services that come and go: the maps and lines are the wanted ones, and until a
    reload no leg points to what is not there.
    """
    model, last = Model(), Wanted()
    for policies, without in sights:
        rules = Rules(names_in_use=set(model.serving.structure.owners), spares=spares.free(model.serving.structure))
        last = model.follow(routes.wanted(snapshot(*policies, without=without), last, rules, underived))
        serving = model.serving

        assert last.maps.routers == serving.maps.routers
        assert last.maps.hops == serving.maps.hops
        assert {r.id for r in last.fronts} <= {r.id for r in serving.structure.routers}
        assert set(serving.maps.hops.values()) <= set(serving.structure.shapes)


def test_a_destination_changes_without_a_reload_and_a_match_with_one():
    """Until the reload the old router stays whole; taking a router away needs none."""
    model = Model()
    last = model.follow(wanted_of(snapshot(router(API))))
    before = model.reloads
    last = model.follow(wanted_of(snapshot(router(leg(C, API.match))), last))
    assert before == model.reloads
    now = wanted_of(snapshot(router(API, leg(C))), last)
    found = changes.change(model.serving, now, AROUND, {})
    assert isinstance(found, Reload)
    assert ("router of o:a changed",) == found.reasons
    for command in found.routing_commands:
        model.perform(command)
    assert last.maps.hops == model.serving.maps.hops
    last = model.follow(now, tidy=True)
    after = model.reloads
    model.follow(wanted_of(snapshot(), last))

    assert before + 1 == after == model.reloads
    assert {} == model.serving.maps.routers


# --- lines -----------------------------------------------------------------------------------------------------------

words = st.one_of(st.text(max_size=12), st.sampled_from([*NASTY, "a", "/a", "X-V", "GET", "[0-9]+", "END", "ROUTER"]))


@settings(max_examples=200, deadline=None)
@given(words, words, words, words, words, words)
def test_no_value_leaves_its_line(path: str, name: str, value: str, regex: str, changed: str, new: str):
    """Whatever a router says: it is refused, or its lines are one each, and begin as ours do."""
    match = RouteMatch(
        path_prefix=path,
        header=(HeaderMatch(name=name, exact=value), HeaderMatch(name=name, regex=regex)),
        query_param=(QueryMatch(name=name, regex=regex),),
    )
    change = HeaderChange(set={name: changed}, remove=(new,))
    one = router(leg(B, match, prefix_rewrite=new, request_headers=change, response_headers=change))
    try:
        front = routers.checked(one)
    except Refused:
        front = FrontRouter(id="0" * 16, service=A, legs=_unchecked(one))
    try:
        lines = [*router_lines.request_lines([front]), *router_lines.response_lines([front])]
    except Refused:
        return

    assert all(line.isascii() and line.isprintable() for line in lines)
    assert all(line.startswith(("http-request ", "http-response ")) for line in lines)
    assert all(line.count("'") % 2 == 0 for line in lines)


def _unchecked(one: Router) -> tuple[router_lines.FrontLeg, ...]:
    """As if nobody had looked: the lines' own guard is the last one."""
    there = one.route[0].destination
    pairs = tuple(("set-header", n, v) for n, v in there.request_headers.set.items())
    return (router_lines.FrontLeg(rewrite=there.prefix_rewrite, taken=1, request=pairs, response=pairs),)


def test_values_that_look_like_the_templates_words_stay_as_they_are():
    """The template's own marks are replaced before the routers' lines come."""
    said = HeaderChange(set={"X-A": "RULE END ROUTER 5%"})
    snap = snapshot(router(leg(B, RouteMatch(path_prefix="/END"), request_headers=said)))
    made = picture.wanted_picture(Serving(structure=Structure(frame=AROUND.frame)), wanted_of(snap), AROUND)
    text = render.config(made)

    assert "http-request set-header X-A 'RULE END ROUTER 5%%' if" in text
    assert "{ path -m beg -- '/END' }" in text


def test_a_balancer_without_routers_looks_for_none():
    """Nor do requests of services without one where others have one: they have left before."""
    none = picture.wanted_picture(Serving(structure=Structure(frame=AROUND.frame)), wanted_of(snapshot()), AROUND)
    some = picture.wanted_picture(
        Serving(structure=Structure(frame=AROUND.frame)), wanted_of(snapshot(router(API))), AROUND
    )
    lines = [line.strip() for line in render.config(some).splitlines()]
    left = next(n for n, line in enumerate(lines) if line == "http-request allow unless { var(txn.way) -m found }")

    assert not {"req.hop", "txn.hop"} & set(re.findall(r"\b(?:req|txn)\.hop\b", render.config(none)))
    assert any("req.router" in line for line in lines[left:])
    assert not any("req.router" in line for line in lines[:left])


def test_keys_of_two_routers_never_meet():
    """Their names are digests of service and words."""
    one, other = routers.checked(router(API)), routers.checked(msgspec.structs.replace(router(API), service=B))

    assert one.id != other.id
    assert Key(A, 2) == routers.destination(Router(service=A, index=2), Destination())


SIGNS = 'aZ09/._~!$&()*+,=:@;?%-#"\\<>[]{}^|` '
"""Of what a value may hold; none of it may mean anything to HAProxy."""


def strange(number: int, chance: random.Random) -> Router:
    """A router of values that look like anything, which the grammar takes now and then."""

    def text(begin: str = "") -> str:
        return begin + "".join(chance.choice(SIGNS) for _ in range(chance.randrange(1, 9)))

    headers = (HeaderMatch(name="X-A", exact=text()), HeaderMatch(name="x_b", contains=text(), invert=True))
    change = HeaderChange(set={"X-C": text("v")}, add={"X_D": text("w")}, remove=("X-E",))
    legs = (
        leg(B, RouteMatch(path_prefix=text("/"), header=headers[:1], case_insensitive=chance.random() < 0.5)),
        leg(B, RouteMatch(header=headers, query_param=(QueryMatch(name="a-b", exact=text()),), methods=("GET", "PUT"))),
        leg(B, RouteMatch(path_exact=text("/")), prefix_rewrite=text("/"), request_timeout_s=1.5, num_retries=0),
        leg(B, request_headers=change, response_headers=change),
    )
    return Router(service=f"o:s{number}", route=(chance.choice(legs),))


def is_taken(one: Router) -> bool:
    try:
        routers.checked(one)
    except Refused:
        return False
    return True


@pytest.mark.needs("haproxy")
def test_haproxy_takes_whatever_the_grammar_does(tmp_path: Path):
    """Hundreds of routers in one configuration: not a value of theirs is a word of HAProxy's."""
    chance = random.Random(7)
    found = [one for one in (strange(number, chance) for number in range(900)) if is_taken(one)]
    there = {s: Route(service=s, ports=(RoutePort(index=0),)) for s in (B, *(r.service for r in found))}
    snap = Snapshot(revision=1, trust=Trust.LIVE, routes=there, policies=named(*found))
    wanted = routes.wanted(snap, Wanted(), Rules(), underived)
    frame = msgspec.structs.replace(AROUND.frame, folder=str(tmp_path), sockets=str(tmp_path))
    around = replace(AROUND, frame=frame, service_ports=(0, 0))
    made = picture.wanted_picture(Serving(structure=Structure(frame=frame)), wanted, around)
    (tmp_path / "maps").mkdir()
    for name, table in render.map_files(made.maps).items():
        (tmp_path / "maps" / name).write_text(table)
    (tmp_path / "haproxy.cfg").write_text(render.config(made))
    checking = [require("haproxy"), "-c", "-f", "haproxy.cfg"]
    done = subprocess.run(checking, cwd=tmp_path, capture_output=True, text=True, check=False)

    assert len(found) > 100
    assert {} == wanted.refused
    assert (0, "") == (done.returncode, done.stderr)
