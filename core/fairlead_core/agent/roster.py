"""All tasks of the agent: commands of the master in, events of the keeper in, the whole state out."""

import asyncio
import time
import uuid
from collections.abc import Mapping

from fairlead_core.agent import metrics
from fairlead_core.agent.adapters.checkpoints import TaskRecord
from fairlead_core.agent.adapters.keeper_link import KeeperLink
from fairlead_core.agent.decisions import life, tasks
from fairlead_core.agent.decisions.statuses import Origin, status
from fairlead_core.agent.keeper.protocol import Held
from fairlead_core.agent.launching import KEEPER_RETRY_S
from fairlead_core.agent.running import CommandRun, exited
from fairlead_core.agent.telling import Acknowledged
from fairlead_core.agent.world import World
from fairlead_core.agent_protocol import Acknowledge, Kill, Mesos, Run, ShutdownFramework, Update
from fairlead_core.resources import covers, without
from fairlead_daemon.errors import FairleadError, Refused, Unavailable
from fairlead_daemon.logs import Log

log = Log("agent")
COMPLETED_KEPT = 1000


class Roster:
    """Owns the runs. A bug in one ends the daemon, and no task."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._group = asyncio.TaskGroup()
        self.runs: dict[str, CommandRun] = {}
        self.completed: dict[str, TaskRecord] = {}
        self._empty = asyncio.Event()
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
        for record in self._world.checkpoints.tasks():
            try:
                run = CommandRun(record, self._world)
            except Refused as error:
                log.warning("checkpoint not understood", task=record.task_id, why=str(error))
                continue
            if rebooted and not run.ended:
                self._rebooted.add(run.key)
                if record.life.phase == life.Phase.LAUNCHING:
                    self._lose(run)
            self._start(run)
        if self.runs:
            log.info("recovered", tasks=len(self.runs), rebooted=len(self._rebooted))

    def _start(self, run: CommandRun) -> None:
        self.runs[run.key] = run
        self._group.create_task(self._until_settled(run))
        self._count()

    async def _until_settled(self, run: CommandRun) -> None:
        await run.run()
        del self.runs[run.key]
        self.completed[run.key] = run.record
        while len(self.completed) > COMPLETED_KEPT:
            del self.completed[next(iter(self.completed))]
        self._count()

    def _count(self) -> None:
        if self.runs:
            self._empty.clear()
        else:
            self._empty.set()
        metrics.TASKS.set(sum(not run.ended for run in self.runs.values()))

    # --- the keeper --------------------------------------------------------------------------------------------------

    def adopt(self, held: Mapping[str, Held]) -> None:
        """A keeper's whole list, at its beginning and after each reconnection."""
        for key, run in self.runs.items():
            if key in held:
                self._compare(run, held[key])
            elif run.record.life.phase == life.Phase.RUNNING:
                self._missing(run)
        for key in held.keys() - self.runs.keys():
            self._group.create_task(self._end_stranger(key))

    def _compare(self, run: CommandRun, held: Held) -> None:
        run.tell(life.Launched(at_s=held.started_s))
        if not held.ended_s:
            return
        if held.lost and run.key in self._rebooted:
            self._lose(run)
        else:
            run.tell(exited(held))

    def _missing(self, run: CommandRun) -> None:
        if run.key in self._rebooted:
            self._lose(run)
        else:
            run.tell(life.Exited(lost="the keeper has no record of it"))

    def _lose(self, run: CommandRun) -> None:
        run.tell(life.MachineRestarted(state="TASK_GONE" if run.framework.can("PARTITION_AWARE") else "TASK_LOST"))

    def ended(self, held: Held) -> None:
        if (run := self.runs.get(held.key)) is not None:
            run.tell(exited(held))
        else:
            self._group.create_task(self._end_stranger(held.key))

    async def _end_stranger(self, key: str) -> None:
        """A task nobody here knows: it was settled, or its checkpoint is lost. It must not run on unseen."""
        while key not in self.runs:
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
        if (known := self.completed.get(key)) is not None:
            self._world.outbox.once(Update(framework_id=known.framework_id, status=known.stream.latest))
        elif key not in self.runs:
            self._begin(CommandRun(record, self._world))

    def _record(self, command: Run) -> TaskRecord:
        task = tasks.read(tasks.Task, command.task, place="task")
        framework = tasks.read(tasks.Framework, command.framework, place="framework")
        for name, value in (("task", task.task_id.value), ("framework", framework.id.value)):
            if why := tasks.bad_id(value):
                raise Refused(f"{name} id {value!r}: {why}")
        sandbox = self._world.sandboxes.path(framework.id.value, task.task_id.value)
        return TaskRecord(framework=dict(command.framework), task=dict(command.task), sandbox=str(sandbox))

    def _begin(self, run: CommandRun) -> None:
        """The task is on disk before anything of it runs; a disk that refuses it refuses the task."""
        run.starting()
        try:
            self._world.sandboxes.set_aside(run.sandbox)
            if why := self._port_clash(run):
                run.tell(life.CouldNotLaunch(message=why))
            self._world.checkpoints.save(run.record)
        except OSError as error:
            metrics.CHECKPOINT_FAILURES.inc()
            why = f"the agent cannot write its checkpoint: {error.strerror}"
            log.warning("task refused", task=run.record.task_id, why=why)
            run = CommandRun(run.record, self._world, volatile=True)
            run.tell(life.CouldNotLaunch(message=why))
        self._start(run)

    def _port_clash(self, run: CommandRun) -> str:
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

    async def end_everything(self, *, limit_s: float) -> bool:
        """Ends all tasks, owing nobody an update; True when none is left."""
        self._count()
        for run in self.runs.values():
            run.tell(life.Abandoned(at_s=time.time(), grace_s=run.task.grace_s()))
        try:
            async with asyncio.timeout(limit_s):
                await self._empty.wait()
        except TimeoutError:
            return False
        return True

    # --- the whole state ---------------------------------------------------------------------------------------------

    def frameworks(self) -> tuple[Mesos, ...]:
        by_id = {run.record.framework_id: run.record.framework for run in self.runs.values()}
        return tuple(by_id.values())


async def _forgotten(link: KeeperLink, key: str) -> bool:
    """False while it runs."""
    try:
        await link.forget(key)
    except Refused:
        return False
    return True
