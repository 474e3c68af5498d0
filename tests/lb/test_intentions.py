"""Who may call whom: precedence, and maps that say the same as the words."""

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairlead_daemon.errors import Refused
from fairlead_discovery import paths
from fairlead_discovery.policies import Intentions, Source, name_of, path_of
from fairlead_discovery.snapshots import Snapshot, Trust
from fairlead_lb.decisions import intentions, mesh, render
from fairlead_lb.decisions.intentions import compiled, judge
from harness.callers import looked_up

WEB, CART, OPS = "marathon:/shop/web", "marathon:/shop/cart", "etl:ops"
CALLERS = (WEB, CART, OPS, "anonymous")
PATHS = ("/", "/a", "/a/b", "/ab", "/a/b/c", "/a//b", "/a%2Fb", "/%61/b", "/a%", "/%2e%2e/a")
sources = st.builds(
    Source,
    name=st.sampled_from((WEB, OPS, "*", "anonymous")),
    action=st.sampled_from(("allow", "deny")),
    methods=st.sampled_from(((), ("GET",), ("GET", "PUT"), ("POST",))),
    paths=st.sampled_from(((), ("/a",), ("/a/b/",), ("/", "/a/b"), ("/ab", "/a"))),
)
records = st.fixed_dictionaries({}, optional={
    service: st.builds(
        Intentions, service=st.just(service), default=st.sampled_from(("", "allow", "deny")),
        sources=st.lists(sources, max_size=4).map(tuple),
    )
    for service in (CART, "*")
})  # fmt: skip


@settings(max_examples=400, deadline=None)
@given(
    records,
    st.sampled_from(("allow", "deny")),
    st.sampled_from(CALLERS),
    st.sampled_from(("GET", "PUT", "POST", "X")),
    st.sampled_from(PATHS),
)
def test_the_maps_say_what_the_words_say(found, default: str, caller: str, method: str, path: str):
    """For every caller, method and path; and whoever is not guarded is allowed."""
    made = compiled((CART,), found, default)
    wanted = judge(CART, found, default, caller, method, path).allowed

    assert wanted == looked_up(made, CART, caller, method, path)
    assert wanted or intentions.guarded(CART, found, default)


@settings(max_examples=100, deadline=None)
@given(records, st.sampled_from(("allow", "deny")))
def test_what_goes_into_maps_is_one_plain_word_each(found, default: str):
    """A record can say nothing but its own lines."""
    made = compiled((CART,), found, default)
    lines = render.map_text({**made.verdicts, **made.rules}).splitlines()

    assert len(made.verdicts) + len(made.rules) == len(lines)
    assert {2} == {len(line.split(" ")) for line in lines}


def of(*given: Source, default: str = "", service: str = CART) -> Intentions:
    return Intentions(service=service, sources=given, default=default)


@pytest.mark.parametrize(
    ("mine", "everyone", "expected"),
    [
        ((Source(name=WEB, action="deny"), Source(name="*")), (), False),
        ((Source(name=WEB), Source(name="*", action="deny")), (), True),
        ((Source(name="*", action="deny"),), (Source(name=WEB),), False),
        ((Source(name=OPS),), (Source(name=WEB, action="deny"), Source(name="*")), False),
        ((), (Source(name="*", action="deny"),), False),
        ((Source(name=WEB), Source(name=WEB, action="deny")), (), False),
        ((Source(name=WEB, paths=("/a",)), Source(name=WEB, action="deny")), (), True),
        ((Source(name=WEB, methods=("GET",)), Source(name=WEB, action="deny")), (), True),
        ((Source(name=WEB, methods=("POST",)), Source(name="*")), (), False),
    ],
)
def test_the_more_precise_word_counts(mine, everyone, expected: bool):
    """As Consul's: the called service before the caller, a name before `*`, deny among equals; none fits: the default."""
    found = {CART: of(*mine), "*": of(*everyone, service="*")}

    assert expected == judge(CART, found, "deny", WEB, "GET", "/a/x").allowed


def test_anonymous_is_nobody():
    """`*` is anybody with an identity."""
    found = {CART: of(Source(name="*"))}

    assert [False, True] == [judge(CART, found, "deny", who).allowed for who in ("anonymous", WEB)]


@pytest.mark.parametrize(
    "path",
    [
        "/a/../b",
        "/a//b",
        "/a%2fb",
        "/./a",
        "/a;x",
        "/a/..",
        "/a\\b",
        "/a%00",
        "/a%",
        "/a%4",
        "/%zz/a",
        "/%2e%2e/a",
        "/%3b",
        "/%252f",
    ],
)
def test_a_path_that_servers_read_differently_is_refused_where_paths_are_judged(path: str):
    """Else a rule could be walked around; who may call everything may call that too."""
    ruled = {CART: of(Source(name=WEB), Source(name=WEB, action="deny", paths=("/admin",)))}

    assert [False, True] == [judge(CART, r, "allow", WEB, "GET", path).allowed for r in (ruled, {})]


