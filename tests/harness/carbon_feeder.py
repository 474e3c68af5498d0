"""A process that spools and sends known points as the monitor does: `carbon_feeder.py SPOOL HOST:PORT LOG FIRST SETTLE_S`.

Every 10 ms one more second of the past: SERIES points at stamp FIRST, FIRST+1 … A line of LOG says a stamp is accepted:
appended to the spool, which is when it must not be lost any more. Goes on after the last line of LOG, for ever.
"""

import asyncio
import os
import sys
from pathlib import Path

from fairlead_monitoring.adapters.spool import Spool
from fairlead_monitoring.graphite import Destination, Exporter

SERIES = 20
PAUSE_S = 0.01


def path(number: int) -> str:
    return f"feed.p{number}"


def value(number: int, stamp: int) -> float:
    return float(number * 1_000_000 + stamp % 1_000_000)


def batch(stamp: int) -> bytes:
    return "".join(f"{path(n)} {value(n, stamp):.0f} {stamp}\n" for n in range(SERIES)).encode()


async def feed(exporter: Exporter, log: Path, first: int) -> None:
    accepted = log.read_text().split() if log.exists() else []
    stamp = int(accepted[-1]) + 1 if accepted else first  # one whose line is missing is appended again: the same points
    handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    while True:
        await exporter.append(batch(stamp))
        os.write(handle, f"{stamp}\n".encode())
        stamp += 1
        await asyncio.sleep(PAUSE_S)


async def main() -> None:
    spool, address, log, first, settle_s = sys.argv[1:]
    host, _, port = address.partition(":")
    to = Destination(host=host, port=int(port), settle_s=float(settle_s), points_per_s=20_000)
    exporter = Exporter(Spool(Path(spool), most_bytes=64 * 1024 * 1024, roll_s=1.0), to)
    async with asyncio.TaskGroup() as group:
        group.create_task(exporter.run())
        group.create_task(feed(exporter, Path(log), int(first)))


if __name__ == "__main__":
    asyncio.run(main())
