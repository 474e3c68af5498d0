"""Clients that ask a split service, and how many of them went where."""

import asyncio
import itertools
from collections import Counter
from collections.abc import Iterable
from typing import Any

from fairlead_discovery.policies import Policy, path_of
from fairlead_discovery.records import encode
from fairlead_discovery.registry import Delete, Put
from harness.balancer import Balancer

SIGMAS = 6
_numbers = itertools.count()


async def order(place: Balancer, *policies: Policy, gone: Iterable[Policy] = ()) -> None:
    """Writes policies, and waits until they are served."""
    changes: list[Any] = [Put(path_of(p), encode(p)) for p in policies]
    changes += [Delete(path_of(p), missing_ok=True) for p in gone]
    await place.applied(await place.registry.commit(changes))


async def ask_often(port: int, host: str, count: int, *, sent: str = "", method: str = "GET") -> Counter[str]:
    """So many requests over eight kept connections: who answered. `sent`: more header lines."""
    found: Counter[str] = Counter()

    async def one(share: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for _ in range(share):
            async with asyncio.timeout(15):
                head, body = await _ask(
                    reader, writer, f"{method} /often{next(_numbers)} HTTP/1.1\r\nHost: {host}\r\n{sent}"
                )
            found[body if head.startswith("HTTP/1.1 200") else head.split()[1]] += 1
        writer.close()

    await asyncio.gather(*(one(count // 8) for _ in range(8)))
    return found


async def _ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: str) -> tuple[str, str]:
    length = "Content-Length: 0\r\n" if request.startswith("POST") else ""
    writer.write(f"{request}{length}\r\n".encode())
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    lines = [line.lower() for line in head.split("\r\n")]
    size = next(int(line.partition(":")[2]) for line in lines if line.startswith("content-length:"))
    return head, (await reader.readexactly(size)).decode()


class Browser:
    """Keeps the cookies it is given, and says who answered."""

    def __init__(self, port: int, host: str) -> None:
        self._port = port
        self._host = host
        self.cookie = ""

    async def ask(self) -> str:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        sent = f"Cookie: {self.cookie}\r\n" if self.cookie else ""
        try:
            async with asyncio.timeout(15):
                head, body = await _ask(
                    reader, writer, f"GET / HTTP/1.1\r\nHost: {self._host}\r\nConnection: close\r\n{sent}"
                )
        finally:
            writer.close()
        given = [line for line in head.split("\r\n") if line.lower().startswith("set-cookie: fairlead_client=")]
        if given:
            self.cookie = given[0].partition(": ")[2].partition(";")[0]
        return body


def within(count: int, of: int, percent: float) -> bool:
    """Whether a binomial draw may be so: beyond six sigmas it happens once in 500 million times."""
    chance = percent / 100
    return abs(count - of * chance) <= SIGMAS * (of * chance * (1 - chance)) ** 0.5
