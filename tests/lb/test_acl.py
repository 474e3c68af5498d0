"""Bamboo's ACL text: what it says is taken or refused by column, and nothing of it leaves its place."""

import re
import subprocess
from pathlib import Path

import pytest
from hypothesis import Phase, example, given, settings
from hypothesis import strategies as st

from fairlead_daemon.errors import Refused
from fairlead_lb.decisions import render
from fairlead_lb.decisions.acl import CRITERIA, Grammar, parse
from fairlead_lb.decisions.bamboo import Claims, claims_of
from fairlead_lb.decisions.conditions import Condition, FrontRule, line
from fairlead_lb.decisions.values import Frame, Structure
from harness.servers import require

PLAIN, RAW = Grammar(), Grammar(raw=True)


def said(text: str, grammar: Grammar = PLAIN) -> list[str]:
    """Each alternative as HAProxy is told it."""
    rules = [FrontRule(service="s", backend="b", conditions=one) for one in parse(text, grammar)]
    return [line(rule).partition("-m found } ")[2] for rule in rules]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("hdr(host) -i A.example b.example", ["{ var(txn.host) -m str -i -- 'a.example' 'b.example' }"]),
        ("req.hdr(Host) x", ["{ var(txn.host) -m str -i -- 'x' }"]),
        ("hdr(host) -m end .x", ["{ var(txn.host) -m end -i -- '.x' }"]),
        ("path_beg /a /b", ["{ path -m beg -- '/a' '/b' }"]),
        ("path_reg -i '^/(a|b)$'", ["{ path -m reg -i -- '^/(a|b)$' }"]),
        ("path_end .jpg || method POST", ["{ path -m end -- '.jpg' }", "{ method -- 'POST' }"]),
        ("hdr(host) -i x or y or hdr(host) z", ["{ var(txn.host) -m str -i -- 'x' 'y' }", "{ var(txn.host) -m str -i -- 'z' }"]),
        ("{ path /a } ! { method GET }", ["{ path -m str -- '/a' } !{ method -- 'GET' }"]),
        ("!{ ! ssl_fc }", ["{ ssl_fc }"]),
        ("!path /a", ["!{ path -m str -- '/a' }"]),
        ("src 10.1.2.3/8 ::1", ["{ src -- '10.0.0.0/8' '::1/128' }"]),
        ("dst_port eq 80", ["{ dst_port -- '80' }"]),
        ("path -- -i", ["{ path -m str -- '-i' }"]),
        (r"path_reg \.(jpg|png)$", [r"{ path -m reg -- '\.(jpg|png)$' }"]),
        ('path_end "or"', ["{ path -m end -- 'or' }"]),
    ],
)  # fmt: skip
def test_a_condition_is_told_to_haproxy_as_it_was_meant(text: str, told: list[str]):
    """Each value in its quotes, after `--`."""
    assert told == said(text)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "the end: a condition is missing"),
        ("or path /", "column 1: 'or': a condition is missing"),
        ("path", "column 1: 'path': a pattern is missing"),
        ("hdr(x) y", "column 1: 'hdr(x)': only where the balancer's operator says allow_raw_acl"),
        ("env(HOME) -m found", "column 1: 'env(HOME)': not a criterion"),
        ("hdr(host) x && path /y", "column 13: '&&': conditions that must all fit stand in braces"),
        ("path -f /etc/passwd", "column 6: '-f': only the flags"),
        ("{ path /a", "the brace of column 1 is not closed"),
        ("path /a }", "column 9: '}'"),
        ("path '}'", "column 6: '}'"),
        ("path /a #x", "column 9: a comment"),
        ("path '/a", "column 6: the quote does not end"),
        ('path "$HOME"', "column 7: variables of the environment"),
        ("path /a\nhttp-request deny", "column 8: '\\n'"),
        ("path /\u2028", "column 7"),
        ("path /\x00", "column 7"),
        ('path "/it\'s"', "column 6"),
        ("src 300.0.0.1", "column 5: '300.0.0.1': not an address"),
        ("method get", "column 8: 'get': not a method"),
        ("dst_port 0", "column 10: '0': not a port"),
        ("hdr(host) a.com:8080", "column 11: 'a.com:8080': not a part of a host name"),
        ("path_reg (", "column 10: '(': not a regular expression"),
        ("path_reg (a+)+$", "a repetition of what holds a repetition"),
        ("path_reg ^(a|aa)*$", "a repetition of what holds a repetition or a choice"),
        ("path_reg ^((a)*b)*$", "a repetition of what holds a repetition"),
        (r"path_reg ^(a)\1$", "only plain groups"),
        ("path_reg (?=x)", "only plain groups"),
        ("path_reg /.*/.*/", "at most 2 of"),
        ("path_beg " + "/x " * 65, "at most 64 patterns"),
        ("path /" + "x" * 300, "more than 256 characters"),
        ("ssl_fc or " * 40 + "ssl_fc", "41 alternatives"),
        ("{ ssl_fc } " * 9, "at most 8 conditions"),
        ("x" * 5000, "at most 4096"),
    ],
)
def test_what_cannot_be_taken_is_refused_with_its_place(text: str, why: str):
    """Never a traceback, never half of it."""
    with pytest.raises(Refused, match=re.escape(why)):
        parse(text, PLAIN)


