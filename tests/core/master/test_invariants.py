"""Whatever happens, in whatever order: nothing is given out twice, nothing is lost, nobody leaves twice."""

import itertools
from collections import Counter
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from fairlead_core.agent_protocol import Kill, Register, Run, TaskState, Update
from fairlead_core.master.decisions import agents, allocation, calls, draining, frameworks, handling, killing, plan
from fairlead_core.master.decisions.model import Agent, Cluster, Framework, Leave, Moment, Order, Send
from fairlead_core.master.decisions.statuses import TERMINAL
from fairlead_core.resources import Resources, parse, to_mesos
from fairlead_discovery import paths
from fairlead_discovery.decisions.leaving import Readers
from fairlead_discovery.registry import Create, Delete, Put

AGENTS = ("S0", "S1")
NAMES = ("fa", "fb")
TOTAL = "cpus:2;mem:64;ports:[1-4]"
few = st.integers(0, 3)


class Machine:
    """What a real agent would know: tasks it runs, with their last status."""

    def __init__(self) -> None:
        self.tasks: dict[tuple[str, str], tuple[Any, str]] = {}


class Master(RuleBasedStateMachine):
    """Events in small numbers, so that collisions are common; the registry is a dict that takes every batch."""

    def __init__(self) -> None:
        super().__init__()
        self.now = Moment(s=1000.0, wall_s=5000.0)
        self.cluster = Cluster(master_id="M", epoch=1, started_s=990.0)
        self.machines = {name: Machine() for name in AGENTS}
        self.ids: dict[str, str] = {}
        self.nodes: dict[str, bytes] = {}
        self.serial = itertools.count()
        self.killed_early: list[str] = []

    # --- what may happen -------------------------------------------------------------------------------------------

    @initialize()
    def all_are_there(self) -> None:
        for name in AGENTS:
            self.agent_registers(name)
        for name in NAMES:
            self.framework_subscribes(name, multi=True)

    @rule(which=few, port=st.integers(1, 4))
    def task_comes_up(self, which: int, port: int) -> None:
        """Launched, running, acknowledged and published, as most are."""
        self.offer_is_accepted(which, 1, 0.5, port, 0.0)
        for agent_id, machine in self.machines.items():
            for key, (info, state) in machine.tasks.items():
                if state == "TASK_STAGING":
                    machine.tasks[key] = (info, "TASK_RUNNING")
                    self.report(agent_id, key, "TASK_RUNNING", latest="TASK_RUNNING")
        self.registry_is_written(stands=True)

    @rule(which=st.sampled_from(AGENTS))
    def agent_registers(self, which: str) -> None:
        machine = self.machines[which]
        message = Register(
            agent_id=which,
            boot_id="b",
            process_id="p",
            hostname=which,
            ip="127.0.0.1",
            port=5051 + AGENTS.index(which),
            resources=tuple(to_mesos(parse(TOTAL))),
            tasks=tuple(
                TaskState(framework_id=f, task=info, status=self.status(t, which, state))
                for (f, t), (info, state) in machine.tasks.items()
            ),
        )
        agents.register(self.cluster, message, f"agent-{next(self.serial)}", now=self.now)
        self.settle()

    @rule(which=st.sampled_from(NAMES), multi=st.booleans())
    def framework_subscribes(self, which: str, multi: bool) -> None:
        info: dict[str, Any] = {"name": which, "user": "u", "failover_timeout": 20.0}
        if which in self.ids:
            info["id"] = {"value": self.ids[which]}
        if multi:
            info |= {"capabilities": [{"type": "PARTITION_AWARE"}]}
        call = calls.Subscribe(framework_info=info)
        try:
            made = frameworks.subscribe(self.cluster, call, f"fw-{next(self.serial)}", "", now=self.now)
        except frameworks.WasRemoved:
            del self.ids[which]
            return
        self.ids[which] = made.id
        frameworks.welcome(self.cluster, made, {})
        self.settle()

    @rule(
        which=few,
        count=few,
        cpus=st.sampled_from((0.5, 1.0)),
        port=st.integers(1, 4),
        refuse_s=st.sampled_from((0.0, 5.0)),
    )
    def offer_is_accepted(self, which: int, count: int, cpus: float, port: int, refuse_s: float) -> None:
        offers = sorted(self.cluster.offers.values(), key=lambda o: o.id)
        if not offers:
            return
        offer = offers[which % len(offers)]
        infos = [self.task(offer.agent_id, cpus, port + n) for n in range(count)]
        launch = calls.Operation(type="LAUNCH", launch=calls.Launch(task_infos=infos))
        accept = calls.Accept(
            offer_ids=[calls.Value(offer.id)], operations=[launch], filters=calls.Filters(refuse_seconds=refuse_s)
        )
        self.call(offer.framework_id, calls.Call(type="ACCEPT", accept=accept))

    @rule(which=few, refuse_s=st.sampled_from((0.0, 5.0)))
    def offer_is_declined(self, which: int, refuse_s: float) -> None:
        offers = sorted(self.cluster.offers.values(), key=lambda o: o.id)
        if offers:
            offer = offers[which % len(offers)]
            decline = calls.Decline(offer_ids=[calls.Value(offer.id)], filters=calls.Filters(refuse_seconds=refuse_s))
            self.call(offer.framework_id, calls.Call(type="DECLINE", decline=decline))

    @rule(which=few, state=st.sampled_from(("TASK_RUNNING", "TASK_FINISHED", "TASK_FAILED")), ahead=st.booleans())
    def task_changes(self, which: int, state: str, ahead: bool) -> None:
        known = [(a, key) for a in AGENTS for key in self.machines[a].tasks]
        if not known:
            return
        agent_id, key = known[which % len(known)]
        info, before = self.machines[agent_id].tasks[key]
        if before not in TERMINAL:
            self.machines[agent_id].tasks[key] = (info, state)
            self.report(agent_id, key, state if not ahead else "TASK_STARTING", latest=state)

    @rule(which=few)
    def update_is_acknowledged(self, which: int) -> None:
        waiting = [
            t for f in self.cluster.frameworks.values() if f.connected for t in f.tasks.values() if t.unacknowledged
        ]
        if waiting:
            task = waiting[which % len(waiting)]
            given = calls.Acknowledge(
                agent_id=calls.Value(task.agent_id), task_id=calls.Value(task.id), uuid=task.unacknowledged
            )
            if task.status.get("state") in TERMINAL:
                self.machines[task.agent_id].tasks.pop(task.key, None)
            self.call(task.framework_id, calls.Call(type="ACKNOWLEDGE", acknowledge=given))

    @rule(which=few, reason=st.sampled_from(("kill", "scale", "unhealthy")))
    def task_is_killed(self, which: int, reason: str) -> None:
        live = [t for f in self.cluster.frameworks.values() if f.connected for t in f.tasks.values()]
        if live:
            task = live[which % len(live)]
            kill = calls.Call(type="KILL", kill=calls.Kill(task_id=calls.Value(task.id)), fairlead=calls.Why(reason))
            self.call(task.framework_id, kill)

    @rule(which=st.sampled_from(AGENTS), closes=st.booleans())
    def agent_goes(self, which: str, closes: bool) -> None:
        agent = self.cluster.agents.get(which)
        if agent is not None and closes:
            agents.disconnected(self.cluster, agent, agent.stream_id)
            self.settle()

    @rule(which=st.sampled_from(AGENTS))
    def agent_is_drained(self, which: str) -> None:
        agent = self.cluster.agents.get(which)
        if agent is not None:
            if agent.drain:
                draining.reactivate(self.cluster, agent)
            else:
                draining.drain(self.cluster, agent, grace_ns=10**9, mark_gone=False, now=self.now)
            self.settle()

    @rule(which=st.sampled_from(NAMES))
    def framework_stream_ends(self, which: str) -> None:
        framework = self.cluster.frameworks.get(self.ids.get(which, ""))
        if framework is not None:
            frameworks.disconnected(self.cluster, framework, framework.stream_id, now=self.now)
            self.settle()

    @rule(seconds=st.sampled_from((0.1, 1.5, 5.0, 31.0, 80.0)), beats=st.booleans())
    def time_passes(self, seconds: float, beats: bool) -> None:
        self.now = Moment(s=self.now.s + seconds, wall_s=self.now.wall_s + seconds)
        for agent in self.cluster.agents.values():
            if beats and agent.connected:
                agents.heard(self.cluster, agent, now=self.now)
        agents.watch_over(self.cluster, (), now=self.now)
        frameworks.expire(self.cluster, now=self.now)
        draining.watch_over(self.cluster, now=self.now)
        self.watch_kills()
        plan.drop_unclaimed(self.cluster, now=self.now)
        plan.time_has_come(self.cluster, now=self.now)
        allocation.everything_dirty(self.cluster)
        self.settle()

    @rule(stands=st.booleans())
    def registry_is_written(self, stands: bool) -> None:
        self.cluster.touched.update(self.cluster.services)  # planning again must change nothing
        batch = plan.make(self.cluster, now=self.now)
        plan.issued(self.cluster, batch)
        if stands:
            for change in batch.changes:
                self.perform(change)
            plan.stands(self.cluster, batch, len(self.nodes), now=self.now)
            assert all(leave.revision is not None for leave in self.cluster.leaves.values())
        else:
            plan.take_stored(self.cluster, list(self.standing()))
        self.settle()

    # --- the world around ------------------------------------------------------------------------------------------

    def perform(self, change: object) -> None:
        match change:
            case Create(path, data):
                assert path not in self.nodes, f"{path} is created twice"
                self.nodes[path] = data
            case Put(path, data):
                self.nodes[path] = data
            case Delete(path):
                self.nodes.pop(path, None)

    def standing(self) -> Any:
        for service, nodes in self.cluster.stored.items():
            yield from (n for n in nodes.values() if n.path in self.nodes and service)

    def watch_kills(self) -> None:
        before = {t for t, leave in self.cluster.leaves.items() if leave.revision is None and not self.told(t, leave)}
        killing.kill_due(self.cluster, Readers(largest_ttl_s=5.0), now=self.now)
        for task_id in before:
            leave = self.cluster.leaves.get(task_id)
            if leave is not None and self.now.s < leave.deadline_s and self.told(task_id, leave):
                self.killed_early.append(task_id)

    def told(self, task_id: str, leave: Leave) -> bool:
        """Whether its agent was told to kill it: an unhealthy one is, at once, also while it is leaving."""
        task = killing.task_of(self.cluster, leave, task_id)
        return task is not None and bool(task.kill_sent)

    def settle(self) -> None:
        allocation.allocate(self.cluster, now_s=self.now.s, weights={})
        streams = {a.stream_id: a.id for a in self.cluster.agents.values() if a.stream_id}
        for effect in self.cluster.take():
            if isinstance(effect, Order) and effect.stream_id in streams:
                self.obey(streams[effect.stream_id], effect.command)
            if isinstance(effect, Send):
                assert effect.stream_id

    def obey(self, agent_id: str, command: object) -> None:
        machine = self.machines[agent_id]
        if isinstance(command, Run):
            key = (command.framework["id"]["value"], command.task["task_id"]["value"])
            machine.tasks.setdefault(key, (command.task, "TASK_STAGING"))
        if isinstance(command, Kill) and (command.framework_id, command.task_id) in machine.tasks:
            info, _ = machine.tasks[command.framework_id, command.task_id]
            machine.tasks[command.framework_id, command.task_id] = (info, "TASK_KILLED")

    def report(self, agent_id: str, key: tuple[str, str], state: str, *, latest: str) -> None:
        agent = self.cluster.agents[agent_id]
        if agent.connected:
            update = Update(framework_id=key[0], status=self.status(key[1], agent_id, state), latest_state=latest)
            agents.updated(self.cluster, agent, update, now=self.now)
            self.settle()

    def status(self, task_id: str, agent_id: str, state: str) -> dict[str, Any]:
        return {
            "task_id": {"value": task_id},
            "agent_id": {"value": agent_id},
            "state": state,
            "uuid": f"u{next(self.serial)}",
        }

    def task(self, agent_id: str, cpus: float, port: int) -> dict[str, Any]:
        ports = {"range": [{"begin": port, "end": port}]}
        return {
            "name": "t",
            "task_id": {"value": f"t{next(self.serial)}"},
            "agent_id": {"value": agent_id},
            "command": {"value": "x"},
            "resources": [
                {"name": "cpus", "type": "SCALAR", "scalar": {"value": cpus}},
                {"name": "ports", "type": "RANGES", "ranges": ports},
            ],
        }

    def call(self, framework_id: str, call: calls.Call) -> None:
        framework = self.cluster.frameworks[framework_id]
        if framework.connected:
            handling.handle(self.cluster, framework, call, self.now)
            self.settle()

    # --- what must hold --------------------------------------------------------------------------------------------

    @invariant()
    def resources_are_conserved(self) -> None:
        for agent in self.cluster.agents.values():
            check_agent(agent)
        for framework in self.cluster.frameworks.values():
            check_framework(self.cluster, framework)

    @invariant()
    def one_offer_of_an_agent_per_framework(self) -> None:
        pairs = Counter((o.agent_id, o.framework_id) for o in self.cluster.offers.values())
        assert not pairs or max(pairs.values()) == 1

    @invariant()
    def offers_are_of_agents_and_to_frameworks_that_are_there(self) -> None:
        for offer in self.cluster.offers.values():
            assert self.cluster.agents[offer.agent_id].offerable
            assert self.cluster.frameworks[offer.framework_id].connected

    @invariant()
    def nobody_is_killed_before_readers_know(self) -> None:
        assert self.killed_early == []

    @invariant()
    def what_leaves_is_not_published(self) -> None:
        leaving = {paths.unescape(p.rpartition("/")[2]) for p in self.nodes if p.startswith(paths.LEAVING)}
        members = {paths.task_of(p.rpartition("/")[2]) for p in self.nodes if p.startswith(paths.ENDPOINTS)}
        assert not leaving & members


