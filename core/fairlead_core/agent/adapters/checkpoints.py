"""What the agent must not forget, on disk before it acts: who it is, and one record a task."""

import hashlib
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from fairlead_core import history
from fairlead_core.agent.decisions.life import Life
from fairlead_core.agent.decisions.updates import Stream
from fairlead_daemon.errors import BadSettings
from fairlead_daemon.files import replace_file
from fairlead_daemon.logs import Log

COMPLETED_KEPT = 1000
NAME_MOST = 255
R = TypeVar("R")
log = Log("agent.checkpoints")


class Meta(msgspec.Struct, frozen=True, kw_only=True):
    """`instance` marks this data directory's processes; `epoch` is the highest leader's number seen."""

    instance: str
    boot_id: str
    agent_id: str = ""
    epoch: int = 0


class TaskRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A task whole: as given, where it runs, how far its life and its updates have come."""

    framework: dict[str, Any]
    task: dict[str, Any]
    sandbox: str = ""
    executor_id: str = ""
    """Of a custom executor; "" for a command task."""
    life: Life = Life()
    stream: Stream = Stream()

    @property
    def framework_id(self) -> str:
        return str(self.framework["id"]["value"])

    @property
    def task_id(self) -> str:
        return str(self.task["task_id"]["value"])


def shortened(record: TaskRecord) -> TaskRecord:
    """What is kept of a task that is over: a few kilobytes."""
    framework = record.framework
    name = str(framework.get("name") or "")[:NAME_MOST]
    latest = history.brief_status(record.stream.latest)
    return msgspec.structs.replace(
        record,
        framework={"id": framework["id"], "name": name},
        task=history.brief_task(record.task),
        life=msgspec.structs.replace(record.life, trouble=record.life.trouble[: history.MESSAGE_MOST]),
        stream=msgspec.structs.replace(record.stream, latest=latest),
    )


class ExecutorRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A custom executor. `started`: the keeper has been asked, and has answered."""

    framework: dict[str, Any]
    executor: dict[str, Any]
    sandbox: str
    started: bool = False

    @property
    def name(self) -> str:
        return f"{self.framework['id']['value']}//{self.executor['executor_id']['value']}"


class Checkpoints:
    """Every save is atomic and durable; OSError (a full disk) is the caller's to handle."""

    def __init__(self, folder: Path) -> None:
        self._meta = folder / "meta.json"
        self._tasks = folder / "tasks"
        self._completed = folder / "completed"
        self._executors = folder / "executors"

    def prepare(self) -> None:
        for part in (self._tasks, self._completed, self._executors):
            part.mkdir(parents=True, exist_ok=True)
        self._tasks.parent.chmod(0o700)

    def load_meta(self) -> Meta | None:
        """Raises BadSettings when it is there and cannot be read: guessing would lose tasks."""
        try:
            return msgspec.json.decode(self._meta.read_bytes(), type=Meta)
        except FileNotFoundError:
            return None
        except (OSError, msgspec.DecodeError) as error:
            raise BadSettings(f"data_dir: {self._meta} cannot be read: {error}") from error

    def save_meta(self, meta: Meta) -> None:
        replace_file(self._meta, msgspec.json.encode(meta), mode=0o600)

    def _file(self, framework_id: str, task_id: str) -> Path:
        return self._tasks / f"{_digest(f'{framework_id}/{task_id}')}.json"

    def save(self, record: TaskRecord) -> None:
        file = self._file(record.framework_id, record.task_id)
        replace_file(file, msgspec.json.encode(record), mode=0o600)

    def complete(self, record: TaskRecord) -> None:
        """Its last update was acknowledged: it is history now, and short. If that fails, the next start finds it
        settled.
        """
        file = self._file(record.framework_id, record.task_id)
        with suppress(OSError):
            replace_file(self._completed / file.name, msgspec.json.encode(shortened(record)), mode=0o600)
            file.unlink(missing_ok=True)

    def forget(self, record: TaskRecord) -> None:
        """History that is too old."""
        with suppress(OSError):
            (self._completed / self._file(record.framework_id, record.task_id).name).unlink(missing_ok=True)

    def tasks(self) -> Iterator[TaskRecord]:
        return _records(self._tasks, TaskRecord)

    def save_executor(self, record: ExecutorRecord) -> None:
        replace_file(self._executors / f"{_digest(record.name)}.json", msgspec.json.encode(record), mode=0o600)

    def drop_executor(self, record: ExecutorRecord) -> None:
        (self._executors / f"{_digest(record.name)}.json").unlink(missing_ok=True)

    def executors(self) -> Iterator[ExecutorRecord]:
        return _records(self._executors, ExecutorRecord)

    def completed(self) -> list[TaskRecord]:
        """The latest COMPLETED_KEPT, oldest first; older ones are dropped from disk."""
        by_age = sorted(self._completed.glob("*.json"), key=lambda file: file.stat().st_mtime)
        for file in by_age[:-COMPLETED_KEPT]:
            file.unlink(missing_ok=True)
        return [shortened(record) for record in _records(self._completed, TaskRecord)]

    def forget_all(self) -> None:
        """The agent was marked gone: it starts anew, under another id."""
        for folder in (self._tasks, self._completed, self._executors):
            for file in folder.glob("*.json"):
                file.unlink(missing_ok=True)


def _digest(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()[:32]


def _records(folder: Path, kind: type[R]) -> Iterator[R]:
    for file in sorted(folder.glob("*.json"), key=lambda f: f.stat().st_mtime):
        try:
            yield msgspec.json.decode(file.read_bytes(), type=kind)
        except (OSError, msgspec.DecodeError) as error:
            aside = file.with_suffix(f".unreadable-{int(time.time())}")
            log.warning("checkpoint unreadable, moved aside", file=str(file), why=str(error), to=aside.name)
            file.replace(aside)
