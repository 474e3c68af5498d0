"""The keeper's disk: a record a task, its own identity, the paths of both."""

import hashlib
import os
from pathlib import Path

import msgspec

from fairlead_core.agent.keeper.protocol import Held
from fairlead_daemon.processes import Identity, identify


def boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


class Folder:
    """A keeper's folder, mode 0700."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lock = path / "lock"
        self.socket = path / "socket"
        self.log = path / "keeper.log"
        self._tasks = path / "tasks"
        self._identity = path / "identity.json"

    def prepare(self) -> None:
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.path.chmod(0o700)
        self._tasks.mkdir(exist_ok=True)

    def _file(self, key: str) -> Path:
        return self._tasks / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.json"

    def save(self, held: Held, *, durable: bool = False) -> None:
        """Whole or not at all. `durable`: also after a power failure; without, only after any kill."""
        _write(self._file(held.key), msgspec.json.encode(held), durable=durable)

    def forget(self, key: str) -> None:
        self._file(key).unlink(missing_ok=True)

    def load(self) -> dict[str, Held]:
        """All records; one that cannot be read is moved aside, its process is found by its environment."""
        out: dict[str, Held] = {}
        for file in sorted(self._tasks.glob("*.json")):
            try:
                held = msgspec.json.decode(file.read_bytes(), type=Held)
            except (msgspec.DecodeError, OSError):
                file.replace(file.with_suffix(".unreadable"))
                continue
            out[held.key] = held
        return out

    def write_identity(self) -> None:
        own = identify(os.getpid())
        _write(self._identity, msgspec.json.encode(own), durable=True)

    def identity(self) -> Identity | None:
        """Who the keeper is, or was; None when none ever was."""
        try:
            return msgspec.json.decode(self._identity.read_bytes(), type=Identity)
        except (OSError, msgspec.DecodeError):
            return None


def _write(file: Path, data: bytes, *, durable: bool) -> None:
    beside = file.with_suffix(".new")
    try:
        with beside.open("wb") as stream:
            stream.write(data)
            stream.flush()
            if durable:
                os.fsync(stream.fileno())
        beside.replace(file)
    except OSError:
        beside.unlink(missing_ok=True)
        raise
