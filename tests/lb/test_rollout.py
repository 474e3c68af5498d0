"""Who may reload when several balancers want to, and what counts as harm."""

import asyncio
from types import SimpleNamespace

import pytest

from fairlead_discovery import paths
from fairlead_discovery.backends import open_registry
from fairlead_discovery.records import Balancer, decode, encode
from fairlead_discovery.registry import Put
from fairlead_discovery.snapshots import Snapshot, Trust
from fairlead_lb import rolling
from fairlead_lb.counting import served
from fairlead_lb.decisions import rollout, routes
from fairlead_lb.decisions.counters import COLUMNS, Totals
from fairlead_lb.decisions.rollout import LEASE_S, STOP_S, Answer, ByService, Phase, Rollout, Served, between, harm, may
from fairlead_lb.decisions.routes import Rules, Wanted
from fairlead_lb.rolling import Gate
from harness.balancer import member, route
from harness.waiting import eventually

OTHER, MINE = "lb-1", "lb-2"


def said(phase: Phase, balancer: str = OTHER, structure: str = "s") -> Rollout:
    return Rollout(balancer=balancer, structure=structure, phase=phase)


@pytest.mark.parametrize(
    ("document", "seen_for_s", "answer"),
    [
        (None, 0, Answer.TAKE),
        (said(Phase.GOOD), 0, Answer.TAKE),
        (said(Phase.GOOD, structure="another"), 0, Answer.TAKE),
        (said(Phase.TRYING), LEASE_S - 1, Answer.WAIT),
        (said(Phase.TRYING, structure="another"), LEASE_S - 1, Answer.WAIT),
        (said(Phase.TRYING), LEASE_S + 1, Answer.TAKE),
        (said(Phase.TRYING, MINE), 0, Answer.TAKE),
        (said(Phase.HARMED), STOP_S - 1, Answer.STOP),
        (said(Phase.HARMED), STOP_S + 1, Answer.TAKE),
        (said(Phase.HARMED, structure="another"), 0, Answer.TAKE),
        (said(Phase.HARMED, MINE), 0, Answer.TAKE),
    ],
)
def test_one_reloads_at_a_time_and_none_follows_into_harm(document: Rollout | None, seen_for_s: float, answer: Answer):
    """A dead first blocks nobody for ever; another structure may be tried after a harmful one."""
    assert answer is may(document, me=MINE, structure="s", seen_for_s=seen_for_s)


@pytest.mark.parametrize(
    ("before", "after", "harmed"),
    [
        (Served(1000, 0), Served(1000, 0), False),
        (Served(1000, 0), Served(1000, 9), False),
        (Served(1000, 0), Served(1000, 40), False),
        (Served(1000, 0), Served(1000, 60), True),
        (Served(1000, 500), Served(1000, 500), False),
        (Served(0, 0), Served(20, 20), True),
        (Served(0, 0), Served(0, 0), False),
    ],
)
def test_harm_is_clearly_more_5xx_than_before(before: Served, after: Served, harmed: bool):
    """A service that fails all the time is nobody's fault now; a handful of errors is no verdict."""
    assert harmed == bool(harm({"o:a": before}, {"o:a": after}))


def test_one_tenants_own_failures_stop_nobody():
    """Neither those of a service that came with the reload, nor of one that is told to fail; the others' do."""
    zero, well, ill = Served(0, 0), Served(1000, 0), Served(1000, 900)
    columns = dict.fromkeys(COLUMNS, 0)

    def counts(served: Served) -> tuple[int, ...]:
        return tuple({**columns, "req_tot": served.requests, "hrsp_5xx": served.failed}.values())

    def seen(**services: Served) -> ByService:
        totals = Totals(sums={(f"{s}_p0", "backend", f"o:{s}"): counts(n) for s, n in services.items()})
        return served(totals, {"o:abort"})

    before = between(seen(a=zero, abort=zero), seen(a=well, abort=well))
    own = between(seen(a=zero, abort=zero), seen(a=well, abort=ill, new=ill))
    others = between(seen(a=zero, abort=zero), seen(a=ill, abort=ill))

    assert "" == harm(before, own)
    assert "90% of 1000 requests were answered with 5xx, 0% before" == harm(before, others)


def test_consent_is_waited_for_anew_when_another_structure_is_wanted(monkeypatch: pytest.MonkeyPatch):
    """Nor does the time count for which the others said no."""
    clock = SimpleNamespace(now_s=1000.0)
    monkeypatch.setattr(rolling, "time", SimpleNamespace(monotonic=lambda: clock.now_s))
    gate = Gate("lb-1", enabled=True)
    gate.peers = frozenset({"lb-2"})

    def opens(structure: str, why: str = "") -> bool:
        clock.now_s += rollout.LONGEST_WAIT_S * 0.6
        gate.why = why
        return gate.open(structure)

    stopped = "stopped: lb-2: 5xx"
    asked = [opens("a"), opens("a"), opens("b"), opens("b"), opens("b", stopped), opens("b"), opens("b")]

    assert [*[False] * 6, True] == asked


@pytest.mark.parametrize(("unwell", "phase"), [("HAProxy ended", Phase.HARMED), ("", Phase.GOOD)])
async def test_a_permission_that_was_not_used_is_given_back(unwell: str, phase: Phase, monkeypatch: pytest.MonkeyPatch):
    """As harm when HAProxy is not well by then: nobody said how the reload went."""
    monkeypatch.setattr(rolling, "GRANT_S", 0.2)
    registry = await open_registry(f"memory:{phase}")
    await registry.commit([Put(paths.below(paths.BALANCERS, OTHER), encode(Balancer(id=OTHER, admin="http://x")))])
    gate = Gate(MINE, enabled=True)
    gate.granted = lambda: None
    running = asyncio.create_task(gate.run(registry, lambda: unwell))

    async def told() -> bool:
        gate.open("s")
        node = await registry.read(paths.ROLLOUT)
        return node is not None and decode(Rollout, node.data, place="rollout").phase is phase

    try:
        await eventually("it is told", told, within_s=20)
    finally:
        running.cancel()
        await registry.close()


def wanted(*apps: str, port: int = 31000, **asked: object) -> Wanted:
    members = {f"marathon:{a}": {"m": member(a, port, app=a)} for a in apps}
    given = {f"marathon:{a}": route(a, vhosts=(f"{a.strip('/')}.example",), **asked) for a in apps}
    snapshot = Snapshot(revision=1, trust=Trust.LIVE, members=members, routes=given)
    return routes.wanted(snapshot, Wanted(), Rules(), lambda *_: None)


def test_a_structure_is_the_same_for_all_balancers_and_whatever_runs_behind_it():
    """Servers and what maps turn are no part of it; services, shapes and ports are."""
    one = rollout.structure_of(wanted("/a", "/b"))

    assert one == rollout.structure_of(wanted("/a", "/b", port=32000, timeout_server_s=7))
    others = {
        rollout.structure_of(w)
        for w in (wanted("/a"), wanted("/a", "/b", sticky=True), wanted("/a", "/b", service_port=10100))
    }
    assert 3 == len(others - {one})
