"""The scheduler's state in memory, and what events make of it. No I/O and no waiting: `term.py` owns and acts.

An app that is `None` with instances is either being deleted (a tombstone: its instances go) or unknown (an orphan:
its instances are left alone, for a definition that cannot be read is no order to end what runs).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from fairlead_core.services.adapters.store import AppRecord, Failure, Stored
from fairlead_core.services.decisions import naming
from fairlead_core.services.decisions.app import App
from fairlead_core.services.decisions.backoff import Delay, after_failure
from fairlead_core.services.decisions.constraints import Place
from fairlead_core.services.decisions.deployments import Deployment
from fairlead_core.services.decisions.instances import (
    ENDED,
    FAILURES,
    INTENDED,
    Happened,
    Instance,
    expunges,
    inactive,
    updated,
)
from fairlead_core.services.decisions.matching import Launch, Need, Refusal
from fairlead_core.services.decisions.reconciling import Plan, Seen, Wanted, number, reconcile

EXPUNGED_KEPT = 100
NOT_ITS_FAULT = frozenset({"REASON_INVALID_OFFERS", "REASON_RECONCILIATION"})


@dataclass(slots=True)
class AppState:
    """Everything about one app id."""

    id: str
    app: App | None = None
    deleted: bool = False
    versions: tuple[str, ...] = ()
    instances: dict[str, Instance] = field(default_factory=dict)
    delay: Delay = field(default_factory=Delay)
    last_failure: Failure | None = None
    halted: str = ""
    confirmed: set[str] = field(default_factory=set)
    """Task ids of which the master has told something since we subscribed."""
    plan: Plan = field(default_factory=lambda: Plan(waits_for="the first decision"))
    launchable: int = 0
    """Instances that may be launched now: the plan's, unless the backoff or a dependency holds them."""
    holds: str = ""
    """Why the plan's launches wait, "" when only for an offer."""
    since_s: float = 0.0
    """Since when launches are pending, 0 when none is."""
    refusals: dict[str, Refusal] = field(default_factory=dict)
    """The last answer to each agent's offer, by agent."""
    looked_at: int = 0
    """Offers that were considered since launches have been pending."""
    fault: str = ""
    """Why nothing can be decided for it: it is left as it is until its definition changes; "" when all is well."""
    unrecorded: bool = False
    """There was no record of its instances: the master may know some that we do not."""

    def record(self) -> AppRecord:
        return AppRecord(
            app=self.id,
            instances=tuple(self.instances.values()),
            delay=self.delay,
            last_failure=self.last_failure,
            halted=self.halted,
        )

    def alive(self) -> list[Instance]:
        """Not ended and not given up."""
        return [i for i in self.instances.values() if not i.expunged]

    def is_current(self, instance: Instance) -> bool:
        """Whether it runs the app's configuration; one adopted by its id alone tells by the id's mark."""
        if self.app is None:
            return False
        if instance.version:
            return instance.version == self.app.config_version
        return naming.mark_of_task(instance.id) == naming.version_mark(self.app.config_version)


