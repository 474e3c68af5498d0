"""Bamboo's rules beside routes: who gets which requests, and what of it needs a reload."""

import asyncio
import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest

from fairlead_daemon.errors import Refused
from fairlead_discovery import paths
from fairlead_discovery.policies import Bamboo, name_of
from fairlead_discovery.records import Route
from fairlead_discovery.snapshots import Snapshot, Trust
from fairlead_lb.bamboo.book import Book
from fairlead_lb.bamboo.output import Output, Target
from fairlead_lb.decisions import map_keys, routes
from fairlead_lb.decisions.bamboo import Manner
from fairlead_lb.decisions.route_files import meets
from fairlead_lb.decisions.routes import Rules, Wanted
from harness.balancer import member, route
from harness.haproxy_model import Model


def snapshot(*rules: Bamboo, apps: tuple[str, ...] = ("/a", "/b"), given: tuple[Route, ...] = ()) -> Snapshot:
    return Snapshot(
        revision=1,
        trust=Trust.LIVE,
        members={f"marathon:{app}": {f"{app}1": member(f"{app}1", 31000, app=app)} for app in apps},
        routes={one.service: one for one in given},
        policies={name_of(rule): rule for rule in rules},
    )


def rule(app: str, acl: str) -> Bamboo:
    return Bamboo(service=f"marathon:{app}", acl=acl)


def wanted(seen: Snapshot, last: Wanted = Wanted(), rules: Rules = Rules()) -> Wanted:  # noqa: B008  # frozen values
    return routes.wanted(seen, last, rules, lambda _service, _members: None)


def hosts(found: Wanted) -> dict[str, str]:
    """Entries as people read them, to apps."""
    return {map_keys.shown(key): found.backends[name].app for key, name in found.maps.hosts.items()}


def test_a_rule_adds_to_what_the_apps_own_labels_say():
    """Both lead to its first port, which speaks HTTP from then on."""
    found = wanted(snapshot(rule("/a", "hdr(host) x.example"), given=(route("/a", service_port=10100, mode="tcp"),)))

    assert {"x.example": "/a"} == hosts(found)
    assert {"10100": "http"} == dict(found.maps.modes)


def test_an_app_without_a_route_gets_one_by_its_rule():
    """Others stay unreachable, as before; a rule for an app without tasks answers 503, not 404."""
    found = wanted(snapshot(rule("/a", "hdr(host) x.example"), rule("/gone", "hdr(host) y.example")))

    assert {"x.example": "/a", "y.example": "/gone"} == hosts(found)


def test_bamboos_default_rules_are_a_setting():
    """Below its id on any host; paths end at segments; plain TCP services are left alone."""
    seen = snapshot(given=(route("/b", mode="tcp", service_port=10100),))
    found = wanted(seen, rules=Rules(manner=Manner(defaults=True)))

    assert {} == hosts(wanted(seen))
    assert {"*/a": "/a"} == hosts(found)


def test_who_has_named_a_host_keeps_it():
    """The other is told; a rule for any host comes last."""
    own = (route("/a", vhosts=("x.example",)),)
    found = wanted(snapshot(rule("/b", "hdr(host) x.example y.example or path_beg /"), given=own))
    keys = {map_keys.shown(k): v for k, v in found.maps.hosts.items()}

    assert {"x.example": "/a", "y.example": "/b", "*": "/b"} == hosts(found)
    assert {"marathon:/b": "x.example belongs to marathon:/a"} == found.refused
    assert found.maps.hosts["x.example/"] == meets(keys, "x.example", "/any")[1]  # type: ignore[index]  # it meets one
    assert found.maps.hosts["y.example/"] == meets(keys, "z.example", "/any")[1]  # type: ignore[index]  # see above


def test_on_a_host_with_a_rule_that_disregards_case_all_paths_do():
    """Else the longest would not win: `x.example` alone would take `/API` away from `path_beg -i /api`."""
    own = (route("/a", vhosts=("x.example",), path="/Cart"), route("/b", vhosts=("y.example",)))
    found = wanted(snapshot(rule("/b", "{ hdr(host) x.example } { path_beg -i /API }"), given=own))

    assert {"x.example~/cart/", "x.example~/api/", "y.example/"} == set(found.maps.hosts)


def test_the_holder_of_an_entry_keeps_it_when_its_spelling_changes():
    """`/b` had `x.example/cart` before; that a rule makes the host disregard case gives it to nobody else."""
    had = wanted(snapshot(rule("/b", "{ hdr(host) x.example } { path_beg /cart }")))
    more = snapshot(
        rule("/a", "{ hdr(host) x.example } { path_beg -i /Cart }"), rule("/b", "{ hdr(host) x.example } { path_beg /cart }")
    )  # fmt: skip

    assert {"x.example/cart": "/b"} == hosts(wanted(more, had))


