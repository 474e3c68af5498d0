"""From the newest snapshot to what shall be served: what may not be believed changes nothing."""

import time
from dataclasses import replace

from fairlead_daemon.logs import Log
from fairlead_discovery.snapshots import Snapshot, Trust
from fairlead_lb import metrics
from fairlead_lb.decisions import breaking, routes, shortcut, spares
from fairlead_lb.decisions import change as changes
from fairlead_lb.decisions.last_good import Past
from fairlead_lb.decisions.nearness import Near
from fairlead_lb.decisions.shortcut import Decided
from fairlead_lb.decisions.versions import LUA
from fairlead_lb.desk import Desk

log = Log("lb")


def decide(desk: Desk, snapshot: Snapshot) -> None:
    """Takes the snapshot, if it may be believed: what is stale or held changes nothing that serves."""
    desk.state.snapshot, desk.state.snapshot_at = snapshot, time.monotonic()
    serving = desk.state.serving
    nothing_serves = serving is not None and not serving.structure.owners
    live = snapshot.trust is Trust.LIVE
    desk.state.frozen = "" if live else f"{snapshot.trust}: {snapshot.why or 'the registry is out of sight'}"
    if not live and (desk.live_seen or not nothing_serves):
        return
    desk.live_seen = desk.live_seen or live
    _through_rails(desk, snapshot)


def look_again(desk: Desk) -> None:
    """Lets go what the rails held long enough, while nothing else changes."""
    now_s = time.monotonic()
    if desk.state.frozen or (due_s := desk.rails.due_s(now_s=now_s)) is None or due_s > 0:
        return
    if (snapshot := desk.rails.last) is not None:
        _through_rails(desk, snapshot)


def _through_rails(desk: Desk, snapshot: Snapshot) -> None:
    before = {service: (*ruled.held, *ruled.damped) for service, ruled in desk.rails.ruled.items()}
    desk.state.snapshot = desk.rails.let_through(snapshot, now_s=time.monotonic())
    for service, ruled in desk.rails.ruled.items():
        if before.get(service) != (*ruled.held, *ruled.damped):
            why = next((h.why for h in ruled.held.values()), "")
            log.warning("service is not served as the registry has it", service=service, held=len(ruled.held),
                        why=why or None, held_down=len(ruled.damped))  # fmt: skip
    metrics.measure_rails(desk.rails.ruled.values())
    if not _want_servers(desk, desk.state.snapshot):
        want(desk, desk.state.snapshot)


def want(desk: Desk, snapshot: Snapshot) -> None:
    """Everything is decided anew."""
    before = desk.state.wanted
    desk.state.wanted = worked_out(desk, snapshot)
    _plan_anew(desk, before)
    metrics.count_refused(desk.state.wanted.refused)
    asked = desk.asked(desk.state.wanted.maps)
    desk.note_taken({port: why for port, why in desk.state.taken.items() if port in asked})
    wanted_vips = desk.state.wanted.maps.vips
    desk.note_taken_vips({place: why for place, why in desk.state.taken_vips.items() if place in wanted_vips})
    lend(desk)
    desk.recognise()
    desk.decided = Decided.whole(snapshot, _rules(desk), desk.state.wanted)


def _plan_anew(desk: Desk, before: routes.Wanted) -> None:
    """Those that are wanted as they were need nothing that they did not need then."""
    if desk.unplanned is None:
        return
    was, now = before.backends, desk.state.wanted.backends
    desk.unplanned |= {name for name in was.keys() | now.keys() if was.get(name) is not now.get(name)}
    if desk.state.wanted.dead != before.dead:  # who was drained until now is cut
        desk.unplanned |= desk.draining()


def _want_servers(desk: Desk, snapshot: Snapshot) -> bool:
    """Whether only servers differ, and are wanted as they are now."""
    decided, rules = desk.decided, _rules(desk)
    if decided is None or decided.wanted is not desk.state.wanted:
        return False
    found = shortcut.moved(decided, snapshot, rules, desk.derived)
    if found is None:
        return False
    dead = desk.state.wanted.dead
    desk.state.wanted, names = found
    if desk.state.wanted.dead != dead:  # who was drained until now is cut
        names |= desk.draining()
    desk.decided = replace(decided, snapshot=snapshot, rules=rules, wanted=desk.state.wanted)
    if desk.unplanned is not None:
        desk.unplanned |= names
    return True


def _rules(desk: Desk) -> routes.Rules:
    """Without what only new services need."""
    return routes.Rules(
        forbidden=desk.around.forbidden,
        groups=desk.around.groups,
        passthrough=desk.around.frame.passthrough,
        https=bool(desk.around.frame.https_port) or desk.around.vips is not None,
        aside=desk.state.judgement.aside,
        spent=desk.state.judgement.spent,
        broken=breaking.tripped(desk.state.judgement.breakers),
        callers=desk.around.callers,
        between=desk.around.between,
        near=Near(standing=desk.around.standing, levels=desk.state.spilling.levels),
        refused_shapes=desk.state.refused_shapes,
        good=desk.good,
        vips=desk.around.vips,
        refused_rules=desk.state.refused_rules,
        past=Past(good=desk.good_policies, refused=desk.state.refused_routers),
        manner=desk.around.manner,
        lua=desk.supervisor.version is None or desk.supervisor.version.can(LUA),
    )


def worked_out(desk: Desk, snapshot: Snapshot) -> routes.Wanted:
    """What the snapshot asks for, as things stand. Changes nothing."""
    serving = desk.state.serving
    rules = replace(
        _rules(desk), names_in_use=desk.names_in_use(), spares=spares.free(serving.structure) if serving else {}
    )
    last = desk.state.wanted
    if not last.names and serving is not None:
        last = replace(last, names=dict(serving.structure.owners), maps=serving.maps)
    return routes.wanted(snapshot, last, rules, desk.derived)


def pin(desk: Desk) -> None:
    """Ports that have fallen over stay so, whatever snapshot came since."""
    serving, down = desk.state.serving, desk.pinned
    if down is None:
        pins = serving.maps.pins if serving is not None else {}
        down = [backend.key for name, backend in desk.state.wanted.backends.items() if name in pins]
    wanted = routes.pinned(desk.state.wanted, down)
    if desk.decided is not None and desk.decided.wanted is desk.state.wanted:
        desk.decided = replace(desk.decided, wanted=wanted)
    desk.state.wanted = wanted


def lend(desk: Desk) -> None:
    """Spares have their owners from here on, and are free again once they are empty."""
    serving = desk.state.serving
    if serving is None or desk.state.wanted.revision < 0:
        return
    was, structure = serving.structure.owners, changes.lent(serving, desk.state.wanted)
    if structure is not serving.structure:
        desk.state.serving = replace(serving, structure=structure)
        if desk.unplanned is not None:
            owners = structure.owners
            desk.unplanned |= {name for name in was.keys() | owners.keys() if was.get(name) != owners.get(name)}
