"""The agent as its master sees it: registers with the whole state, obeys commands of the current leader only."""

import uuid
from collections.abc import Callable
from dataclasses import dataclass, field

import msgspec

from fairlead_core.agent import metrics
from fairlead_core.agent.adapters.checkpoints import Meta
from fairlead_core.agent.roster import Roster
from fairlead_core.agent.world import World
from fairlead_core.agent_protocol import (
    Acknowledge,
    Command,
    ExecutorMessage,
    Gone,
    Kill,
    Mesos,
    Ping,
    Register,
    Registered,
    Run,
    ShutdownExecutor,
    ShutdownFramework,
)
from fairlead_daemon.errors import Refused
from fairlead_daemon.logs import Log

log = Log("agent")


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """What does not change while the agent runs."""

    hostname: str
    ip: str
    resources: tuple[Mesos, ...]
    attributes: tuple[Mesos, ...]
    zone: str
    region: str
    process_id: str = field(default_factory=lambda: uuid.uuid4().hex)


class Household:
    """`renamed` is called when the master has given us an id, `gone` when it marked us gone."""

    def __init__(
        self, world: World, roster: Roster, card: Card, *, renamed: Callable[[], None], gone: Callable[[], None]
    ) -> None:
        self._world = world
        self._roster = roster
        self._card = card
        self._renamed = renamed
        self._gone = gone

    def register(self) -> Register:
        meta, card = self._world.meta, self._card
        return Register(
            agent_id=meta.agent_id,
            boot_id=meta.boot_id,
            process_id=card.process_id,
            hostname=card.hostname,
            ip=card.ip,
            port=self._world.port,
            resources=card.resources,
            attributes=card.attributes,
            zone=card.zone,
            region=card.region,
            frameworks=self._roster.frameworks(),
            tasks=tuple(run.state() for run in self._roster.runs.values()),
            executors=self._roster.executor_infos(),
            epoch=meta.epoch,
        )

    def registered(self, answer: Registered) -> None:
        """The id is on disk before anything else is done. Raises Refused for a leader older than one we know."""
        if answer.epoch < self._world.meta.epoch:
            metrics.OLD_EPOCHS.inc()
            raise Refused(f"the master leads with epoch {answer.epoch}, we know {self._world.meta.epoch}")
        before = self._world.meta
        self._remember(msgspec.structs.replace(before, agent_id=answer.agent_id, epoch=answer.epoch))
        if before.agent_id != answer.agent_id:
            log.info("named", agent=answer.agent_id, before=before.agent_id)
        self._renamed()

    def _remember(self, meta: Meta) -> None:
        if meta != self._world.meta:
            self._world.checkpoints.save_meta(meta)
            self._world.meta = meta

    def obey(self, command: Command) -> None:
        epoch = getattr(command, "epoch", 0)
        if epoch < self._world.meta.epoch:
            metrics.OLD_EPOCHS.inc()
            log.warning("refused a command of an older leader", command=type(command).__name__, epoch=epoch)
            return
        if epoch > self._world.meta.epoch:
            self._remember(msgspec.structs.replace(self._world.meta, epoch=epoch))
        self._act(command)

    def _act(self, command: Command) -> None:
        match command:
            case Run():
                self._roster.run(command)
            case Kill():
                self._roster.kill(command)
            case Acknowledge():
                self._roster.acknowledge(command)
            case ShutdownFramework():
                self._roster.shut_down_framework(command)
            case Gone():
                self.marked_gone()
            case ExecutorMessage():
                self._roster.message(command)
            case ShutdownExecutor():
                self._roster.shut_down_executor(command)
            case Ping() | Registered():
                pass

    def marked_gone(self) -> None:
        log.warning("marked gone: ending all tasks and this agent")
        self._gone()
