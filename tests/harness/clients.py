"""Clients in the test's own loop that number their requests: keep-alive and closing, GET and POST, at a gentle rate."""

import asyncio
import itertools
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Self

PAUSE_S = 0.004
ANSWER_S = 15.0


@dataclass
class Clients:
    """`async with Clients(port, host): …`; afterwards `failures`, `answers` (who answered) and `sent` are known."""

    port: int
    host: str
    count: int = 8
    prefix: str = ""
    """Of the paths: tells its requests from those of others to the same server."""
    failures: list[str] = field(default_factory=list)
    answers: Counter[str] = field(default_factory=Counter)
    sent: list[str] = field(default_factory=list)
    _tasks: list["asyncio.Task[None]"] = field(default_factory=list)
    _numbers: "itertools.count[int]" = field(default_factory=itertools.count)
    _ending: bool = False

    async def __aenter__(self) -> Self:
        self._tasks = [asyncio.create_task(self._client(keep=n % 2 == 0)) for n in range(self.count)]
        await asyncio.sleep(0.1)
        return self

    async def __aexit__(self, *_error: object) -> None:
        self._ending = True
        await asyncio.gather(*self._tasks)

    async def _client(self, *, keep: bool) -> None:
        link: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        while not self._ending:
            number = next(self._numbers)
            name = f"{'POST' if number % 3 == 0 else 'GET'} /{self.prefix}{number}"
            self.sent.append(name)
            try:
                async with asyncio.timeout(ANSWER_S):
                    link = link or await asyncio.open_connection("127.0.0.1", self.port)
                    link = await self._ask(name, link, keep=keep)
            except (OSError, asyncio.IncompleteReadError, TimeoutError) as error:
                self.failures.append(f"{name}: {error!r}")
                link = None
            await asyncio.sleep(PAUSE_S)
        if link is not None:
            link[1].close()

    async def _ask(
        self, name: str, link: tuple[asyncio.StreamReader, asyncio.StreamWriter], *, keep: bool
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | None:
        reader, writer = link
        closing = "" if keep else "Connection: close\r\n"
        length = "Content-Length: 0\r\n" if name.startswith("POST") else ""
        writer.write(f"{name} HTTP/1.1\r\nHost: {self.host}\r\n{closing}{length}\r\n".encode())
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        size = next(int(x.partition(":")[2]) for x in head.split("\r\n") if x.startswith("content-length:"))
        body = (await reader.readexactly(size)).decode()
        if head.split()[1] == "200":
            self.answers[body] += 1
        else:
            self.failures.append(f"{name}: {head.split()[1]} {body.strip()}")
        if keep and "connection: close" not in head:
            return link
        writer.close()
        return None

    def doubled(self, seen: Sequence[str]) -> list[str]:
        """Requests that servers got more than once."""
        return sorted(name for name, times in Counter(seen).items() if times > 1)

    def doubled_posts(self, seen: Sequence[str]) -> list[str]:
        return [name for name in self.doubled(seen) if name.startswith("POST")]
