"""All tasks of the agent: commands of the master in, events of the keeper in, the whole state out."""

import asyncio
import time
import uuid
from collections.abc import Mapping
from pathlib import Path

from fairlead_core.agent import metrics
from fairlead_core.agent.adapters.checkpoints import COMPLETED_KEPT, ExecutorRecord, TaskRecord, shortened
from fairlead_core.agent.adapters.keeper_link import KeeperLink
from fairlead_core.agent.decisions import executor_api, life, tasks, updates
from fairlead_core.agent.decisions.identities import Wish, wish
from fairlead_core.agent.decisions.statuses import Origin, status
from fairlead_core.agent.executors import ExecutorRun, ExecutorTask, executor_record
from fairlead_core.agent.keeper.protocol import Held
from fairlead_core.agent.launching import KEEPER_RETRY_S
from fairlead_core.agent.running import CommandRun, exited
from fairlead_core.agent.telling import Acknowledged, TaskRun
from fairlead_core.agent.world import World
from fairlead_core.agent_protocol import (
    Acknowledge,
    ExecutorMessage,
    Kill,
    Mesos,
    Run,
    ShutdownExecutor,
    ShutdownFramework,
    Update,
)
from fairlead_core.resources import covers, without
from fairlead_daemon.errors import FairleadError, Refused, Unavailable
from fairlead_daemon.logs import Log
from fairlead_discovery.decisions import label_names

log = Log("agent")


