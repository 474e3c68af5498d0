"""A steady load of numbered GETs and POSTs, from keep-alive and closing clients; every answer is accounted for.

As a process of its own, so that nothing the test does delays it:
`python -m harness.load --port P --host web.example --rate 100 --report F`; SIGTERM ends it, the report is JSON:
`{"sent": {"GET": n, "POST": n}, "failed": [[number, method, kind, at_s, reason]…], "slowest_s": …, "by_instance": {…}}`.

The client is plain streams on purpose: HTTP libraries retry GETs on their own and would hide a failure.
"""

import argparse
import asyncio
import contextlib
import json
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any, Self

ANSWER_WITHIN_S = 15.0


@dataclass
class Report:
    sent: Counter[str] = field(default_factory=Counter)
    failed: list[tuple[int, str, str, float, str]] = field(default_factory=list)
    by_instance: Counter[str] = field(default_factory=Counter)
    slowest_s: float = 0.0
    late: int = 0

    def as_json(self) -> str:
        return json.dumps(
            {
                "sent": dict(self.sent),
                "failed": self.failed,
                "by_instance": dict(self.by_instance),
                "slowest_s": round(self.slowest_s, 3),
                "late": self.late,
            }
        )


class Client:
    """One client at a fixed rate. `keep` clients reuse their connection as long as the server lets them."""

    def __init__(self, target: argparse.Namespace, numbers: "count[int]", report: Report, *, keep: bool) -> None:
        self.target, self.numbers, self.report, self.keep = target, numbers, report, keep
        self.link: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def run(self, every_s: float, first_s: float, stop: asyncio.Event) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time() + first_s
        while not stop.is_set():
            if (wait := due - loop.time()) > 0:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(stop.wait(), wait)
                    break
            elif wait < -1:
                self.report.late += 1
                due = loop.time()
            await self.one()
            due += every_s
        await self.close()

    async def one(self) -> None:
        number = next(self.numbers)
        method = "POST" if number % 2 else "GET"
        self.report.sent[method] += 1
        begin = time.monotonic()
        try:
            async with asyncio.timeout(ANSWER_WITHIN_S):
                status, body = await self.exchange(method, number)
            if status != 200:
                raise AssertionError(f"status {status}: {body[:80]!r}")
            answered, _, instance = body.decode().partition(" ")
            if answered != str(number):
                raise AssertionError(f"the answer to {answered}")
            self.report.by_instance[instance] += 1
        except (OSError, AssertionError, EOFError, ValueError, TimeoutError) as error:
            kind = "keep" if self.keep else "close"
            self.report.failed.append((number, method, kind, round(time.time(), 3), repr(error)))
            await self.close()
        self.report.slowest_s = max(self.report.slowest_s, time.monotonic() - begin)

    async def exchange(self, method: str, number: int) -> tuple[int, bytes]:
        if self.link is None:
            self.link = await asyncio.open_connection(self.target.address, self.target.port)
        reader, writer = self.link
        body = b"x" * 20 if method == "POST" else b""
        close = "" if self.keep else "Connection: close\r\n"
        writer.write(
            f"{method} /n/{number} HTTP/1.1\r\nHost: {self.target.host}\r\nContent-Length: {len(body)}\r\n{close}\r\n".encode()
            + body
        )
        if not (first := await reader.readline()):
            raise EOFError("connection closed before the answer")
        status = int(first.split()[1])
        length, closing = 0, not self.keep
        while (line := (await reader.readline()).strip().lower()) != b"":
            if line.startswith(b"content-length:"):
                length = int(line.split(b":")[1])
            if line == b"connection: close":
                closing = True
        answer = await reader.readexactly(length)
        if closing:
            await self.close()
        return status, answer

    async def close(self) -> None:
        if self.link is not None:
            self.link[1].close()
            self.link = None


async def run(target: argparse.Namespace) -> None:
    stop, report, numbers = asyncio.Event(), Report(), count(1)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    clients = [Client(target, numbers, report, keep=i % 2 == 0) for i in range(target.clients)]
    every_s = target.clients / target.rate
    async with asyncio.TaskGroup() as group:
        for i, client in enumerate(clients):
            group.create_task(client.run(every_s, every_s * i / len(clients), stop))
    Path(target.report).write_text(report.as_json())


class Load:
    """The process, for a test: `with Load(port, host, folder) as load: …`, then `load.result`."""

    def __init__(self, port: int, host: str, folder: Path, *, rate: float = 80, clients: int = 8) -> None:
        self.file = folder / f"load-{time.monotonic_ns()}.json"
        self.result: dict[str, Any] = {}
        self.command = [
            sys.executable, "-m", "harness.load", "--port", str(port), "--host", host, "--rate", str(rate),
            "--clients", str(clients), "--report", str(self.file),
        ]  # fmt: skip

    def __enter__(self) -> Self:
        self.process = subprocess.Popen(self.command, cwd=Path(__file__).parent.parent, start_new_session=True)
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def end(self) -> None:
        """Ends the load and takes its report; a second call does nothing."""
        if self.result:
            return
        self.process.terminate()
        self.process.wait(ANSWER_WITHIN_S + 5)
        self.result = json.loads(self.file.read_text())

    def failures(self) -> list[str]:
        return [" ".join(map(str, f)) for f in self.result["failed"]]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--address", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--host", required=True)
    parser.add_argument("--rate", type=float, default=80)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--report", required=True)
    asyncio.run(run(parser.parse_args()))


if __name__ == "__main__":
    main()
