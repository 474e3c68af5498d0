"""A real agent with its real keeper, in a folder of its own."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.request import urlopen

from fairlead_core.agent.adapters.keeper_link import stop_keeper
from fairlead_core.agent.keeper.records import Folder
from fairlead_core.agent.keeper.remains import marked
from fairlead_daemon.processes import Identity, alive
from harness.ports import free_port
from harness.servers import Server
from harness.waiting import wait_until

_CODE = (
    "import sys; from fairlead_core.agent.daemon import DAEMON; from fairlead_daemon.main import main;"
    " sys.exit(main(DAEMON, sys.argv[1:]))"
)


class Agent:
    """Settings are the daemon's; `registry` is off unless given."""

    def __init__(self, folder: Path, master: str = "", **settings: object) -> None:
        self.folder = folder
        self.data = folder / "data"
        self.port = free_port()
        self.settings = {
            "registry": "",
            "data_dir": str(self.data),
            "port": self.port,
            "master": master,
            "token": "off",
            "resources": "cpus:4;mem:1024;disk:1000;ports:[31000-31100]",
            **settings,
        }
        words = [w for k, v in self.settings.items() for w in ("--set", f"{k}={json.dumps(v)}")]
        self.server = Server([sys.executable, "-c", _CODE, *words], log=folder / "agent.log")

    def start(self) -> "Agent":
        self.server.start()
        return self

    def kill(self) -> None:
        self.server.kill()

    def log(self) -> str:
        return (self.folder / "agent.log").read_text()

    def get(self, path: str) -> Any:
        with urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=5) as response:
            return json.loads(response.read())

    def instance(self) -> str:
        return str(json.loads((self.data / "agent" / "meta.json").read_text())["instance"])

    def keeper(self) -> Identity:
        identity = Folder(self.data / "keeper").identity()
        assert identity is not None, "there is no keeper"
        assert alive(identity), "the keeper does not run"
        return identity

    def kill_keeper(self) -> Identity:
        keeper = self.keeper()
        os.kill(keeper.pid, signal.SIGKILL)
        return keeper

    def processes(self) -> list[int]:
        """Pids of all that carries one of this agent's task keys."""
        return [identity.pid for identity in marked(f"{self.instance()}/")]

    def checkpoint(self, task_id: str) -> dict[str, Any]:
        """The task's record on disk."""
        records = [json.loads(file.read_text()) for file in (self.data / "agent" / "tasks").glob("*.json")]
        found: dict[str, Any] = next(r for r in records if r["task"]["task_id"]["value"] == task_id)
        return found

    def sandbox(self, task_id: str, framework: str = "F") -> Path:
        return self.data / "sandboxes" / framework / task_id

    def output(self, task_id: str, name: str = "stdout") -> str:
        return (self.sandbox(task_id) / name).read_text()

    def end(self) -> None:
        """Everything, so that nothing of a test stays."""
        self.server.stop()
        assert stop_keeper(self.data / "keeper"), "the keeper would not end"
        if (self.data / "agent" / "meta.json").exists():
            wait_until("no task is left", lambda: not self.processes(), within_s=5)


@asynccontextmanager
async def agent(folder: Path, master: str = "", **settings: object) -> AsyncIterator[Agent]:
    """Started; ended whole. On a failure its log is printed."""
    one = Agent(folder, master, **settings).start()
    try:
        yield one
    except BaseException:
        print(one.log())
        raise
    finally:
        await asyncio.to_thread(one.end)
