"""A registry as a file, and what it takes to make one registry like another.

The file is JSON lines: a header, then a node a line, sorted. What ends with a session, epochs and the clock's own node
are not in it: the header carries the cluster, the revision and the highest epoch instead.
"""

import base64
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import msgspec

from fairlead_daemon.errors import Refused
from fairlead_discovery import paths
from fairlead_discovery.decisions.ops import AnyOp, Drop, Set, check_new_path, check_sizes
from fairlead_discovery.decisions.trust import MASS_TASKS
from fairlead_discovery.records import Cluster
from fairlead_discovery.registry import NEW

FORMAT = 1
BESIDE = {
    "routes": paths.ROUTES,
    "policies": paths.POLICIES,
    "tasks without ports": paths.PORTLESS,
    "apps": paths.APPS,
    "rings": paths.RINGS,
}
"""What an import must not empty without being told to, beside endpoints."""
CHUNK_OPS = 400
CHUNK_BYTES = 400_000
"""A transaction's size: well below what ZooKeeper takes, and short enough for others to come in between."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """What a registry holds, whole. `epoch`: no leadership of it has a higher one.

    `passing` are paths that end with a session: they stay what they are, and no file has them.
    """

    cluster: Cluster
    revision: int
    epoch: int
    nodes: Mapping[str, bytes]
    passing: frozenset[str] = frozenset()
    record: bytes = b""
    """The cluster's record as it stands, for keys of it that a newer version knows. No file has it."""
    unreadable: Mapping[str, str] = field(default_factory=dict)
    """Nodes and folders that are closed to us, by path, with the reason. No file has them."""


class Header(msgspec.Struct, frozen=True, kw_only=True):
    fairlead_registry: int
    cluster: str
    revision: int
    epoch: int
    nodes: int
    taken_s: float
    schema: int = 1


