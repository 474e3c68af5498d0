"""Custom executors: a process that runs a framework's tasks itself and speaks Mesos' executor API with us.

An executor outlives the agent as any task does. Its tasks' updates go the same way as those of commands: written down
before they are told, and only then acknowledged to the executor.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from fairlead_core.agent.adapters.accounts import Account
from fairlead_core.agent.adapters.checkpoints import ExecutorRecord, TaskRecord
from fairlead_core.agent.adapters.machine import our_hostname
from fairlead_core.agent.decisions import executor_api, life, tasks, updates
from fairlead_core.agent.decisions.statuses import container_status
from fairlead_core.agent.keeper.protocol import Held
from fairlead_core.agent.launching import Child
from fairlead_core.agent.telling import TaskRun, Told, Updated, log
from fairlead_core.agent.world import World
from fairlead_core.agent_protocol import ExecutorEnded, Mesos
from fairlead_daemon.errors import Refused

REGISTRATION_LIMIT_S = 60.0
"""Mesos' executor_registration_timeout, also for coming back after a restart of the agent."""


def executor_record(record: TaskRecord) -> ExecutorRecord:
    """The executor that a task names."""
    return ExecutorRecord(framework=record.framework, executor=dict(record.task["executor"]), sandbox=record.sandbox)


class ExecutorTask(TaskRun):
    """A task that an executor runs; `executor` delivers what it is to know."""

    def __init__(self, record: TaskRecord, world: World, executor: "ExecutorRun", *, volatile: bool = False) -> None:
        super().__init__(record, world, volatile=volatile)
        self._executor = executor

    def join(self) -> None:
        self._executor.tasks[self.record.task_id] = self

    def leave(self) -> None:
        self._executor.tasks.pop(self.record.task_id, None)

    def _resume(self) -> None:
        """Delivered at once, or when the executor subscribes."""
        if not self.ended:
            self._executor.deliver(self)

    def _act(self, action: life.Action) -> None:
        match action:
            case life.CancelLaunch():
                self.tell(life.CouldNotLaunch(message="killed"))
            case life.EndProcess():
                self._executor.send(executor_api.kill(self.record.task_id, grace_s=action.grace_s))
            case life.StartChecks():
                self._executor.send(executor_api.launch(self.record.task))
            case _:
                pass  # its health is the executor's own business

    @property
    def unheard(self) -> bool:
        """The executor has not told anything of it yet."""
        return not self.record.stream.latest

    def _decide(self, record: TaskRecord, event: Told) -> tuple[TaskRecord, Sequence[life.Action]]:
        if isinstance(event, life.Launched):
            return self._launched(record, event)
        if not isinstance(event, Updated):
            return super()._decide(record, event)
        known = (*record.stream.pending, record.stream.latest)
        if record.life.phase == life.Phase.ENDED or any(s.get("uuid") == event.status["uuid"] for s in known):
            return record, ()
        return self._updated(record, self._completed(event.status)), ()

    def _launched(self, record: TaskRecord, event: life.Launched) -> tuple[TaskRecord, Sequence[life.Action]]:
        """That it is to be delivered is on disk before LAUNCH goes out; what the task does, the executor tells."""
        if record.life.phase != life.Phase.LAUNCHING or record.life.killing is not None:
            return record, ()
        running = msgspec.structs.replace(record.life, phase=life.Phase.RUNNING, started_s=event.at_s)
        return msgspec.structs.replace(record, life=running), (life.StartChecks(),)

    def _updated(self, record: TaskRecord, status: Mesos) -> TaskRecord:
        phase = life.Phase.ENDED if updates.terminal(status) else life.Phase.RUNNING
        after = msgspec.structs.replace(record.life, phase=phase, healthy=status.get("healthy"))
        log.info("update", task=record.task_id, state=status["state"], executor=record.executor_id)
        stream = updates.add(record.stream, status)
        return msgspec.structs.replace(record, life=after, stream=stream if after.owed else updates.drop(stream))

    def _completed(self, status: Mesos) -> Mesos:
        """The agent adds where it is; executors leave that out."""
        origin = self._origin()
        return {
            "timestamp": time.time(),
            "source": "SOURCE_EXECUTOR",
            **status,
            "agent_id": {"value": origin.agent_id},
            "executor_id": {"value": origin.executor_id},
            "container_status": {**container_status(origin), **(status.get("container_status") or {})},
        }

    async def _handle(self, event: Told) -> None:
        """An update is acknowledged to the executor once it is on disk, also one that came twice."""
        await super()._handle(event)
        if isinstance(event, Updated) and self.saved:
            self._executor.send(executor_api.acknowledged(self.record.task_id, str(event.status["uuid"])))