def test_a_path_is_judged_as_a_server_reads_it():
    """However it is spelled."""
    found = {CART: of(Source(name=WEB), Source(name=WEB, action="deny", paths=("/admin",)))}

    asked = ("/%61dmin", "/admi%6E/x", "/%61dminx", "/%C3%A4")
    assert [False, False, True, True] == [judge(CART, found, "deny", WEB, "GET", path).allowed for path in asked]


def test_tcp_knows_no_paths():
    """A rule for paths refuses a TCP connection instead of letting everything in."""
    found = {CART: of(Source(name=WEB, paths=("/a",)))}

    assert not judge(CART, found, "allow", WEB).allowed


@pytest.mark.parametrize(
    "bad",
    [
        of(Source(name="web")),
        of(Source(name=WEB, action="perhaps")),
        of(Source(name=WEB, methods=("get",))),
        of(Source(name=WEB, methods=("GET /\nx",))),
        of(Source(name=WEB, paths=("admin",))),
        of(Source(name=WEB, paths=("/a b",))),
        of(Source(name=WEB, paths=("/a\nb",))),
        of(Source(name=WEB, paths=("/a/../b",))),
        of(Source(name=WEB, paths=("/a%2fb",))),
        of(Source(name=f"a:{'x' * 2000}")),
        of(default="maybe"),
        of(service="web"),
        of(*[Source(name=WEB)] * 501),
    ],
)
def test_what_cannot_be_judged_is_refused(bad: Intentions):
    """Before it is written, and again before it is taken."""
    with pytest.raises(Refused):
        intentions.checked(bad)


def test_haproxy_refuses_the_same_paths_as_the_words():
    """One pattern, in two places."""
    text = (Path(render.__file__).parent.parent / "templates" / "backend_intentions.cfg.j2").read_text()

    assert 2 == text.count(f"'{intentions.AMBIGUOUS.pattern}'")
    assert 1 == text.count(f"'{intentions.MALFORMED.pattern}'")


@settings(max_examples=100, deadline=None)
@given(st.lists(records, min_size=2, max_size=4), st.sampled_from(("allow", "deny")))
def test_what_is_worked_out_step_by_step_is_what_would_be_worked_out_at_once(steps, default: str):
    """Unchanged services keep their maps; the others get today's."""
    rules, services, force = mesh.MeshRules(default=default), frozenset((CART, WEB)), mesh.InForce()
    for found in steps:
        policies = {name_of(record): record for record in found.values()}
        snapshot = Snapshot(trust=Trust.LIVE, revision=1, age_s=0.0, policies=policies)
        force = mesh.in_force(snapshot, services, force, rules)

    guarded = [s for s in sorted(services) if intentions.guarded(s, steps[-1], default)]
    assert compiled(guarded, steps[-1], default) == force.made


def test_what_never_was_good_is_told_as_closed_for_as_long_as_it_is_bad():
    """Also at the next change; a good one that goes bad stays, and is told so."""
    rules, services = mesh.MeshRules(), frozenset((CART, WEB))
    bad = {f"{paths.POLICIES}/intentions%7E{paths.escape(CART)}": "it cannot be read"}
    policies = {name_of(record): record for record in (of(Source(name=OPS), service=WEB),)}
    good = Snapshot(trust=Trust.LIVE, revision=1, age_s=0.0, policies=policies, bad=dict(bad))
    bad |= {path_of(of(service=WEB)): "nor can this"}
    force, told = mesh.InForce(), []
    for snapshot in (good, replace(good, bad={**good.bad}), replace(good, policies={}, bad=bad)):
        force = mesh.in_force(snapshot, services, force, rules)
        told.append(force.refused[CART])

    assert ["intentions: it cannot be read; nobody may call it"] * 3 == told
    assert "intentions: nor can this; the last good ones stay" == force.refused[WEB]
    assert [False, True] == [looked_up(force.made, who, OPS, "GET", "/") for who in (CART, WEB)]


@settings(max_examples=200, deadline=None)
@given(
    records,
    st.builds(lambda s: of(*s, service=WEB), st.lists(sources, max_size=3)),
    st.sampled_from(("allow", "deny")),
    st.sampled_from(CALLERS),
    st.sampled_from(("GET", "PUT", "X")),
    st.sampled_from(PATHS),
)
def test_who_gets_the_requests_of_others_is_as_closed_as_they_are(
    found, web: Intentions, default: str, caller: str, method: str, path: str
):
    """As each of them; a record of its own counts alone."""
    found = {**found, WEB: web}
    heirs = {OPS: (CART, WEB)}
    made = compiled((OPS,), found, default, heirs)
    allowed = all(judge(whose, found, default, caller, method, path).allowed for whose in (CART, WEB))
    own = {**found, OPS: of(service=OPS, default="allow")}

    assert allowed == looked_up(made, OPS, caller, method, path)
    assert allowed or intentions.guarded(OPS, found, default, heirs)
    assert compiled((OPS,), own, default) == compiled((OPS,), own, default, heirs)