class Line(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """`text` where the data is UTF-8, else `base64`."""

    path: str
    text: str = ""
    base64: str = ""


def to_lines(image: Image, *, taken_s: float) -> Iterator[bytes]:
    """With their line ends."""
    header = Header(
        fairlead_registry=FORMAT,
        cluster=image.cluster.uuid,
        revision=image.revision,
        epoch=image.epoch,
        nodes=len(image.nodes),
        taken_s=taken_s,
        schema=image.cluster.schema,
    )
    yield msgspec.json.encode(header) + b"\n"
    for path in sorted(image.nodes):
        yield msgspec.json.encode(_line(path, image.nodes[path])) + b"\n"


def from_lines(lines: Iterable[bytes]) -> Image:
    """Raises Refused naming the line; a file that ends too soon is refused whole."""
    nodes: dict[str, bytes] = {}
    header: Header | None = None
    for number, line in enumerate(lines, 1):
        try:
            if header is None:
                header = _header(line)
            elif line.strip():
                entry = msgspec.json.decode(line, type=Line)
                check_new_path(entry.path)
                nodes[entry.path] = base64.b64decode(entry.base64, validate=True) or entry.text.encode()
        except (ValueError, Refused) as error:  # msgspec's and base64's errors are ValueErrors
            raise Refused(f"line {number}: {error}") from error
    if header is None or len(nodes) != header.nodes:
        raise Refused(f"the file is not whole: {len(nodes)} nodes, expected {header.nodes if header else 'a header'}")
    cluster = Cluster(uuid=header.cluster, schema=header.schema)
    return Image(cluster=cluster, revision=header.revision, epoch=header.epoch, nodes=nodes)


def _header(line: bytes) -> Header:
    header = msgspec.json.decode(line, type=Header)
    if header.fairlead_registry != FORMAT:
        raise Refused(f"format {header.fairlead_registry}, this program reads {FORMAT}")
    return header


def _line(path: str, data: bytes) -> Line:
    try:
        return Line(path=path, text=data.decode())
    except UnicodeDecodeError:
        return Line(path=path, base64=base64.b64encode(data).decode())


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What makes the registry that is there like the wanted one. `cluster`, `revision`: its record at the end."""

    cluster: Cluster
    revision: int
    created: Mapping[str, bytes] = field(default_factory=dict)
    changed: Mapping[str, bytes] = field(default_factory=dict)
    removed: Sequence[str] = ()
    dangers: Sequence[str] = ()
    """Why nobody should do this without being told to."""
    record: bytes = b""
    """The cluster's record as a newer version may have written it: what we do not know of it stays."""

    def fields(self) -> dict[str, int]:
        return {"created": len(self.created), "changed": len(self.changed), "removed": len(self.removed)}

    def summary(self) -> str:
        return f"{len(self.created)} to create, {len(self.changed)} to change, {len(self.removed)} to remove"

    def then(self, later: "Plan") -> "Plan":
        """Both, one after the other."""
        return replace(
            later,
            created={**self.created, **later.created},
            changed={**self.changed, **later.changed},
            removed=(*self.removed, *later.removed),
            dangers=self.dangers,
        )

    def check(self) -> None:
        """Raises Refused naming a node that no registry takes."""
        for op in self._ops():
            check_sizes((op,))

    def chunks(self) -> Iterator[tuple[AnyOp, ...]]:
        """Transactions, in order: what comes, comes before what goes."""
        chunk: list[AnyOp] = []
        size = 0
        for op in self._ops():
            length = len(op.path) + (len(op.data) if isinstance(op, Set) else 0)
            if chunk and (len(chunk) >= CHUNK_OPS or size + length > CHUNK_BYTES):
                yield tuple(chunk)
                chunk, size = [], 0
            chunk.append(op)
            size += length
        if chunk:
            yield tuple(chunk)

    def _ops(self) -> Iterator[AnyOp]:
        yield from (Set(path=path, data=data, expect=NEW) for path, data in sorted(self.created.items()))
        yield from (Set(path=path, data=data) for path, data in sorted(self.changed.items()))
        yield from (Drop(path=path) for path in sorted(self.removed, key=lambda p: (-p.count("/"), p)))


def plan(present: Image, wanted: Image) -> Plan:
    """Within one cluster the revision never goes back; epochs never do."""
    again = present.cluster.uuid == wanted.cluster.uuid
    to_do = {path: data for path, data in wanted.nodes.items() if path not in present.passing}
    epoch_base = max(present.epoch, wanted.epoch) + 1
    return Plan(
        cluster=Cluster(uuid=wanted.cluster.uuid, schema=wanted.cluster.schema, epoch_base=epoch_base),
        record=wanted.record,
        revision=max(wanted.revision, present.revision + 1) if again else wanted.revision,
        created={path: data for path, data in to_do.items() if path not in present.nodes},
        changed={p: data for p, data in to_do.items() if p in present.nodes and present.nodes[p] != data},
        removed=tuple(present.nodes.keys() - wanted.nodes.keys()),
        dangers=tuple(_dangers(present, wanted)),
    )


def _dangers(present: Image, wanted: Image) -> Iterator[str]:
    known, kept = _tasks(present), _tasks(wanted)
    lost = known - kept
    for image, which in ((wanted, "what is to be copied"), (present, "what is there")):
        if image.unreadable:
            first, count = min(image.unreadable), len(image.unreadable)
            yield f"{which} holds {count} nodes that are closed to us, {first} for one: they are left out"
    if known and not kept:
        yield f"it would empty a registry with {len(known)} endpoints"
    elif len(known) >= MASS_TASKS and 2 * len(lost) > len(known):
        yield f"it would remove {len(lost)} of {len(known)} endpoints"
    for word, folder in BESIDE.items():
        there = _children(present, folder)
        if there and not _children(wanted, folder):
            yield f"it would remove all of {len(there)} {word}"
    if present.nodes and present.cluster.uuid != wanted.cluster.uuid:
        uuids = f"{present.cluster.uuid} would become {wanted.cluster.uuid}"
        yield f"the registry is another cluster with {len(present.nodes)} nodes: {uuids}, and its readers would hold"


def _children(image: Image, folder: str) -> frozenset[str]:
    start = f"{folder}/"
    return frozenset(path[len(start) :].partition("/")[0] for path in image.nodes if path.startswith(start))


def _tasks(image: Image) -> frozenset[str]:
    start = f"{paths.ENDPOINTS}/"
    return frozenset(path.rpartition("_")[0] for path in image.nodes if path.startswith(start))