class Fleet:
    """Apps, deployments, drained agents."""

    def __init__(self, stored: Stored) -> None:
        self.apps: dict[str, AppState] = {}
        self.deployments: dict[str, Deployment] = {d.id: d for d in stored.deployments}
        self.draining: dict[str, str] = {}
        """Agent id -> the inverse offer's id."""
        for app_id, app in stored.apps.items():
            self.apps[app_id] = AppState(
                id=app_id,
                app=app,
                deleted=app is None,
                versions=stored.versions.get(app_id, ()),
                unrecorded=app_id not in stored.records,
            )
        for record in stored.records.values():
            state = self.apps.setdefault(record.app, AppState(id=record.app))
            state.instances = {i.id: i for i in record.instances}
            state.delay, state.last_failure, state.halted = record.delay, record.last_failure, record.halted

    # --- looking

    def get(self, app_id: str) -> AppState | None:
        """The state of an app that exists for clients: not of a tombstone, not of an orphan."""
        state = self.apps.get(app_id)
        return state if state is not None and state.app is not None else None

    def defined(self) -> list[AppState]:
        return [self.apps[app_id] for app_id in sorted(self.apps) if self.apps[app_id].app is not None]

    def find(self, task_id: str) -> tuple[AppState, Instance] | None:
        app_id = naming.app_of_task(task_id)
        state = self.apps.get(app_id) if app_id else None
        instance = state.instances.get(task_id) if state else None
        return (state, instance) if state and instance else None

    def unconfirmed(self) -> list[Instance]:
        return [i for s in self.apps.values() for i in s.instances.values() if i.id not in s.confirmed]

    def unsettled(self, deployment: Deployment) -> dict[str, str]:
        """The deployment's apps that are not there yet, with what they wait for."""
        return {app: why for app in deployment.apps if (why := self._waits(app, deployment))}

    def _waits(self, app_id: str, deployment: Deployment) -> str:
        state = self.apps.get(app_id)
        if state is None:
            return ""
        if not deployment.changes[app_id].target:
            return f"{number(len(state.alive()))} to leave" if state.alive() else ""
        if state.app is None:
            return ""
        return state.holds if state.holds and state.plan.launch else state.plan.waits_for

    # --- events

    def unconfirm(self) -> None:
        """The master's word is to be had anew for every instance."""
        for state in self.apps.values():
            state.confirmed.clear()

    def on_status(self, status: Mapping[str, Any], *, now_s: float) -> Happened:
        """Applies a TaskStatus. The same one twice changes nothing the second time."""
        task_id = str((status.get("task_id") or {}).get("value", ""))
        app_id = naming.app_of_task(task_id)
        if app_id is None:
            return Happened(task=task_id)
        state = self.apps.get(app_id)
        before = state.instances.get(task_id) if state else None
        if status.get("state") in ENDED:
            return self._ended(state, before, status, now_s) if state and before else Happened(task=task_id)
        if state is None:
            state = self.apps[app_id] = AppState(id=app_id)
        known = before or self._adopted(state, task_id, status, now_s)
        after = updated(known, status, now_s=now_s)
        state.instances[task_id] = after
        state.confirmed.add(task_id)
        return Happened(app=app_id, task=task_id, before=before, after=after)

    @staticmethod
    def _adopted(state: AppState, task_id: str, status: Mapping[str, Any], now_s: float) -> Instance:
        """A task of ours that no record knows: it came back from an agent long lost, or the record was."""
        checked = status.get("healthy") is not None or (state.app is not None and state.app.checked)
        started_s = float(status.get("timestamp") or now_s)
        return Instance(id=task_id, app=state.id, version="", staged_s=started_s, checked=checked)

    def _ended(self, state: AppState, before: Instance, status: Mapping[str, Any], now_s: float) -> Happened:
        del state.instances[before.id]
        state.confirmed.discard(before.id)
        unasked = not before.going and not before.expunged and status.get("reason") not in NOT_ITS_FAULT
        failed = unasked and (
            status["state"] in FAILURES or (status["state"] == "TASK_KILLED" and status.get("healthy") is False)
        )
        if failed and state.app is not None and state.is_current(before):
            ran_s = now_s - before.started_s if before.started_s else 0.0
            state.delay = after_failure(state.delay, state.app, now_s=now_s, ran_s=ran_s)
        if failed or (unasked and status["state"] != "TASK_KILLED"):
            state.last_failure = _failure(before, status, now_s)
        return Happened(app=state.id, task=before.id, before=before, ended=True, failed=failed)

    def launched(self, launch: Launch, task_id: str, *, now_s: float) -> Instance:
        """The intent: to be recorded before the master hears of it."""
        place = launch.offer.place
        instance = Instance(
            id=task_id,
            app=launch.app.id,
            version=launch.app.config_version,
            agent=launch.offer.agent,
            hostname=place.hostname,
            attributes=dict(place.attributes),
            zone=place.zone,
            region=place.region,
            role=launch.offer.role,
            ports=launch.ports,
            state=INTENDED,
            staged_s=now_s,
            checked=launch.app.checked,
        )
        self.apps[launch.app.id].instances[task_id] = instance
        return instance

    def leave(self, task_id: str, reason: str) -> None:
        """Marks an instance as asked to end; a second reason does not replace the first."""
        found = self.find(task_id)
        if found is not None and not found[1].leaving:
            found[0].instances[task_id] = msgspec.structs.replace(found[1], leaving=reason)

    def forget(self, task_id: str) -> str:
        """Drops an instance that was never launched; returns its app's id, "" when it is not known."""
        found = self.find(task_id)
        if found is None:
            return ""
        del found[0].instances[task_id]
        found[0].confirmed.discard(task_id)
        return found[0].id

    def expunge(self, *, now_s: float) -> list[str]:
        """Gives up what has been unreachable for too long; returns the apps that changed."""
        changed = []
        for state in self.apps.values():
            gone = [i for i in state.alive() if expunges(i, state.app, now_s=now_s)]
            for instance in gone:
                state.instances[instance.id] = msgspec.structs.replace(instance, expunged=True)
            if gone:
                changed.append(state.id)
                kept = sorted((i for i in state.instances.values() if i.expunged), key=lambda i: -i.unreachable_s)
                for instance in kept[EXPUNGED_KEPT:]:
                    del state.instances[instance.id]
        return changed

    # --- deciding

    def decide(self, app_id: str, *, now_s: float) -> Plan:
        """The plan for one app, kept in its state with how many launches may go out now."""
        state = self.apps[app_id]
        state.plan = self._planned(state, now_s)
        state.holds = self._holds(state, now_s) if state.plan.launch else ""
        state.launchable = 0 if state.holds else state.plan.launch
        if not state.plan.launch:
            state.since_s, state.looked_at = 0.0, 0
            state.refusals.clear()
        elif not state.since_s:
            state.since_s = now_s
        return state.plan

    def _planned(self, state: AppState, now_s: float) -> Plan:
        if self._orphan(state):
            return Plan()
        if not state.fault:
            try:
                return reconcile(self._wanted(state), self._seen(state, now_s))
            except Exception as error:  # noqa: BLE001  # one app's definition must not stop the others
                self.exclude(state.id, f"it cannot be planned: {error!r}")
        return Plan(waits_for=f"another definition: {state.fault}")

    def exclude(self, app_id: str, why: str) -> None:
        """Nothing more is launched or ended for the app; what runs of it runs on."""
        state = self.apps[app_id]
        state.fault, state.launchable = why, 0

    @staticmethod
    def _orphan(state: AppState) -> bool:
        return state.app is None and not state.deleted

    @staticmethod
    def _wanted(state: AppState) -> Wanted:
        app = state.app
        if app is None:
            return Wanted(instances=0)
        return Wanted(
            instances=app.instances,
            minimum_health_capacity=app.upgrade_strategy.minimum_health_capacity,
            maximum_over_capacity=app.upgrade_strategy.maximum_over_capacity,
            oldest_first=app.kill_selection == "OLDEST_FIRST",
            replace=state.halted != app.config_version,
        )

    def _seen(self, state: AppState, now_s: float) -> list[Seen]:
        return [
            Seen(
                id=one.id,
                current=state.is_current(one),
                ready=one.ready,
                confirmed=one.id in state.confirmed,
                going=one.going,
                draining=one.agent in self.draining,
                staged_s=one.staged_s,
            )
            for one in state.alive()
            if not inactive(one, state.app, now_s=now_s)
        ]

    def _holds(self, state: AppState, now_s: float) -> str:
        if state.app is None:
            return ""
        if state.unrecorded:
            return "the master's word on instances that run already"
        left_s = state.delay.left_s(state.app, now_s=now_s)
        if left_s > 0:
            return f"the backoff after failures, {left_s:.1f} s left"
        if state.alive():
            return ""
        for other in state.app.dependencies:
            needed = self.get(other)
            if needed is not None and not needed.plan.settled:
                return f"its dependency {other}"
        return ""

    def needs(self) -> list[Need]:
        """What may be launched now, longest waiting first."""
        waiting = sorted((s for s in self.apps.values() if s.launchable), key=lambda s: (s.since_s, s.id))
        return [Need(app=s.app, count=s.launchable, places=self._places(s)) for s in waiting if s.app is not None]

    def _places(self, state: AppState) -> tuple[Place, ...]:
        """Where instances of this configuration are; those of others, or on their way out, make room."""
        return tuple(i.place for i in state.alive() if state.is_current(i) and not i.going)

    def remember(self, refusals: Mapping[str, Iterable[Refusal]], *, offers: int) -> None:
        for app_id, answers in refusals.items():
            state = self.apps[app_id]
            state.looked_at += offers
            for refusal in answers:
                state.refusals[refusal.offer.agent] = refusal

    def wake_s(self, *, now_s: float) -> float:
        """When the next backoff is over: worth deciding again then. Infinity when none runs."""
        waits = (s.delay.until_s for s in self.apps.values() if s.plan.launch and s.delay.until_s > now_s)
        return min(waits, default=float("inf"))


def _failure(instance: Instance, status: Mapping[str, Any], now_s: float) -> Failure:
    return Failure(
        task_id=instance.id,
        instance_id=naming.instance_of_task(instance.id),
        state=str(status["state"]),
        message=str(status.get("message") or status.get("reason") or ""),
        host=instance.hostname,
        slave_id=instance.agent,
        timestamp=naming.timestamp(float(status.get("timestamp") or now_s)),
        version=instance.version,
    )
