"""The registry in this process: the same hub and client as `local`, with a link that tests can cut.

`memory:<name>` is one cluster per name and event loop. `cluster(name)` is the handle for tests.
"""

import asyncio
import uuid
from collections.abc import Callable
from weakref import WeakKeyDictionary

from fairlead_discovery import messages as m
from fairlead_discovery import paths
from fairlead_discovery.adapters.linked import LinkedStore
from fairlead_discovery.decisions.nodes import Nodes
from fairlead_discovery.decisions.ops import Set
from fairlead_discovery.hub import Client, Hub
from fairlead_discovery.records import Cluster, encode
from fairlead_discovery.store import Store


def fresh_nodes(epoch_base: int) -> Nodes:
    """An empty cluster of its own."""
    nodes = Nodes()
    data = encode(Cluster(uuid=str(uuid.uuid4()), epoch_base=epoch_base))
    nodes.apply((Set(path=paths.CLUSTER, data=data), Set(path=paths.REVISION)), session="")
    return nodes


class MemoryLink:
    """Both ends of one connection. Messages arrive in order, one turn of the loop later."""

    def __init__(self, hub: Hub, on_message: Callable[[m.AnyReply], None], on_lost: Callable[[], None]) -> None:
        self._hub = hub
        self._on_message = on_message
        self._on_lost = on_lost
        self._loop = asyncio.get_running_loop()
        self.client: Client | None = hub.attach(self)

    def send(self, message: m.AnyRequest | m.AnyReply) -> None:
        """Serves as Link for the client and as Peer for the hub: the kind tells the direction."""
        self._loop.call_soon(self._deliver, message)

    def backed_up(self) -> bool:
        return False

    def close(self) -> None:
        client, self.client = self.client, None
        if client is not None:
            self._hub.detach(client)
            self._on_lost()

    def _deliver(self, message: m.AnyRequest | m.AnyReply) -> None:
        if self.client is None:
            return
        if isinstance(message, m.Request):
            self._hub.receive(self.client, message)
        else:
            self._on_message(message)


class MemoryCluster:
    """One in-process registry, with the faults a test may want."""

    def __init__(self) -> None:
        self._hub = Hub(fresh_nodes(0))
        self._emptied = 0
        self._links: dict[LinkedStore, MemoryLink] = {}
        self._cut: set[LinkedStore] = set()
        self._down = False

    def open(self, place: str) -> LinkedStore:
        async def connect(on_message: Callable[[m.AnyReply], None], on_lost: Callable[[], None]) -> MemoryLink:
            if self._down or store in self._cut:
                raise ConnectionRefusedError(f"{place} is cut")
            self._links[store] = MemoryLink(self._hub, on_message, on_lost)
            return self._links[store]

        store = LinkedStore(connect, place)
        return store

    def cut(self, store: Store) -> None:
        """The store loses sight until `mend`; its session goes on for 10 s."""
        assert isinstance(store, LinkedStore)
        self._cut.add(store)
        self._links[store].close()

    def mend(self, store: Store) -> None:
        assert isinstance(store, LinkedStore)
        self._cut.discard(store)

    def expire(self, store: Store) -> None:
        """Ends its session as if it had been silent for too long."""
        self._hub.end_session(store.connection.value.session)

    def stop(self) -> None:
        """The registry's process is gone, its state stays."""
        self._down = True
        for link in self._links.values():
            link.close()

    def start(self) -> None:
        self._down = False

    def restart_empty(self) -> None:
        """The registry comes back as another cluster, with nothing in it."""
        self.stop()
        self._emptied += 1
        self._hub = Hub(fresh_nodes(1000 * self._emptied))
        self.start()


_clusters: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, MemoryCluster]] = WeakKeyDictionary()


def cluster(name: str) -> MemoryCluster:
    """The cluster of that name in the running event loop, made at the first call."""
    here = _clusters.setdefault(asyncio.get_running_loop(), {})
    if name not in here:
        here[name] = MemoryCluster()
    return here[name]