def test_an_operator_may_say_more():
    """With allow_raw_acl: fetches that read the request, and expressions of any cost; still nothing beyond."""
    assert ["{ req.hdr(X-Tenant) -m sub -i -- 'a' }"] == said("req.hdr(X-Tenant) -i -m sub a", RAW)
    assert ["{ path -m reg -- '(a+)+$' }"] == said("path_reg (a+)+$", RAW)
    with pytest.raises(Refused):
        parse("lua.x y", RAW)
    with pytest.raises(Refused):
        parse("hdr(x) -f /etc/passwd", RAW)


@pytest.mark.parametrize(
    ("text", "keys"),
    [
        ("", ("*~/shop/web/",)),
        ("hdr(host) -i A.example b.example", ("a.example/", "b.example/")),
        ("hdr_end(host) -i .example", ("*.example/",)),
        ("path_beg /a/", ("*/a/",)),
        ("path_beg -i /A", ("*~/a/",)),
        ("path_beg -i /1", ("*/1/",)),
        ("url_beg /a", ("*/a/",)),
        ("{ hdr(host) a.example b.example } { path_beg /x }", ("a.example/x/", "b.example/x/")),
        ("hdr(host) a.example or path_beg /", ("a.example/", "*/")),
    ],
)
def test_hosts_and_beginnings_of_paths_are_entries_of_a_map(text: str, keys: tuple[str, ...]):
    """They need no reload."""
    assert Claims(keys=keys) == claims_of(text, "/shop/web", PLAIN)


@pytest.mark.parametrize(
    "text",
    ["hdr_beg(host) shop.", "hdr_dom(host) shop", "hdr_end(host) example.com", "path /a", "path_reg ^/a", "!path_beg /a",
     "{ hdr(host) a.example } { method POST }", "url_beg /a?b=", "{ path_beg /a } { path_beg /b }", "hdr(host) a..b"],
)  # fmt: skip
def test_everything_else_is_a_rule(text: str):
    """In the order it was written."""
    found = claims_of(text, "/x", PLAIN)

    assert () == found.keys
    assert 1 == len(found.rules)


def test_a_path_ends_at_segments_in_rules_too():
    """Bamboo's `path_beg -i /svc1` took `/svc10`."""
    assert Condition(subject="segment", match="beg", patterns=("/svc1/",), negated=True) == claims_of(
        "!path_beg /svc1", "/x", PLAIN
    ).rules[0][0]  # fmt: skip


# --- nothing leaves its place

