"""Many readers in one process: `many_readers.py URL READERS SERVICES REPORT`.

Each has a registry and a session of its own. A line `REVISION` on stdin says up to where they must read: then comes the
report, JSON: what each saw in the end, what it saw empty, how many looks it had and how late the slowest ones were.
"""

import asyncio
import hashlib
import json
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from fairlead_discovery import paths
from fairlead_discovery.backends import open_registry
from fairlead_discovery.composed import ComposedRegistry
from fairlead_discovery.registry import Sight
from harness.waiting import eventually

CLOCK = "clock"
"""A route whose data is the writer's monotonic time."""
SLOWEST = 20
LAST_S = 240.0


class Reader:
    """Follows; `empty` are services it saw without a member after it had seen them all."""

    def __init__(self, registry: ComposedRegistry, services: int) -> None:
        self.sight = Sight(in_sight=False)
        self.empty: set[str] = set()
        self.went_back = 0
        self.looks = 0
        self.late_s: list[float] = []
        self._registry = registry
        self._services = {paths.endpoint_folder(f"s:{n}") for n in range(services)}
        self._clock = b""

    async def run(self) -> None:
        whole = False
        async for sight in self._registry.watch():
            self.looks += 1
            self.went_back += sight.revision < self.sight.revision
            self.sight = sight
            whole = whole or self._services <= sight.folders.keys()
            if whole:
                self.empty |= self._services - sight.folders.keys()
            self._be_late(sight)

    def _be_late(self, sight: Sight) -> None:
        said = sight.folders.get(paths.ROUTES, {}).get(CLOCK, b"")
        if said and said != self._clock:
            self._clock = said
            self.late_s.append(time.monotonic() - float(said))

    def report(self) -> Mapping[str, object]:
        late = sorted(self.late_s)
        return {
            "revision": self.sight.revision,
            "seen": digest({folder: set(nodes) for folder, nodes in self.sight.folders.items()}),
            "empty": sorted(self.empty),
            "went_back": self.went_back,
            "looks": self.looks,
            "late_s": [late[len(late) * part // 100] for part in (50, 99)] if late else [],
        }


def digest(folders: Mapping[str, set[str]]) -> str:
    """Of the endpoints alone."""
    text = json.dumps(sorted((f, sorted(n)) for f, n in folders.items() if f.startswith(paths.ENDPOINTS)))
    return hashlib.sha256(text.encode()).hexdigest()


async def main(url: str, readers: int, services: int, report: Path) -> None:
    registries = [await open_registry(url) for _ in range(readers)]
    following = [Reader(registry, services) for registry in registries]
    tasks = [asyncio.create_task(reader.run()) for reader in following]
    print("following", flush=True)
    revision = int(await asyncio.to_thread(sys.stdin.readline) or -1)

    async def there() -> bool:
        return all(reader.sight.in_sight and reader.sight.revision >= revision for reader in following)

    with suppress(AssertionError):  # the report says who is not
        await eventually("the last revision", there, within_s=LAST_S, every_s=0.05)
    report.write_text(json.dumps([reader.report() for reader in following]))
    for task in tasks:
        task.cancel()
    await asyncio.gather(*(registry.close() for registry in registries))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4])))