def check_agent(agent: Agent) -> None:
    used, count = Resources(), 0
    bundles = [t.resources for t in agent.tasks.values() if t.held]
    bundles += [o.resources for o in agent.offers.values()]
    for bundle in bundles:
        used += bundle
        count += ports_in(bundle)
    assert agent.used + agent.offered == used
    assert agent.total.contains(used), f"{agent.id} gives out more than it has"
    assert ports_in(used) == count, f"{agent.id} gives a port out twice"


def ports_in(bundle: Resources) -> int:
    return sum(end - begin + 1 for begin, end in bundle.ports())


def check_framework(cluster: Cluster, framework: Framework) -> None:
    held: Counter[tuple[str, str]] = Counter()
    for task in framework.tasks.values():
        if task.held:
            held.update({(task.role, n): v for (n, _), v in task.resources.scalars.items()})
    for offer in framework.offers.values():
        held.update({(offer.role, n): v for (n, _), v in offer.resources.scalars.items()})
    counted = {(r, n): v for r, names in framework.allocated.items() for n, v in names.items() if v}
    assert counted == {k: v for k, v in held.items() if v}


Master.TestCase.settings = settings(
    max_examples=80, stateful_step_count=50, deadline=None, suppress_health_check=list(HealthCheck)
)
TestMaster = Master.TestCase


def test_a_planted_double_allocation_is_caught() -> None:
    """The conservation check would see an agent whose offer was not taken off its free resources."""
    agent = Agent(id="S0", total=parse(TOTAL), seen=True, stream_id="x")
    cluster = Cluster(master_id="M", epoch=1, started_s=0.0, agents={"S0": agent})
    framework = Framework(id="F", name="f", info={}, stream_id="y")
    cluster.frameworks["F"] = framework
    cluster.dirty_agents.add("S0")
    allocation.allocate(cluster, now_s=0.0, weights={})
    check_agent(agent)
    agent.offered = Resources()

    with pytest.raises(AssertionError):
        check_agent(agent)