class ExecutorRun:
    """One executor's process and its stream. Nothing is queued for it while it is away: at its subscription it gets
    every task it does not have, and every kill it may have missed.
    """

    def __init__(self, record: ExecutorRecord, world: World, *, ended: Callable[["ExecutorRun"], None]) -> None:
        self.record = record
        self.info = tasks.read(tasks.Executor, record.executor, place="executor")
        self.framework = tasks.read(tasks.Framework, record.framework, place="framework")
        self.key = tasks.executor_key(self.framework.id.value, self.info.executor_id.value)
        self.tasks: dict[str, ExecutorTask] = {}
        self.stopping = False
        self._world = world
        self._child = Child(world, self.key)
        self._ended = ended
        self._stream: asyncio.Queue[Mesos] | None = None
        self._subscribed = asyncio.Event()
        self._over: asyncio.Future[life.Exited] = asyncio.get_running_loop().create_future()

    @property
    def id(self) -> str:
        return self.info.executor_id.value

    # --- its process -------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """From its start (or its adoption) to its end, which its tasks share."""
        guard = asyncio.create_task(self._start())
        try:
            exited = await self._over
        finally:
            guard.cancel()
        words = exited.lost or life.exit_words(exited.status).replace("Command", "Executor")
        for task in list(self.tasks.values()):
            task.tell(life.Exited(lost=words))
        report = ExecutorEnded(
            framework_id=self.framework.id.value, executor_id=self.id, status=exited.status if not exited.lost else 9
        )
        self._world.outbox.once(report)
        self._world.checkpoints.drop_executor(self.record)
        self.unsubscribe(self._stream)
        self._ended(self)
        await self._child.forget()

    async def _start(self) -> None:
        try:
            await self._world.keepers.link()
            if not self.record.started:
                await self._launch()
            async with asyncio.timeout(REGISTRATION_LIMIT_S):
                await self._subscribed.wait()
        except Refused as error:
            self._finish(life.Exited(lost=str(error)))
        except TimeoutError:
            log.warning("executor did not subscribe", executor=self.id, within_s=REGISTRATION_LIMIT_S)
            await self._child.end(0.0)

    async def _launch(self) -> None:
        command = self.info.command
        if command is None or not tasks.argv(command):
            raise Refused("executor.command: missing; only custom executors are supported by this agent")
        sandbox = Path(self.record.sandbox)
        launch = await self._child.prepare(command, self.account(), sandbox, self._environment(command))
        held = await self._child.spawn(launch)
        self.record = msgspec.structs.replace(self.record, started=True)
        await asyncio.to_thread(self._world.checkpoints.save_executor, self.record)
        if held.ended_s:
            self.exited(held)

    def account(self) -> Account:
        user = self.info.command.user if self.info.command else ""
        return self._world.accounts.choose(command_user=user, framework_user=self.framework.user)

    def _environment(self, command: tasks.Command) -> dict[str, str]:
        ids = (self.framework.id.value, self.id, self._world.meta.agent_id)
        own = tasks.environment(
            command, task_id=self.id, sandbox=self.record.sandbox, home_variables=self._world.home_variables
        )
        del own["MESOS_TASK_ID"]
        endpoint = f"{self._world.ip}:{self._world.port}"
        return own | executor_api.environment(
            ids, endpoint=endpoint, sandbox=self.record.sandbox, checkpoint=self.framework.checkpoint
        )

    def exited(self, held: Held) -> None:
        self._finish(life.Exited(status=held.status, lost=held.lost))

    def lost(self, why: str) -> None:
        self._finish(life.Exited(lost=why))

    def _finish(self, exited: life.Exited) -> None:
        if not self._over.done():
            self._over.set_result(exited)

    async def shut_down(self) -> None:
        """SHUTDOWN, then the end of its process when the grace is over."""
        self.stopping = True
        if self._stream is not None:
            self.send(executor_api.SHUTDOWN)
            await asyncio.wait([self._over], timeout=executor_api.SHUTDOWN_GRACE_S)
        if not self._over.done():
            await self._child.end(life.DEFAULT_GRACE_S)

    # --- its stream --------------------------------------------------------------------------------------------------

    def subscribe(self, call: executor_api.Subscribe) -> asyncio.Queue[Mesos]:
        """Events for the stream that begins; an earlier one of the same executor gets no more."""
        self._stream = asyncio.Queue()
        self._subscribed.set()
        agent = {
            "id": {"value": self._world.meta.agent_id},
            "hostname": our_hostname(self._world.settings),
            "port": self._world.port,
        }
        self.send(executor_api.subscribed(self.record.executor, self.record.framework, agent, self.key))
        for status in executor_api.pending_statuses(call):
            self.updated(status)
        has = {str(t.get("task_id", {}).get("value", "")) for t in call.unacknowledged_tasks}
        for task in self.tasks.values():
            if task.record.task_id not in has:
                self.deliver(task)
        return self._stream

    @property
    def subscribed(self) -> bool:
        return self._stream is not None

    def streams_to(self, stream: "asyncio.Queue[Mesos]") -> bool:
        """False once a newer stream has taken the place, or the executor is over and told everything."""
        return stream is self._stream or not stream.empty()

    def unsubscribe(self, stream: "asyncio.Queue[Mesos] | None") -> None:
        if stream is self._stream:
            self._stream = None

    def send(self, event: Mesos) -> None:
        if self._stream is not None:
            self._stream.put_nowait(event)

    def deliver(self, task: ExecutorTask) -> None:
        """LAUNCH for one it has not told anything of, KILL again for one that is being killed."""
        if self._stream is None or task.ended:
            return
        killing = task.record.life.killing
        if killing is not None:
            self.send(executor_api.kill(task.record.task_id, grace_s=killing.grace_s))
        elif task.record.life.phase == life.Phase.LAUNCHING:
            task.tell(life.Launched(at_s=time.time()))
        elif task.unheard:
            self.send(executor_api.launch(task.record.task))

    def updated(self, status: Mesos) -> None:
        """One of a task that is over is acknowledged at once: the executor need not send it again."""
        task = self.tasks.get(str(status["task_id"]["value"]))
        if task is None:
            self.send(executor_api.acknowledged(str(status["task_id"]["value"]), str(status["uuid"])))
        else:
            task.tell(Updated(status))
