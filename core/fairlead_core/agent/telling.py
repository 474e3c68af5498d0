"""What every task run does: takes events in order, writes down what they mean, then acts and tells the master."""

import asyncio
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from fairlead_core.agent import metrics
from fairlead_core.agent.adapters.checkpoints import TaskRecord
from fairlead_core.agent.decisions import life, tasks, updates, users
from fairlead_core.agent.decisions.statuses import Origin, status
from fairlead_core.agent.world import World
from fairlead_core.agent_protocol import Mesos, TaskState, Update
from fairlead_daemon.logs import Log

log = Log("agent.task")
DISK_RETRY_S = 1.0


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """By the framework, through the master."""

    uuid: str


@dataclass(frozen=True, slots=True)
class Updated:
    """A TaskStatus as a custom executor sent it."""

    status: Mesos


Told = life.Event | Acknowledged | Updated


class TaskRun:
    """Owns one TaskRecord: every event is decided, written down, then acted on. Subclasses know how tasks run."""

    def __init__(self, record: TaskRecord, world: World, *, volatile: bool = False) -> None:
        self.record = record
        self.task = tasks.read(tasks.Task, record.task, place="task")
        self.framework = tasks.read(tasks.Framework, record.framework, place="framework")
        self.key = tasks.key(record.framework_id, record.task_id)
        self._world = world
        self._inbox: asyncio.Queue[Told] = asyncio.Queue()
        self._unsaved = volatile
        self._volatile = volatile
        """The disk refused it at the start: its refusal is reported from memory."""

    def starting(self) -> None:
        """A new task begins with TASK_STARTING, and with what its framework should know about the user it runs as."""
        command_user = self.task.command.user if self.task.command else ""
        warning = users.warning(
            self._world.accounts.agent, command_user=command_user, framework_user=self.framework.user
        )
        if warning:
            log.warning("another user", task=self.record.task_id, why=warning)
        self.record = self._reported(self.record, life.Report(state="TASK_STARTING", message=warning))

    # --- what others may ask -----------------------------------------------------------------------------------------

    def tell(self, event: Told) -> None:
        self._inbox.put_nowait(event)

    @property
    def sandbox(self) -> Path:
        return Path(self.record.sandbox)

    @property
    def saved(self) -> bool:
        """What stands in the record stands on disk."""
        return not self._unsaved or self._volatile

    @property
    def ended(self) -> bool:
        return self.record.life.phase == life.Phase.ENDED

    def state(self) -> TaskState:
        record = self.record
        return TaskState(
            framework_id=record.framework_id,
            task=record.task,
            status=record.stream.latest or self._staging(),
            acknowledged=not record.stream.pending,
            executor_id=record.executor_id,
        )

    def _staging(self) -> Mesos:
        """Of a task that nobody has told anything of yet."""
        ids = {"task_id": self.record.task["task_id"], "agent_id": {"value": self._world.meta.agent_id}}
        return {**ids, "state": "TASK_STAGING", "source": "SOURCE_AGENT", "timestamp": time.time()}

    # --- the loop ----------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Until its last update is acknowledged (or owed to nobody). What it started in the agent ends with it."""
        try:
            while not self._inbox.empty():
                await self._handle(self._inbox.get_nowait())
            self._offer()
            self._resume()
            if self.ended:
                self._over()
            while not updates.settled(self.record.stream):
                event = await self._next()
                if event is not None:
                    await self._handle(event)
                elif await self._save(self.record):
                    self._offer()
        finally:
            self._stop()
        self._world.outbox.settle(self.key)
        await asyncio.to_thread(self._world.checkpoints.complete, self.record)

    async def _next(self) -> Told | None:
        """None when the disk is to be tried again."""
        if not self._unsaved or self._volatile:
            return await self._inbox.get()
        try:
            async with asyncio.timeout(DISK_RETRY_S):
                return await self._inbox.get()
        except TimeoutError:
            return None

    def _resume(self) -> None:
        """Takes the task up where its record says it is; also the beginning of a new one."""
        raise NotImplementedError

    def _act(self, action: life.Action) -> None:
        raise NotImplementedError

    def _over(self) -> None:
        """The task has ended, and that is on disk as far as it can be."""

    def _stop(self) -> None:
        """The run ends: nothing of it may go on in the agent."""

    async def _handle(self, event: Told) -> None:
        if isinstance(event, Acknowledged):
            await self._acknowledged(event)
            return
        before = self.record
        record, actions = self._decide(before, event)
        if record == before and not actions:
            return
        saved = await self._save(record)
        for action in actions:
            self._act(action)
        if saved:
            self._offer()
        if self.ended:
            self._world.sandboxes.mark_ended(self.sandbox)
            self._over()

    def _decide(self, record: TaskRecord, event: Told) -> tuple[TaskRecord, Sequence[life.Action]]:
        assert not isinstance(event, Acknowledged | Updated), "not an event of a command task's life"
        after, actions = life.step(record.life, event)
        record = msgspec.structs.replace(record, life=after)
        for action in actions:
            if isinstance(action, life.Report):
                record = self._reported(record, action)
        return record, actions

    def _reported(self, record: TaskRecord, report: life.Report) -> TaskRecord:
        made = status(self._origin(), report, uuid=uuid.uuid4().bytes, at_s=time.time())
        metrics.UPDATES.labels(report.state).inc()
        log.info("update", task=record.task_id, state=report.state, why=report.message, healthy=report.healthy)
        stream = updates.add(record.stream, made)
        return msgspec.structs.replace(record, stream=stream if record.life.owed else updates.drop(stream))

    async def _acknowledged(self, event: Acknowledged) -> None:
        stream = updates.acknowledge(self.record.stream, event.uuid)
        if stream is not self.record.stream:
            self._world.outbox.settle(self.key)
            if await self._save(msgspec.structs.replace(self.record, stream=stream)):
                self._offer()

    def _offer(self) -> None:
        head = updates.head(self.record.stream)
        if head is not None:
            latest = str(self.record.stream.latest["state"])
            update = Update(framework_id=self.record.framework_id, status=head, latest_state=latest)
            self._world.outbox.offer(self.key, update)

    async def _save(self, record: TaskRecord) -> bool:
        """True when it is on disk, and may be told. When not, what must be done is done all the same."""
        self.record = record
        if self._volatile:
            return True
        try:
            await asyncio.to_thread(self._world.checkpoints.save, record)
        except OSError as error:
            metrics.CHECKPOINT_FAILURES.inc()
            self._unsaved = True
            self._world.health.wait("disk", f"cannot write checkpoints: {error.strerror}")
            log.warning("checkpoint not written, updates are held back", task=record.task_id, why=error.strerror)
            return False
        if self._unsaved:
            self._unsaved = False
            self._world.health.ready("disk")
        return True

    def _origin(self) -> Origin:
        return Origin(
            task_id=self.record.task_id,
            agent_id=self._world.meta.agent_id,
            executor_id=self.record.executor_id or self.record.task_id,
            ip=self._world.ip,
            container_id=self.key,
        )
