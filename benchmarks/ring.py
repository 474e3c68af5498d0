"""The ring and the Resolver: time of a lookup, of a rebuild, of a pick; what a join moves.

`ring.py`: 1,000 nodes with 128 points each: lookup beside a bare SHA-256 of the key, rebuild from nothing (16,384 and 65,536
slots, 1 and 3 copies), and what one more node moves. `ring.py pick`: pick() for a service of 20 endpoints among 200 services, each strategy.
Medians and the best of repeated runs, and the least CPU of one, which a busy machine spoils less; one process.
"""

import asyncio
import hashlib
import statistics
import sys
import time
from collections.abc import Callable

from fairlead_discovery import paths
from fairlead_discovery.backends import open_registry
from fairlead_discovery.decisions.picking import Strategy
from fairlead_discovery.decisions.ring import Place, Ring, Shape
from fairlead_discovery.records import Address, Member, TaskRef, encode
from fairlead_discovery.registry import Create
from fairlead_discovery.resolver import Resolver

NODES = 1000
POINTS = 128
REPEATS = 7
CALLS = 100_000
SERVICES = 200
ENDPOINTS = 20


def seconds(body: Callable[[], object]) -> list[tuple[float, float]]:
    """Of each repeat, by the clock and of CPU; best first."""
    out = []
    for _ in range(REPEATS):
        start_s, start_cpu_s = time.perf_counter(), time.process_time()
        body()
        out.append((time.perf_counter() - start_s, time.process_time() - start_cpu_s))
    return sorted(out)


def tell(what: str, runs: list[tuple[float, float]], *, unit: str = "ms", each: int = 1) -> None:
    factor = {"ms": 1e3, "µs": 1e6}[unit] / each
    median, best = statistics.median(wall for wall, _ in runs) * factor, runs[0][0] * factor
    cpu = min(cpu for _, cpu in runs) * factor
    print(f"{what}: median {median:.2f} {unit}, best {best:.2f} {unit}, least CPU {cpu:.2f} {unit}")


def ring() -> None:
    places = [Place(name=f"node-{n}.dc1.example:7000") for n in range(NODES)]
    for slots, copies in ((16384, 1), (65536, 1), (16384, 3), (65536, 3)):
        shape = Shape(points=POINTS, slots=slots, replicas=copies)
        what = f"rebuild, {NODES} nodes x {POINTS} points, {shape.slots} slots, {shape.replicas} copies"
        tell(what, seconds(lambda shape=shape: Ring(shape, places)))
    built = Ring(Shape(points=POINTS), places)
    keys = [f"user:{n}" for n in range(CALLS)]

    def look() -> None:
        owner = built.owner
        for key in keys:
            owner(key)

    def bare() -> None:
        sha256 = hashlib.sha256
        for key in keys:
            sha256(key.encode()).digest()

    tell("lookup", seconds(look), unit="µs", each=CALLS)
    tell("  bare SHA-256 of the key", seconds(bare), unit="µs", each=CALLS)
    for bound, points in ((100, POINTS), (100, 512), (125, POINTS)):
        for nodes in (10, 100):
            shape = Shape(points=points, bound_percent=bound)
            old, new = Ring(shape, places[:nodes]), Ring(shape, places[: nodes + 1])
            moved = sum(a != b for a, b in zip(old.table, new.table, strict=True)) / shape.slots
            print(
                f"one more of {nodes}, {points} points, bound {bound} %: {100 * moved:.2f} % of slots move,"
                f" at least {100 / (nodes + 1):.2f} % must"
            )


async def pick() -> None:
    registry = await open_registry("memory:bench")
    for service in range(SERVICES):
        await registry.commit([publish(service, n) for n in range(ENDPOINTS)])
    async with Resolver(registry) as resolver:
        name = "app-7.marathon.mesos"
        assert len(resolver.endpoints(name)) == ENDPOINTS
        for strategy in Strategy:

            def picks(strategy: Strategy = strategy) -> None:
                for _ in range(CALLS):
                    resolver.pick(name, key="user:42", client_zone="z1", strategy=strategy)

            tell(f"pick {strategy}", seconds(picks), unit="µs", each=CALLS)
    await registry.close()


def publish(service: int, number: int) -> Create:
    task = f"t{service}-{number}"
    data = encode(
        Member(
            serviceEndpoint=Address(host=f"10.0.{number}.1", port=31000 + service),
            task=TaskRef(id=task, name=f"app-{service}", framework="marathon", framework_id="f", agent="a"),
            zone=f"z{number % 3}",
            status="ALIVE",
        )
    )
    return Create(paths.member(f"marathon:/app-{service}", paths.member_name(task, data)), data)


if __name__ == "__main__":
    if sys.argv[1:] == ["pick"]:
        asyncio.run(pick())
    else:
        ring()
