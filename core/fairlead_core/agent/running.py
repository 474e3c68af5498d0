"""One command task, from its RUN to the acknowledgement of its last update. One asyncio task owns each."""

import asyncio
import time
import uuid
from collections.abc import Coroutine
from dataclasses import dataclass
from pathlib import Path

import msgspec

from fairlead_core.agent import metrics
from fairlead_core.agent.adapters.accounts import Account, unreachable
from fairlead_core.agent.adapters.checkpoints import TaskRecord
from fairlead_core.agent.adapters.checks import CHECK_VARIABLE, Surroundings, make_probe
from fairlead_core.agent.adapters.sandboxes import fetch
from fairlead_core.agent.decisions import health, life, tasks, updates
from fairlead_core.agent.decisions.statuses import Origin, status
from fairlead_core.agent.keeper.protocol import Held, Launch
from fairlead_core.agent.world import World
from fairlead_core.agent_protocol import TaskState, Update
from fairlead_daemon.errors import Refused, Unavailable
from fairlead_daemon.logs import Log

log = Log("agent.task")
DISK_RETRY_S = 1.0
KEEPER_RETRY_S = 0.05


@dataclass(frozen=True, slots=True)
class Acknowledged:
    uuid: str


Told = life.Event | Acknowledged


class CommandRun:
    """Owns one TaskRecord: every event is decided, written down, then acted on."""

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
        self._launching: asyncio.Task[None] | None = None
        self._spawning = False
        self._spawned = False
        self._checking: asyncio.Task[None] | None = None
        self._chores: set[asyncio.Task[None]] = set()

    def starting(self) -> None:
        """A new task begins with TASK_STARTING."""
        self.record = self._reported(self.record, life.Report(state="TASK_STARTING"))

    # --- what others may ask -----------------------------------------------------------------------------------------

    def tell(self, event: Told) -> None:
        self._spawned = self._spawned or isinstance(event, life.Launched)
        self._inbox.put_nowait(event)

    @property
    def sandbox(self) -> Path:
        return Path(self.record.sandbox)

    @property
    def ended(self) -> bool:
        return self.record.life.phase == life.Phase.ENDED

    def state(self) -> TaskState:
        record = self.record
        return TaskState(
            framework_id=record.framework_id,
            task=record.task,
            status=record.stream.latest,
            acknowledged=not record.stream.pending,
            executor_id=record.executor_id,
        )

    # --- the loop ----------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Until its last update is acknowledged (or owed to nobody). What it started in the agent ends with it."""
        try:
            while not self._inbox.empty():
                await self._handle(self._inbox.get_nowait())
            self._resume()
            while not updates.settled(self.record.stream):
                event = await self._next()
                if event is not None:
                    await self._handle(event)
                elif await self._save(self.record):
                    self._offer()
        finally:
            for chore in (self._launching, self._checking):
                if chore is not None:
                    chore.cancel()
        self._world.outbox.settle(self.key)
        self._world.checkpoints.complete(self.record)

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
        """Also the beginning: a new task is one whose launch has not been done yet."""
        self._offer()
        if self.record.life.phase == life.Phase.LAUNCHING:
            self._launching = asyncio.create_task(self._launch())
            if self.record.life.killing is not None:
                self._act(life.CancelLaunch())
        for action in life.resume(self.record.life, now_s=time.time()):
            self._act(action)

    async def _handle(self, event: Told) -> None:
        before = self.record
        if isinstance(event, Acknowledged):
            await self._acknowledged(event)
            return
        after, actions = life.step(before.life, event)
        if after == before.life and not actions:
            return
        record = msgspec.structs.replace(before, life=after)
        for action in actions:
            if isinstance(action, life.Report):
                record = self._reported(record, action)
        saved = await self._save(record)
        for action in actions:
            self._act(action)
        if saved:
            self._offer()
        if self.ended:
            self._world.sandboxes.mark_ended(self.sandbox)
            self._chore(self._forget())

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

    # --- actions -----------------------------------------------------------------------------------------------------

    def _act(self, action: life.Action) -> None:
        match action:
            case life.StartChecks():
                if self.task.health_check is not None and self._checking is None:
                    self._checking = asyncio.create_task(self._check(self.task.health_check))
            case life.StopChecks():
                if self._checking is not None:
                    self._checking.cancel()
                    self._checking = None
            case life.CancelLaunch():
                self._cancel_launch()
            case life.EndProcess():
                self._chore(self._end(action.grace_s))
            case life.Report():
                pass  # it stands in the record already

    def _cancel_launch(self) -> None:
        """Once the keeper was asked, it is the started process that is ended."""
        if self._launching is not None and not (self._spawning or self._spawned or self._launching.done()):
            self._launching.cancel()
            self.tell(life.CouldNotLaunch(message="killed"))

    def _chore(self, body: Coroutine[None, None, None]) -> None:
        """Something for the keeper, which may have to wait for one; it may outlive this run."""
        chore = asyncio.create_task(body)
        self._chores.add(chore)
        chore.add_done_callback(self._chores.discard)

    async def _end(self, grace_s: float) -> None:
        while not self.ended:
            link = await self._world.keepers.link()
            try:
                await link.end(self.key, grace_s=grace_s)
            except Unavailable:
                await asyncio.sleep(KEEPER_RETRY_S)
            else:
                return

    async def _forget(self) -> None:
        while True:
            link = await self._world.keepers.link()
            try:
                await link.forget(self.key)
            except Unavailable:
                await asyncio.sleep(KEEPER_RETRY_S)
            except Refused as error:
                log.warning("the keeper keeps it", task=self.record.task_id, why=str(error))
                return
            else:
                return

    # --- the launch --------------------------------------------------------------------------------------------------

    async def _launch(self) -> None:
        try:
            await self._world.keepers.link()
            if self._spawned:
                return  # an agent before us had it started, and the keeper has told
            launch = await self._prepare()
            self._spawning = True
            held = await self._spawn(launch)
        except Refused as error:
            metrics.LAUNCH_FAILURES.inc()
            self.tell(life.CouldNotLaunch(message=str(error)))
        else:
            self.tell(life.Launched(at_s=held.started_s))
            if held.ended_s:
                self.tell(exited(held))
        finally:
            self._spawning = False

    async def _prepare(self) -> Launch:
        """All that can be refused, before anything runs."""
        command = self.task.command
        if why := tasks.refusal(self.task):
            raise Refused(why)
        assert command is not None, "refusal() has looked"
        account = self.account()
        sandbox = self.sandbox
        if barrier := unreachable(sandbox.parent.parent, account):
            raise Refused(f"sandbox: {barrier}")
        self._world.sandboxes.make(sandbox, account)
        for uri in command.uris:
            await fetch(uri, sandbox, account)
        return Launch(
            key=self.key,
            argv=tasks.argv(command),
            env=self.environment(),
            folder=str(sandbox),
            stdout=str(sandbox / "stdout"),
            stderr=str(sandbox / "stderr"),
            uid=account.uid,
            gid=account.gid,
            resolv_conf=await self._world.resolver.file(),
        )

    def account(self) -> Account:
        command_user = self.task.command.user if self.task.command else ""
        return self._world.accounts.choose(command_user=command_user, framework_user=self.framework.user)

    def environment(self) -> dict[str, str]:
        assert self.task.command is not None, "a command task"
        return tasks.environment(
            self.task.command,
            task_id=self.record.task_id,
            sandbox=self.record.sandbox,
            home_variables=self._world.home_variables,
        )

    async def _spawn(self, launch: Launch) -> Held:
        """Asked again of the next keeper when this one dies: a key is spawned once."""
        while True:
            link = await self._world.keepers.link()
            try:
                return await link.spawn(launch)
            except Unavailable as error:
                log.warning("spawn not answered, asking again", task=self.record.task_id, why=str(error))
                await asyncio.sleep(KEEPER_RETRY_S)

    # --- health ------------------------------------------------------------------------------------------------------

    async def _check(self, check: tasks.HealthCheck) -> None:
        """Until it is unhealthy for good."""
        loop = asyncio.get_running_loop()
        began_s = loop.time() - max(0.0, time.time() - self.record.life.started_s)
        standing = health.Standing(healthy=self.record.life.healthy)
        try:
            environment = {**self.environment(), CHECK_VARIABLE: f"{self._world.meta.instance}/{self.key}"}
            around = Surroundings(
                ip=self._world.ip, account=self.account(), sandbox=self.sandbox, environment=environment
            )
            probe = make_probe(check, around, self._world.http)
        except Refused as error:
            log.warning("cannot check", task=self.record.task_id, why=str(error))
            return
        while standing.healthy is not False:
            await asyncio.sleep(health.pause_s(standing, check, since_start_s=loop.time() - began_s))
            trouble = await probe()
            metrics.CHECKS.labels("failed" if trouble else "passed").inc()
            after = health.judge(standing, check, ok=not trouble, since_start_s=loop.time() - began_s)
            if after.healthy is not None and after.healthy != standing.healthy:
                words = f"health check failed {after.failures} times: {trouble}" if trouble else ""
                self.tell(
                    life.Checked(healthy=after.healthy, message=words, at_s=time.time(), grace_s=self.task.grace_s())
                )
            standing = after


def exited(held: Held) -> life.Exited:
    return life.Exited(status=held.status, lost=held.lost)