SHAPE = re.compile(
    r"http-request set-var\(txn\.be\) str\(b\) if !\{ var\(txn\.be\) -m found \}"
    r"( !?\{ [a-z_.,()/A-Z0-9-]+( -m [a-z]+)?( -i)?( --( '[ -&(-~]+')+)? \})+"
)
PIECES = [
    *sorted(CRITERIA),
    "{",
    "}",
    "!",
    "or",
    "||",
    "-i",
    "-m",
    "beg",
    "--",
    "-f",
    "/a",
    "x.example",
    "'",
    '"',
    "\\",
]
PIECES += [
    "#",
    "$HOME",
    "%[env(HOME)]",
    "\n",
    "\r",
    "\0",
    "GET",
    "10.0.0.0/8",
    "80",
    "^/a.*$",
    "hdr(x)",
    "cook(a)",
    "'}'",
    "é",
]
texts = st.one_of(st.text(max_size=60), st.lists(st.sampled_from(PIECES), max_size=9).map(" ".join))


@settings(max_examples=400)
@given(text=texts, raw=st.booleans())
@example(text="path '}' or ssl_fc\n    http-request return status 200", raw=True)
@example(text="hdr(host) -i x' } { always_true", raw=True)
@example(text="path /a\\ }\\ {", raw=True)
def test_no_text_leaves_its_place(text: str, raw: bool):
    """Whatever is written: refused, or lines of one shape, whose values stand in quotes."""
    try:
        found = claims_of(text, "/app", Grammar(raw=raw))
    except Refused:
        return
    for conditions in found.rules:
        assert SHAPE.fullmatch(line(FrontRule(service="s", backend="b", conditions=conditions)))
    assert found.keys == tuple(map(render.guard, found.keys))


def _valid(texts_: list[str], grammar: Grammar) -> list[FrontRule]:
    found = []
    for text in texts_:
        try:
            claims = claims_of(text, "/app", grammar)
        except Refused:
            continue
        found += [FrontRule(service="s", backend="b", conditions=rule) for rule in claims.rules]
    return found


RAWS = ["cook(a) b", "req.hdr(X-A) -m sub b", "urlp(x) -m reg ^a+(b+)+$", "query -m end x", "base_beg a/b", "src_port 80", "dst 10.0.0.1",
        "ssl_fc_sni -i a.example", "hdr_end(referer) .x", "req.ver 1.1"]  # fmt: skip
"""Each of the fetches that only operators get."""
conditions = st.builds(
    "{} {} {}".format,
    st.sampled_from([c for c in sorted(CRITERIA) if c not in ("src", "dst_port", "method", "ssl_fc")]),
    st.sampled_from(["", "-i", "-m reg", "-m sub", "-m end -i"]),
    st.sampled_from(
        ["/a", "x.example", "^/a.*$", "a b", "/{2}", "or", "/a$", "%[x]", "/\\.x", "/;x", "-n", "[a-z]+", '/"']
    ),
)


@pytest.mark.needs("haproxy")
@settings(max_examples=12, phases=[Phase.explicit, Phase.reuse, Phase.generate])
@given(many=st.lists(st.one_of(conditions, conditions.map("!{{ {} }}".format), texts), min_size=60, max_size=60))
def test_haproxy_takes_what_is_rendered(tmp_path_factory: pytest.TempPathFactory, many: list[str]):
    """Its own parser over generated rules, dozens a file."""
    rules = _valid([*many, "src 10.0.0.0/8", "dst_port 80 8000:8099", "method GET", "ssl_fc"], PLAIN) + _valid(
        RAWS, RAW
    )
    folder = tmp_path_factory.mktemp("lb")
    (folder / "maps").mkdir()
    for name, text in render.map_files(render.Maps()).items():
        (folder / "maps" / name).write_text(text)
    structure = Structure(frame=Frame(folder=str(folder), sockets=str(folder), http_port=18080), rules=tuple(rules))
    (folder / "h.cfg").write_text(render.config_of(structure, []))
    said = subprocess.run(
        [require("haproxy"), "-c", "-f", str(Path(folder / "h.cfg"))], capture_output=True, text=True, check=False
    )

    assert 0 == said.returncode, said.stderr
