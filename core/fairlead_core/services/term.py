"""One leadership: the only owner of the fleet while it lasts.

Events (the master's, clients', time's) change the fleet at once and mark apps; `_decide` turns marks into plans, the
delivery makes them durable, then tells the master. A crash between any two of them is healed by the next start:
records name every intent, and the master is asked about each.
"""

import asyncio
import functools
import random
import time
import uuid
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from fairlead_core.services import metrics
from fairlead_core.services.adapters.mesos import Subscription
from fairlead_core.services.adapters.store import Doubtful, Store, Stored, Writes
from fairlead_core.services.decisions import naming
from fairlead_core.services.decisions.backoff import Delay
from fairlead_core.services.decisions.deployments import Deployment
from fairlead_core.services.decisions.instances import INTENDED, Happened, Instance
from fairlead_core.services.decisions.matching import Launch, match
from fairlead_core.services.decisions.notices import notice, notices
from fairlead_core.services.decisions.offers import Offer, from_json
from fairlead_core.services.decisions.task_info import task_info
from fairlead_core.services.delivery import ACCEPT, KILL, Delivery
from fairlead_core.services.events import Events
from fairlead_core.services.fleet import AppState, Fleet
from fairlead_core.services.settings import ServicesSettings
from fairlead_daemon.backoff import Backoff
from fairlead_daemon.errors import Refused, Unavailable
from fairlead_daemon.logs import Log
from fairlead_discovery import paths

log = Log("services")
T = TypeVar("T")
OVER = "this scheduler leads no more; ask again"
TICK_S = 0.5
REVIVE_LEAST_S = 0.2
REVIVE_AGAIN = 6
"""Times `retry_s`: declined offers come back by themselves after that; this is for a REVIVE that was lost."""
ASK_BACKOFF = Backoff(first_s=1.0, most_s=30.0)


