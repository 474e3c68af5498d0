"""One command task, from its RUN to the acknowledgement of its last update."""

import asyncio
import time
from collections.abc import Coroutine
from contextlib import suppress

from fairlead_core.agent import metrics
from fairlead_core.agent.adapters import identity_files
from fairlead_core.agent.adapters.accounts import Account
from fairlead_core.agent.adapters.checkpoints import TaskRecord
from fairlead_core.agent.adapters.checks import CHECK_VARIABLE, Surroundings, make_probe
from fairlead_core.agent.decisions import health, identities, life, tasks
from fairlead_core.agent.decisions.identities import Wish
from fairlead_core.agent.identities import Holder, TaskIdentity
from fairlead_core.agent.keeper.protocol import Held, Launch
from fairlead_core.agent.launching import Child
from fairlead_core.agent.telling import TaskRun, Told, log
from fairlead_core.agent.world import World
from fairlead_daemon.errors import Refused


class CommandRun(TaskRun):
    """Its process is the keeper's; its health is checked here."""

    def __init__(self, record: TaskRecord, world: World, *, volatile: bool = False) -> None:
        super().__init__(record, world, volatile=volatile)
        self._child = Child(world, self.key)
        self._launching: asyncio.Task[None] | None = None
        self._spawning = False
        self._spawned = False
        self._checking: asyncio.Task[None] | None = None
        self._keeping: asyncio.Task[None] | None = None
        self._chores: set[asyncio.Task[None]] = set()

    def tell(self, event: Told) -> None:
        self._spawned = self._spawned or isinstance(event, life.Launched)
        super().tell(event)

    def _stop(self) -> None:
        for chore in (self._launching, self._checking, self._keeping):
            if chore is not None:
                chore.cancel()

    def _over(self) -> None:
        self._chore(self._child.forget())
        if self._wishes() is not Wish.NONE:
            self._chore(self._drop_identity())

    def _resume(self) -> None:
        if self.record.life.phase == life.Phase.LAUNCHING:
            self._launching = asyncio.create_task(self._launch())
            if self.record.life.killing is not None:
                self._act(life.CancelLaunch())
        if self.record.life.phase in {life.Phase.LAUNCHING, life.Phase.RUNNING} and self._wishes() is not Wish.NONE:
            self._keeping = asyncio.create_task(self._keep_identity())
        for action in life.resume(self.record.life, now_s=time.time()):
            self._act(action)

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
                self._chore(self._child.end(action.grace_s))
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

    # --- the launch --------------------------------------------------------------------------------------------------

    async def _launch(self) -> None:
        try:
            await self._world.keepers.link()
            if self._spawned:
                return  # an agent before us had it started, and the keeper has told
            launch = await self._prepare()
            self._spawning = True
            held = await self._child.spawn(launch)
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
        if why := tasks.refusal(self.task):
            raise Refused(why)
        wish = identities.wish(self.task.told(), self._world.settings.identities)
        assert self.task.command is not None, "refusal() has looked"
        launch = await self._child.prepare(self.task.command, self.account(), self.sandbox, self.environment())
        if wish is not Wish.NONE:
            await self._identity().first(wish)
        return launch

    def account(self) -> Account:
        command_user = self.task.command.user if self.task.command else ""
        return self._world.accounts.choose(command_user=command_user, framework_user=self.framework.user)

    def environment(self) -> dict[str, str]:
        assert self.task.command is not None, "a command task"
        sandbox, settings = self.record.sandbox, self._world.settings
        own = tasks.environment(
            self.task.command,
            task_id=self.record.task_id,
            sandbox=sandbox,
            home_variables=self._world.home_variables,
        )
        if self._wishes() is Wish.NONE:
            return own
        return own | identities.environment(sandbox, mesh=settings.mesh, mesh_tcp=settings.mesh_tcp)

    # --- its identity ------------------------------------------------------------------------------------------------

    def _wishes(self) -> Wish:
        """NONE for what its launch refuses."""
        with suppress(Refused):
            return identities.wish(self.task.told(), self._world.settings.identities)
        return Wish.NONE

    def _identity(self) -> TaskIdentity:
        """Raises Refused."""
        holder = Holder(
            framework_id=self.record.framework_id,
            task_id=self.record.task_id,
            sandbox=self.sandbox,
            account=self.account(),
        )
        return TaskIdentity(self._world.identities, holder)

    async def _keep_identity(self) -> None:
        """From its launch on. Another agent may have prepared it: what the files say counts."""
        if self._launching is not None:
            await asyncio.wait([self._launching])
        with suppress(Refused):
            await self._identity().keep()

    async def _drop_identity(self) -> None:
        if self._keeping is not None:
            self._keeping.cancel()
        if writers := [task for task in (self._launching, self._keeping) if task is not None]:
            await asyncio.wait(writers)
        await asyncio.to_thread(identity_files.remove, self.sandbox)

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