class Roster:
    """Owns the runs. A bug in one ends the daemon, and no task."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._group = asyncio.TaskGroup()
        self.runs: dict[str, TaskRun] = {}
        self.executors: dict[str, ExecutorRun] = {}
        self.completed: dict[str, TaskRecord] = {}
        self._rebooted: set[str] = set()
        """Keys of tasks of before the machine's restart."""

    # --- start -------------------------------------------------------------------------------------------------------

    async def live(self, *, rebooted: bool) -> None:
        """For ever. Everything is recovered before the first await, so that who starts after us finds it all."""
        async with self._group:
            self.recover(rebooted=rebooted)
            await asyncio.Event().wait()

    def recover(self, *, rebooted: bool) -> None:
        """Takes every task up where the disk says it was."""
        for record in self._world.checkpoints.completed():
            self.completed[tasks.key(record.framework_id, record.task_id)] = record
        for executor in self._world.checkpoints.executors():
            self._start_executor(executor)
        for record in self._world.checkpoints.tasks():
            try:
                run = self._run_of(record)
            except Refused as error:
                log.warning("checkpoint not understood", task=record.task_id, why=str(error))
                continue
            if rebooted and not run.ended:
                self._rebooted.add(run.key)
                if record.life.phase == life.Phase.LAUNCHING or record.executor_id:
                    self._lose(run)
            self._start(run)
        if rebooted:
            for lost in self.executors.values():
                lost.lost("the machine restarted")
        if self.runs:
            log.info("recovered", tasks=len(self.runs), executors=len(self.executors), rebooted=len(self._rebooted))

    def _run_of(self, record: TaskRecord, *, volatile: bool = False) -> TaskRun:
        """Raises Refused when it cannot be understood."""
        if not record.executor_id:
            return CommandRun(record, self._world, volatile=volatile)
        executor = self.executors.get(tasks.executor_key(record.framework_id, record.executor_id))
        if executor is not None:
            return ExecutorTask(record, self._world, executor, volatile=volatile)
        orphan = ExecutorTask(record, self._world, self._executor(executor_record(record)), volatile=volatile)
        orphan.tell(life.Exited(lost="its executor ended"))
        return orphan

    def _executor(self, record: ExecutorRecord) -> ExecutorRun:
        return ExecutorRun(record, self._world, ended=self._executor_over)

    def _executor_over(self, executor: ExecutorRun) -> None:
        self.executors.pop(executor.key, None)

    def _start_executor(self, record: ExecutorRecord) -> ExecutorRun:
        executor = self._executor(record)
        self.executors[executor.key] = executor
        self._group.create_task(executor.run())
        return executor

    def _start(self, run: TaskRun) -> None:
        self.runs[run.key] = run
        if isinstance(run, ExecutorTask):
            run.join()
        self._group.create_task(self._until_settled(run))
        self._count()

    async def _until_settled(self, run: TaskRun) -> None:
        await run.run()
        del self.runs[run.key]
        if isinstance(run, ExecutorTask):
            run.leave()
        self.completed[run.key] = shortened(run.record)
        while len(self.completed) > COMPLETED_KEPT:
            self._world.checkpoints.forget(self.completed.pop(next(iter(self.completed))))
        self._count()

    def _count(self) -> None:
        metrics.TASKS.set(sum(not run.ended for run in self.runs.values()))

    # --- the keeper --------------------------------------------------------------------------------------------------

    def adopt(self, held: Mapping[str, Held]) -> None:
        """A keeper's whole list, at its beginning and after each reconnection."""
        for key, run in self.runs.items():
            if run.record.executor_id:
                continue
            if key in held:
                self._compare(run, held[key])
            elif run.record.life.phase == life.Phase.RUNNING:
                self._missing(run)
        for key, executor in self.executors.items():
            if key in held and held[key].ended_s:
                executor.exited(held[key])
            elif key not in held and executor.record.started:
                executor.lost("the keeper has no record of it")
        for key in held.keys() - self.runs.keys() - self.executors.keys():
            self._group.create_task(self._end_stranger(key))

    def _compare(self, run: TaskRun, held: Held) -> None:
        run.tell(life.Launched(at_s=held.started_s))
        if not held.ended_s:
            return
        if held.lost and run.key in self._rebooted:
            self._lose(run)
        else:
            run.tell(exited(held))

    def _missing(self, run: TaskRun) -> None:
        if run.key in self._rebooted:
            self._lose(run)
        else:
            run.tell(life.Exited(lost="the keeper has no record of it"))

    def _lose(self, run: TaskRun) -> None:
        run.tell(life.MachineRestarted(state="TASK_GONE" if run.framework.can("PARTITION_AWARE") else "TASK_LOST"))

    def ended(self, held: Held) -> None:
        if (run := self.runs.get(held.key)) is not None:
            run.tell(exited(held))
        elif (executor := self.executors.get(held.key)) is not None:
            executor.exited(held)
        else:
            self._group.create_task(self._end_stranger(held.key))

    async def _end_stranger(self, key: str) -> None:
        """A task nobody here knows: it was settled, or its checkpoint is lost. It must not run on unseen."""
        while key not in self.runs and key not in self.executors:
            link = await self._world.keepers.link()
            try:
                if not await _forgotten(link, key):
                    log.warning("ending a task without a checkpoint", key=key)
                    await link.end(key, grace_s=life.DEFAULT_GRACE_S)  # its end is announced, then it is forgotten
            except Unavailable:
                await asyncio.sleep(KEEPER_RETRY_S)
            else:
                return

    # --- the master --------------------------------------------------------------------------------------------------

    def run(self, command: Run) -> None:
        """A known id: nothing is done twice; of one that is over, the end is told again."""
        try:
            record = self._record(command)
        except (FairleadError, KeyError, TypeError) as error:
            log.warning("RUN not understood", why=str(error))
            self._refuse(command, str(error))
            return
        key = tasks.key(record.framework_id, record.task_id)
        if (known := self._over(key)) is not None:
            self._world.outbox.once(Update(framework_id=known.framework_id, status=known.stream.latest))
        elif key not in self.runs:
            self._begin(record)

    def _over(self, key: str) -> TaskRecord | None:
        """Its end was acknowledged; the disk may still be at it."""
        run = self.runs.get(key)
        if run is not None and run.ended and updates.settled(run.record.stream):
            return run.record
        return self.completed.get(key)

    def _record(self, command: Run) -> TaskRecord:
        task = tasks.read(tasks.Task, command.task, place="task")
        framework = tasks.read(tasks.Framework, command.framework, place="framework")
        for name, value in (("task", task.task_id.value), ("framework", framework.id.value)):
            if why := tasks.bad_id(value):
                raise Refused(f"{name} id {value!r}: {why}")
        if task.executor is None:
            sandbox = self._world.sandboxes.path(framework.id.value, task.task_id.value)
            return TaskRecord(framework=dict(command.framework), task=dict(command.task), sandbox=str(sandbox))
        executor_id = task.executor.executor_id.value
        if why := tasks.bad_id(executor_id):
            raise Refused(f"executor id {executor_id!r}: {why}")
        sandbox = self._world.sandboxes.path(framework.id.value, f"executor~{executor_id}")
        return TaskRecord(
            framework=dict(command.framework), task=dict(command.task), sandbox=str(sandbox), executor_id=executor_id
        )

    def _begin(self, record: TaskRecord) -> None:
        """The task is on disk before anything of it runs; a disk that refuses it refuses the task."""
        try:
            run = self._prepared(record)
            if why := self._port_clash(run):
                run.tell(life.CouldNotLaunch(message=why))
            self._world.checkpoints.save(run.record)
        except OSError as error:
            metrics.CHECKPOINT_FAILURES.inc()
            why = f"the agent cannot write its checkpoint: {error.strerror}"
            log.warning("task refused", task=record.task_id, why=why)
            run = CommandRun(record, self._world, volatile=True)
            run.tell(life.CouldNotLaunch(message=why))
        self._start(run)

    def _prepared(self, record: TaskRecord) -> TaskRun:
        """A command task begins with TASK_STARTING; of an executor's, the executor tells."""
        if not record.executor_id:
            run = CommandRun(record, self._world)
            self._world.sandboxes.set_aside(run.sandbox)
            run.starting()
            return run
        key = tasks.executor_key(record.framework_id, record.executor_id)
        executor = self.executors.get(key)
        if executor is None:
            new = executor_record(record)
            self._world.sandboxes.set_aside(Path(new.sandbox))
            self._world.checkpoints.save_executor(new)
            executor = self._start_executor(new)
        task = ExecutorTask(record, self._world, executor)
        if why := self._refused_identity(task):
            task.tell(life.CouldNotLaunch(message=why))
        elif executor.stopping:
            task.tell(life.CouldNotLaunch(message=f"executor {executor.id} is ending"))
        return task

    def _refused_identity(self, task: TaskRun) -> str:
        """A custom executor runs whatever it likes in one process: whose identity that is, nobody can say."""
        try:
            needed = wish(task.task.told(), self._world.settings.identities) is Wish.NEEDED
        except Refused as error:
            return str(error)
        return f"label {label_names.IDENTITY}: tasks of custom executors have no identity" if needed else ""

    def _port_clash(self, run: TaskRun) -> str:
        wanted = run.task.ports()
        for other in self.runs.values():
            taken = other.task.ports()
            if not other.ended and wanted and not covers(without(wanted, taken), wanted):
                return f"ports {wanted} are taken by task {other.record.task_id}"
        return ""

    def _refuse(self, command: Run, why: str) -> None:
        """A RUN that cannot even be written down."""
        value = command.task.get("task_id")
        task_id = str(value["value"]) if isinstance(value, Mapping) and "value" in value else ""
        framework = command.framework.get("id")
        framework_id = str(framework.get("value", "")) if isinstance(framework, Mapping) else ""
        report = life.Report(state="TASK_ERROR", message=why, reason="REASON_TASK_INVALID", source=life.AGENT)
        self._tell_once(framework_id, task_id, report)

    def _tell_once(self, framework_id: str, task_id: str, report: life.Report) -> None:
        agent_id = self._world.meta.agent_id
        origin = Origin(
            task_id=task_id, agent_id=agent_id, executor_id=task_id, ip=self._world.ip, container_id=task_id
        )
        made = status(origin, report, uuid=uuid.uuid4().bytes, at_s=time.time())
        self._world.outbox.once(Update(framework_id=framework_id, status=made))

    def kill(self, command: Kill) -> None:
        key = tasks.key(command.framework_id, command.task_id)
        if (run := self.runs.get(key)) is not None:
            run.tell(life.KillAsked(at_s=time.time(), grace_s=max(0.0, command.grace_s)))
        elif (known := self.completed.get(key)) is not None:
            self._world.outbox.once(Update(framework_id=known.framework_id, status=known.stream.latest))
        else:
            report = life.Report(
                state="TASK_DROPPED", message="this agent has no such task", reason="REASON_TASK_UNKNOWN",
                source=life.AGENT,
            )  # fmt: skip
            self._tell_once(command.framework_id, command.task_id, report)

    def acknowledge(self, command: Acknowledge) -> None:
        if (run := self.runs.get(tasks.key(command.framework_id, command.task_id))) is not None:
            run.tell(Acknowledged(command.uuid))

    def shut_down_framework(self, command: ShutdownFramework) -> None:
        for run in self.runs.values():
            if run.record.framework_id == command.framework_id:
                run.tell(life.Abandoned(at_s=time.time(), grace_s=run.task.grace_s()))
        for executor in self.executors.values():
            if executor.framework.id.value == command.framework_id:
                self._group.create_task(executor.shut_down())

    def shut_down_executor(self, command: ShutdownExecutor) -> None:
        key = tasks.executor_key(command.framework_id, command.executor_id)
        if (executor := self.executors.get(key)) is not None:
            self._group.create_task(executor.shut_down())

    def message(self, command: ExecutorMessage) -> None:
        """At most once: one for an executor that is away is dropped, as in Mesos."""
        key = tasks.executor_key(command.framework_id, command.executor_id)
        if (executor := self.executors.get(key)) is not None:
            executor.send(executor_api.message(command.data))

    async def end_everything(self, *, limit_s: float) -> bool:
        """Ends all tasks and executors, owing nobody an update; True when none is left."""
        for framework_id in {r.record.framework_id for r in self.runs.values()} | {
            e.framework.id.value for e in self.executors.values()
        }:
            self.shut_down_framework(ShutdownFramework(epoch=0, framework_id=framework_id))
        end_s = asyncio.get_running_loop().time() + limit_s
        while self.runs or self.executors:
            if asyncio.get_running_loop().time() > end_s:
                return False
            await asyncio.sleep(KEEPER_RETRY_S)
        return True

    # --- the whole state ---------------------------------------------------------------------------------------------

    def frameworks(self) -> tuple[Mesos, ...]:
        by_id = {run.record.framework_id: run.record.framework for run in self.runs.values()}
        by_id |= {e.framework.id.value: e.record.framework for e in self.executors.values()}
        return tuple(by_id.values())

    def executor_infos(self) -> tuple[Mesos, ...]:
        return tuple(
            {**e.record.executor, "framework_id": {"value": e.framework.id.value}} for e in self.executors.values()
        )


async def _forgotten(link: KeeperLink, key: str) -> bool:
    """False while it runs."""
    try:
        await link.forget(key)
    except Refused:
        return False
    return True