def test_rules_of_maps_need_no_reload_and_lines_need_one():
    """The model of HAProxy comes to what is wanted either way."""
    model = Model()
    model.follow(wanted(snapshot(rule("/a", "hdr(host) x"), rule("/b", "hdr(host) y"))))
    first = model.reloads
    model.follow(wanted(snapshot(rule("/a", "path_beg -i /x"), rule("/b", "hdr(host) z"))))
    maps_only = model.reloads
    last = model.follow(wanted(snapshot(rule("/a", "path_end .x"), rule("/b", "hdr(host) y"))))

    assert first == maps_only
    assert first + 1 == model.reloads
    assert [r.backend for r in last.rules] == [r.backend for r in model.serving.structure.rules] == ["a_p0"]


def test_a_rule_that_cannot_be_taken_leaves_the_last_good_one():
    """Also when its record cannot be read at all; a new one is refused alone."""
    good = wanted(snapshot(rule("/a", "hdr(host) x.example")))
    bad = wanted(snapshot(rule("/a", "hdr(host) x\nevil"), rule("/b", "path")), good)
    unreadable = wanted(replace(snapshot(), bad={paths.below(paths.POLICIES, "bamboo~marathon:/a"): "no JSON"}), good)

    assert {"x.example": "/a"} == hosts(bad) == hosts(unreadable)
    assert "its last good one stays" in bad.refused["marathon:/a"]
    assert "bamboo rule: column 1" in bad.refused["marathon:/b"]


def test_what_haproxy_refused_of_a_rule_is_left_out():
    """The rest of the service is served."""
    seen = snapshot(rule("/a", "path_end .x or hdr(host) x.example"))
    conditions = wanted(seen).rules[0].conditions
    found = wanted(seen, rules=Rules(refused_rules={("marathon:/a", conditions): "no"}))

    assert () == found.rules
    assert {"x.example": "/a"} == hosts(found)
    assert "HAProxy refused it: no" in found.refused["marathon:/a"]


# --- the tree beside the registry, and the template's output


def test_the_registrys_rule_wins_over_the_trees():
    """And nothing is given on before the tree was read: half of the rules would be taken for all."""
    given: list[Snapshot] = []
    book = Book("marathon", given.append)
    book.waits = True
    book.offer(snapshot(rule("/a", "path /ours")))
    before = list(given)
    book.take_tree({"marathon:/a": rule("/a", "path /theirs"), "marathon:/b": rule("/b", "path /b")})

    assert [] == before
    assert {"/a": "path /ours", "/b": "path /b"} == {app: s["Acl"] for app, s in book.services().items()}
    assert (True, False) == (book.own("marathon:/a"), book.own("marathon:/b"))


APPS = [{"Id": "/a", "Env": {}}]


def target(tmp_path: Path, **commands: str) -> Target:
    (tmp_path / "t.j2").write_text("{% for app in Apps %}{{ app.Id }}\n{% endfor %}")
    return Target(template=tmp_path / "t.j2", output=tmp_path / "out", **commands)


async def test_an_output_is_validated_replaced_and_loaded(tmp_path: Path):
    """Once; what is the same is left alone. Cleanup runs after each reload."""
    log = tmp_path / "log"
    output = Output(
        target(tmp_path, validate="grep -q /a {{.}}", reload=f"echo load >> {log}", cleanup=f"echo clean >> {log}")
    )

    assert [True, False] == [await output.write(APPS, {}), await output.write(APPS, {})]
    assert "/a\n" == (tmp_path / "out").read_text()
    assert "load\nclean\n" == log.read_text()


async def test_an_output_that_is_not_valid_leaves_the_last_good_one(tmp_path: Path):
    """The command's words are told; no half file stands about."""
    (tmp_path / "out").write_text("good")
    output = Output(target(tmp_path, validate="echo it is bad; false"))
    with pytest.raises(Refused, match="validation: ended with 1: it is bad"):
        await output.write(APPS, {})

    assert "good" == (tmp_path / "out").read_text()
    assert {"out", "t.j2"} == {path.name for path in tmp_path.iterdir()}


async def test_a_reload_that_failed_is_done_again(tmp_path: Path):
    """Bamboo never did: the file had not changed since."""
    output = Output(target(tmp_path, reload=f"test -e {tmp_path}/go"))
    with pytest.raises(Refused, match="reload: ended with 1"):
        await output.write(APPS, {})
    (tmp_path / "go").touch()

    assert [True, False] == [await output.write(APPS, {}), await output.write(APPS, {})]


async def test_what_a_reload_leaves_running_is_not_waited_for(tmp_path: Path):
    """Bamboo's default command left a HAProxy with its pipes open, and hung; and its exit codes were stolen."""
    output = Output(target(tmp_path, reload="sleep 30 & echo $! > pid".replace("pid", str(tmp_path / "pid"))))
    async with asyncio.timeout(10):
        written = await output.write(APPS, {})
    os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)

    assert written