class Term:
    """Made when elected; `run` it until it is cancelled or raises Conflict (another leader)."""

    def __init__(self, settings: ServicesSettings, store: Store, stored: Stored, events: Events) -> None:
        self.settings = settings
        self.store = store
        self.fleet = Fleet(stored)
        self.events = events
        self.framework_id = stored.framework_id
        self.delivery = Delivery(store, self.fleet, unlaunched=self._not_launched, unanswered=self._ask_soon)
        self.held = ""
        """Why nothing may be decided now (the registry is not to be believed), "" when all is well."""
        self.over = False
        self._marked: set[str] = set(self.fleet.apps)
        self._wake_decide = asyncio.Event()
        self._wake_end = asyncio.Event()
        self._to_end: set[str] = set()
        self._changes: asyncio.Queue[tuple[Callable[[], Awaitable[Any]], asyncio.Future[Any]]] = asyncio.Queue()
        self._killed_s: dict[str, float] = {}
        self._suppressed = False
        self._revived_s = 0.0
        self._wanted_before = 0
        self._faults: frozenset[str] = frozenset()
        self._ask_attempt = 0
        self._ask_at_s = 0.0
        self._implicit_at_s = 0.0
        self._subscribed_s = 0.0
        self._settled = False
        self._wake_decide.set()

    async def run(self) -> None:
        """Raises Conflict when leadership has gone, Doubtful when the state is to be loaded again."""
        try:
            async with asyncio.TaskGroup() as group:
                for body in (self._decide(), self._end(), self._tick(), self._change()):
                    group.create_task(body)
                group.create_task(self.delivery.record())
                group.create_task(self.delivery.send())
        finally:
            self.over = True
            while not self._changes.empty():
                _fail(self._changes.get_nowait()[1], Unavailable(OVER))

    # --- clients' changes, one after another

    async def perform(self, change: Callable[[], Awaitable[T]]) -> T:
        """Runs `change` when all earlier ones are done; its result, or its error."""
        if self.over:
            raise Unavailable(OVER)
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._changes.put_nowait((change, future))
        return await future

    async def _change(self) -> None:
        while True:
            change, future = await self._changes.get()
            try:
                result = await change()
            except asyncio.CancelledError:
                _fail(future, Unavailable(OVER))
                raise
            except Doubtful as error:
                _fail(future, error)
                raise
            except Exception as error:  # noqa: BLE001  # the caller's: a bug in one change is its request's 500
                _fail(future, error)
            else:
                if not future.done():
                    future.set_result(result)

    def mark(self, *apps: str) -> None:
        """The apps are to be decided anew."""
        self._marked.update(apps)
        self._wake_decide.set()

    def reset_delay(self, app_id: str) -> None:
        """The app's next launch waits no more."""
        self.fleet.apps[app_id].delay = Delay()
        self.delivery.dirty(app_id)
        self.mark(app_id)

    def hold(self, why: str) -> None:
        """Nothing is decided while `why` is not ""."""
        if why != self.held:
            self.held = why
            self._wake_decide.set()

    # --- the master's events

    async def on_subscribed(self, subscription: Subscription) -> None:
        """Asks about every task that is recorded, and for every task that is not."""
        if subscription.framework_id != self.framework_id:
            await self.store.save_framework(subscription.framework_id, self.settings.framework)
            self.framework_id = subscription.framework_id
        self.delivery.subscription = subscription
        self.fleet.unconfirm()
        self._suppressed, self._revived_s = False, time.monotonic()
        self._ask_attempt, self._ask_at_s = 0, 0.0
        self._implicit_at_s = 0.0
        self._killed_s.clear()  # kills that were on their way when the stream ended are asked for again
        self._subscribed_s, self._settled = time.time(), False
        metrics.subscribed.set(1)
        self._ask()
        self.mark(*self.fleet.apps)

    async def forget_framework(self) -> None:
        """The master ended the framework and every task of it."""
        await self.store.save_framework("", self.settings.framework)
        self.framework_id = ""
        for state in self.fleet.apps.values():
            state.instances.clear()
            self.delivery.dirty(state.id)
            self.mark(state.id)

    def on_disconnected(self) -> None:
        self.delivery.subscription = None
        self.fleet.unconfirm()  # nothing is ended on what was true before
        metrics.subscribed.set(0)

    def on_event(self, event: Mapping[str, Any]) -> None:
        """Everything but SUBSCRIBED and ERROR."""
        match event.get("type"):
            case "OFFERS":
                self._on_offers(list(_readable((event.get("offers") or {}).get("offers") or ())))
            case "UPDATE":
                self._on_status((event.get("update") or {}).get("status") or {})
            case "INVERSE_OFFERS":
                self._on_inverse_offers((event.get("inverse_offers") or {}).get("inverse_offers") or ())
            case "RESCIND_INVERSE_OFFER":
                gone = _value((event.get("rescind_inverse_offer") or {}).get("inverse_offer_id"))
                self._undrain([agent for agent, offer in self.fleet.draining.items() if offer == gone])

    def _on_status(self, status: Mapping[str, Any]) -> None:
        now_s = time.time()
        happened = self.fleet.on_status(status, now_s=now_s)
        metrics.updates.labels(state=str(status.get("state"))).inc()
        if status.get("uuid"):
            self.delivery.queue(
                "ACKNOWLEDGE",
                acknowledge={k: status[k] for k in ("agent_id", "task_id", "uuid") if k in status},
            )
        if not happened.app:
            return
        if happened.before != happened.after or happened.ended:
            self.delivery.dirty(happened.app)
        self._tell(happened, status)
        self.mark(happened.app)

    def _tell(self, happened: Happened, status: Mapping[str, Any]) -> None:
        one = happened.after or happened.before
        if one is None:
            return
        if happened.ended:
            self._killed_s.pop(one.id, None)
            if happened.failed:
                metrics.failures.inc()
                log.warning(
                    "task failed", task=one.id, state=status["state"], message=str(status.get("message", ""))[:200]
                )
        for told in notices(happened, status, stamp=naming.timestamp(time.time())):
            self.events.publish(told)

    def _on_inverse_offers(self, offers: Sequence[Mapping[str, Any]]) -> None:
        ids = []
        for offer in offers:
            ids.append(offer.get("id"))
            agent = _value(offer.get("agent_id"))
            if agent and agent not in self.fleet.draining:
                log.info("draining", agent=agent)
            if agent:
                self.fleet.draining[agent] = _value(offer.get("id"))
        if ids:
            self.delivery.queue("ACCEPT_INVERSE_OFFERS", accept_inverse_offers={"inverse_offer_ids": ids})
            self.mark(*self._on_agents(set(self.fleet.draining)))

    def _undrain(self, agents: Sequence[str]) -> None:
        for agent in agents:
            del self.fleet.draining[agent]
            log.info("drained no more", agent=agent)
        if agents:
            self.mark(*self._on_agents(set(agents)))

    def _on_agents(self, agents: set[str]) -> list[str]:
        return [s.id for s in self.fleet.apps.values() if any(i.agent in agents for i in s.instances.values())]

    def _on_offers(self, offers: Sequence[Offer]) -> None:
        now_s = time.time()
        self._undrain([o.agent for o in offers if o.leaves_s is None and o.agent in self.fleet.draining])
        needs = self.fleet.needs() if not self.held else []
        matching = match(needs, offers, now_s=now_s, pick=random.randrange)
        self.fleet.remember(matching.refusals, offers=len(offers))
        for app_id, why in matching.faults.items():
            self.fleet.exclude(app_id, why)
        by_offer: dict[str, list[Launch]] = {}
        for launch in matching.launches:
            by_offer.setdefault(launch.offer.id, []).append(launch)
        hungry = sum(n.count for n in needs) > len(matching.launches)
        filters = {"refuse_seconds": self.settings.retry_s if hungry else self.settings.decline_s}
        for offer_id, launches in by_offer.items():
            self._accept(offer_id, launches, filters, now_s)
        unused = [{"value": o.id} for o in offers if o.id not in by_offer]
        if unused:
            self.delivery.queue("DECLINE", decline={"offer_ids": unused, "filters": filters})
        metrics.offers.labels(outcome="accepted").inc(len(by_offer))
        metrics.offers.labels(outcome="declined").inc(len(unused))
        self.mark(*{launch.app.id for launch in matching.launches}, *matching.faults)

    def _accept(self, offer_id: str, launches: Sequence[Launch], filters: Mapping[str, Any], now_s: float) -> None:
        infos, tasks = [], []
        for launch in launches:
            task_id = naming.task_id(launch.app.id, launch.app.config_version, str(uuid.uuid4()))
            try:
                infos.append(task_info(launch, task_id))
            except Exception as error:  # noqa: BLE001  # one app's definition must not stop the others
                self.fleet.exclude(launch.app.id, f"no task can be made of it: {error!r}")
                continue
            self.fleet.launched(launch, task_id, now_s=now_s)
            self.delivery.dirty(launch.app.id)
            tasks.append(task_id)
        if not tasks:
            self.delivery.queue("DECLINE", decline={"offer_ids": [{"value": offer_id}], "filters": dict(filters)})
            return
        operation = {"type": "LAUNCH", "launch": {"task_infos": infos}}
        accept = {"offer_ids": [{"value": offer_id}], "operations": [operation], "filters": dict(filters)}
        self.delivery.queue(ACCEPT, tasks=tuple(tasks), accept=accept)

    # --- deciding

    async def _decide(self) -> None:
        while True:
            await self._wake_decide.wait()
            self._wake_decide.clear()
            if self.held:
                continue
            marked, self._marked = self._marked, set()
            for app_id in sorted(marked):
                self._decide_app(app_id)
            self._flow()
            self._to_end |= marked
            self._wake_end.set()
            self._measure()
            await asyncio.sleep(0)

    def _decide_app(self, app_id: str) -> None:
        state = self.fleet.apps.get(app_id)
        if state is None:
            return
        settled = state.plan.settled
        plan = self.fleet.decide(app_id, now_s=time.time())
        for kill in plan.kills if self._settled else ():
            self.kill(kill.id, kill.reason)
        if plan.settled != settled:
            self.mark(*(s.id for s in self.fleet.apps.values() if s.app is not None and app_id in s.app.dependencies))

    def kill(self, task_id: str, reason: str) -> None:
        """Records the intent, then asks the master; asked again until the task has ended."""
        found = self.fleet.find(task_id)
        if found is None or found[1].leaving:
            return
        self.fleet.leave(task_id, reason)
        self.delivery.dirty(found[0].id)
        metrics.kills.labels(reason=reason).inc()
        self._send_kill(found[0].instances[task_id])
        self.mark(found[0].id)

    def _send_kill(self, instance: Instance) -> None:
        self._killed_s[instance.id] = time.monotonic()
        kill = {
            "task_id": {"value": instance.id},
            **({"agent_id": {"value": instance.agent}} if instance.agent else {}),
        }
        self.delivery.queue(KILL, kill=kill, fairlead={"reason": instance.leaving})

    def _flow(self) -> None:
        """Offers on when something waits for them, off when nothing does."""
        if self.delivery.subscription is None:
            return
        waiting = sum(s.launchable for s in self.fleet.apps.values())
        now_s = time.monotonic()
        since_s = now_s - self._revived_s
        more = waiting > self._wanted_before
        if not waiting and not self._suppressed:
            self._suppressed = True
            self.delivery.queue("SUPPRESS")
        elif waiting and (
            self._suppressed or since_s >= (REVIVE_LEAST_S if more else REVIVE_AGAIN * self.settings.retry_s)
        ):
            self._suppressed, self._revived_s = False, now_s
            self.delivery.queue("REVIVE")
        elif waiting and more:
            return  # asked just now: the next tick asks again
        self._wanted_before = waiting

    async def _end(self) -> None:
        """Ends deployments that are done and forgets apps that have gone, in turn with clients' changes."""
        while True:
            await self._wake_end.wait()
            self._wake_end.clear()
            marked, self._to_end = self._to_end, set()
            if not any(self._ended(marked)):
                continue
            await self.perform(functools.partial(self._finish, marked))

    def _ended(self, marked: set[str]) -> tuple[list[Deployment], list[AppState]]:
        done = [d for d in self.fleet.deployments.values() if marked & set(d.changes) and not self.fleet.unsettled(d)]
        known = [s for app_id in marked if (s := self.fleet.apps.get(app_id)) is not None]
        return done, [s for s in known if s.app is None and s.deleted and not s.alive()]

    async def _finish(self, marked: set[str]) -> None:
        done, gone = self._ended(marked)
        await self.store.change(
            Writes(
                ended=[d.id for d in done],
                remove=[(s.id, v) for s in gone for v in s.versions],
                forgotten=[s.id for s in gone],
                routes={paths.service_key(self.settings.framework, s.id): None for s in gone},
            )
        )
        stamp = naming.timestamp(time.time())
        for deployment in done:
            self.fleet.deployments.pop(deployment.id, None)
            log.info("deployment done", id=deployment.id, apps=",".join(deployment.apps))
            self.events.publish(notice("deployment_success", stamp, id=deployment.id, plan={"id": deployment.id}))
        for state in gone:
            self.fleet.apps.pop(state.id, None)
            self.delivery.forget(state.id)
            self.events.publish(notice("app_terminated_event", stamp, appId=state.id))

    def _measure(self) -> None:
        metrics.apps.set(len(self.fleet.defined()))
        metrics.deployments.set(len(self.fleet.deployments))
        metrics.pending.set(sum(s.plan.launch for s in self.fleet.apps.values()))
        faults = {s.id: s.fault for s in self.fleet.apps.values() if s.fault}
        for app_id in faults.keys() - self._faults:
            log.error("app excluded until its definition is changed", app=app_id, why=faults[app_id])
        self._faults = frozenset(faults)
        metrics.excluded.set(len(faults))

    # --- time

    def _ask_soon(self) -> None:
        """A launch may have happened or not."""
        self._ask_attempt, self._ask_at_s = 0, time.monotonic() + 1.0

    def _not_launched(self, task_ids: Sequence[str]) -> None:
        """The master has never heard of these tasks."""
        for task_id in task_ids:
            app_id = self.fleet.forget(task_id)
            if app_id:
                self.delivery.dirty(app_id)
                self.mark(app_id)

    async def _tick(self) -> None:
        while True:
            now_s = time.time()
            for app_id in self.fleet.expunge(now_s=now_s):
                self.delivery.dirty(app_id)
                self.mark(app_id)
            for state in self.fleet.apps.values():
                if state.plan.launch or any(i.unreachable_s for i in state.instances.values()):
                    self.mark(state.id)
            self._give_up_launches(now_s)
            self._kill_again()
            self._ask()
            self._settle(now_s)
            self._count()
            until_s = min(TICK_S if self._settled else TICK_S / 5, max(0.01, self.fleet.wake_s(now_s=now_s) - now_s))
            await asyncio.sleep(until_s)

    def _give_up_launches(self, now_s: float) -> None:
        """A launch without a word for too long is made again; should it live after all, it is known by its id."""
        for state in self.fleet.apps.values():
            for one in list(state.instances.values()):
                if one.state in {INTENDED, "TASK_STAGING"} and now_s - one.staged_s > self.settings.launch_timeout_s:
                    self.kill(one.id, "kill")
                    if one.state == INTENDED and self.delivery.subscription is not None:
                        log.warning("launch given up", task=one.id)
                        self.fleet.forget(one.id)
                        self.delivery.dirty(state.id)

    def _kill_again(self) -> None:
        if self.delivery.subscription is None:
            return
        now_s = time.monotonic()
        for state in self.fleet.apps.values():
            for one in state.instances.values():
                if one.leaving and now_s - self._killed_s.get(one.id, -1e9) >= self.settings.kill_retry_s:
                    self._send_kill(one)

    def _ask(self) -> None:
        """Explicit reconciliation of what is not confirmed, with growing pauses; implicit now and then."""
        now_s = time.monotonic()
        if self.delivery.subscription is None:
            return
        if now_s >= self._implicit_at_s:
            self._implicit_at_s = now_s + self.settings.reconcile_s
            self.delivery.queue("RECONCILE", reconcile={"tasks": []})
        if now_s < self._ask_at_s:
            return
        just_s = max(self._subscribed_s, time.time() - 1.0)  # launched since then: the first update is on its way
        unknown = [i for i in self.fleet.unconfirmed() if i.staged_s < just_s]
        if not unknown:
            self._ask_attempt = 0
            return
        tasks = [{"task_id": {"value": i.id}, **({"agent_id": {"value": i.agent}} if i.agent else {})} for i in unknown]
        self.delivery.queue("RECONCILE", reconcile={"tasks": tasks})
        self._ask_at_s = now_s + ASK_BACKOFF.delay_s(self._ask_attempt, chance=random.random())  # noqa: S311  # jitter
        self._ask_attempt += 1

    def _settle(self, now_s: float) -> None:
        """What the master has not told by now it does not know: what runs already, and which machines are drained."""
        if self._settled or self.delivery.subscription is None or now_s - self._subscribed_s < self.settings.settle_s:
            return
        self._settled = True
        for state in self.fleet.apps.values():
            state.unrecorded = False
            self.mark(state.id)

    def _count(self) -> None:
        counts: dict[str, int] = {}
        for state in self.fleet.apps.values():
            for one in state.instances.values():
                counts[one.state] = counts.get(one.state, 0) + 1
        for name in {"TASK_RUNNING", "TASK_STAGING", "TASK_STARTING", "TASK_KILLING", "TASK_UNREACHABLE", INTENDED}:
            metrics.instances.labels(state=name).set(counts.get(name, 0))


def _readable(offers: Iterable[Mapping[str, Any]]) -> Iterator[Offer]:
    for offer in offers:
        try:
            yield from_json(offer)
        except Refused as error:
            log.warning("offer unreadable", why=str(error))


def _fail(future: asyncio.Future[Any], error: Exception) -> None:
    if not future.done():
        future.set_exception(error)


def _value(wrapped: Mapping[str, Any] | None) -> str:
    return str((wrapped or {}).get("value", ""))
