"""Launches per second through the master's HTTP API: 100 simulated agents, one framework that takes every offer.

The master is a process of its own, as in production; agents and framework share this one. A launch counts when its
TASK_RUNNING has arrived at the framework and is acknowledged; it then finishes, and that is acknowledged too.

    python benchmarks/launches.py [--agents 100] [--tasks 2000] [--rounds 5] [--profile FILE]
"""

import argparse
import asyncio
import itertools
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

import aiohttp

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from harness.ports import free_port
from harness.sim_agent import SimAgent
from harness.sim_framework import SimFramework, command_task, until

MASTER = (
    "import sys; from fairlead_core.master.daemon import DAEMON; from fairlead_daemon.main import main; "
    "sys.exit(main(DAEMON, sys.argv[1:]))"
)
PER_OFFER = 10
"""Tasks a framework puts into one ACCEPT, at most."""
TASK_CPUS = 0.01
READY_S = 20.0


class Load(SimFramework):
    """Fills offers with short tasks until `wanted` have been launched; counts those that ran."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        super().__init__(session, url, name="load")
        self.wanted = 0
        self.launched = 0
        self.ran: set[str] = set()
        self.ended: set[str] = set()
        self.on_event = self._count
        self._serial = itertools.count()
        self._calls: set[asyncio.Task[int]] = set()

    def _count(self, event: dict) -> None:
        self.events.clear()
        if event["type"] == "OFFERS":
            self._fill()
        elif event["type"] == "UPDATE":
            status = event["update"]["status"]
            state, task_id = status["state"], status["task_id"]["value"]
            if state == "TASK_RUNNING":
                self.ran.add(task_id)
            elif state == "TASK_FINISHED":
                self.ended.add(task_id)
            elif state == "TASK_LOST":  # the offer was rescinded while it was being accepted: once more
                self.launched -= 1
                self._fill()

    def _fill(self) -> None:
        while self.offers and self.launched < self.wanted:
            _, offer = self.offers.popitem()
            cpus = next(r["scalar"]["value"] for r in offer["resources"] if r["name"] == "cpus")
            count = min(PER_OFFER, self.wanted - self.launched, int(cpus / TASK_CPUS))
            tasks = [command_task(f"b{next(self._serial)}", offer, cpus=TASK_CPUS) for _ in range(count)]
            self.launched += count
            self._spawn(self.accept(offer, *tasks, refuse_s=0))

    def _spawn(self, call: "asyncio.Coroutine[None, None, int]") -> None:
        task = asyncio.create_task(call)
        self._calls.add(task)
        task.add_done_callback(self._calls.discard)

    async def round(self, tasks: int) -> float:
        """Seconds until that many more tasks have run."""
        begin, target = time.perf_counter(), len(self.ran) + tasks
        self.wanted += tasks
        self._fill()
        await until(lambda: len(self.ran) >= target, 60, f"{tasks} tasks run")
        took = time.perf_counter() - begin
        await until(lambda: len(self.ended) >= target, 60, f"{tasks} tasks ended")
        return took


async def measure(url: str, options: argparse.Namespace) -> list[float]:
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector) as session:
        await _ready(session, url)
        agents = [
            SimAgent(
                session,
                url,
                name=f"sim{n}",
                port=10000 + n,
                resources="cpus:64;mem:65536;ports:[31000-32000]",
                states=("TASK_RUNNING", "TASK_FINISHED"),
            )
            for n in range(options.agents)
        ]
        for agent in agents:
            agent.keep_commands = False
            agent.start()
        async with asyncio.timeout(READY_S):
            for agent in agents:
                await agent.registered.wait()
        load = Load(session, url)
        await load.subscribe()
        await load.round(options.tasks // 4)  # warms up
        rates = [options.tasks / await load.round(options.tasks) for _ in range(options.rounds)]
        await load.close()
        for agent in agents:
            await agent.stop()
    return rates


async def _ready(session: aiohttp.ClientSession, url: str) -> None:
    async with asyncio.timeout(READY_S):
        while True:
            try:
                async with session.get(url + "/ready") as response:
                    if response.status == 200:
                        return
            except aiohttp.ClientError:
                pass
            await asyncio.sleep(0.05)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--agents", type=int, default=100)
    parser.add_argument("--tasks", type=int, default=2000, help="launches a round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--profile", default="", help="write the master's cProfile there")
    parser.add_argument("--registry", default="memory:bench")
    options = parser.parse_args()
    port = free_port()
    profile = ["-m", "cProfile", "-o", options.profile] if options.profile else []
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        script = Path(folder) / "master.py"
        script.write_text(MASTER)
        process = subprocess.Popen(
            [
                *(sys.executable, *profile, str(script)),
                *(f"--set=port={port}", f"--set=registry={options.registry}", "--set=token=off"),
                *(f"--set=data_dir={folder}", "--set=log_level=warning"),
            ]
        )
        stack.callback(process.wait)
        stack.callback(process.terminate)
        rates = asyncio.run(measure(f"http://127.0.0.1:{port}", options))
    print(
        f"launches/s over HTTP, {options.agents} simulated agents, {options.rounds} rounds of {options.tasks}: "
        f"median {statistics.median(rates):.0f} (lowest {min(rates):.0f}, highest {max(rates):.0f})"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
