"""Power cuts for SQLite: what it writes, truncates, deletes and syncs is noted, and every moment of it can be rebuilt.

A VFS over SQLite's own (the default from `noting()` on, in this process) notes each call before it passes it on. What
was not synced when the power went may be there, or not, or in part, sector by sector, in any order.
"""

import _sqlite3
import ctypes
import random
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from harness.servers import missing

SECTOR = 512
OK = 0


@dataclass(frozen=True, slots=True)
class Write:
    file: str
    offset: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Truncate:
    file: str
    size: int


@dataclass(frozen=True, slots=True)
class Delete:
    file: str


@dataclass(frozen=True, slots=True)
class Sync:
    """All that was done to the file before it is on disk."""

    file: str


@dataclass(frozen=True, slots=True)
class Said:
    """Somebody was told something: whatever it says must be true after a power cut."""

    what: object


Event = Write | Truncate | Delete | Sync | Said
Journal = list[Event]


class _Methods(ctypes.Structure):
    """sqlite3_io_methods, as far as version 1 of it."""

    _fields_ = [("version", ctypes.c_int)] + [
        (name, ctypes.c_void_p)
        for name in (
            "close", "read", "write", "truncate", "sync", "size", "lock", "unlock", "check_lock", "control",
            "sector", "traits", "shm_map", "shm_lock", "shm_barrier", "shm_unmap", "fetch", "unfetch",
        )
    ]  # fmt: skip


class _File(ctypes.Structure):
    _fields_ = [("methods", ctypes.POINTER(_Methods))]


class _Vfs(ctypes.Structure):
    """sqlite3_vfs, version 3."""

    _fields_ = [
        ("version", ctypes.c_int),
        ("file_bytes", ctypes.c_int),
        ("path_bytes", ctypes.c_int),
        ("next", ctypes.c_void_p),
        ("name", ctypes.c_char_p),
        ("data", ctypes.c_void_p),
        *(
            (name, ctypes.c_void_p)
            for name in (
                "open", "delete", "access", "full", "dl_open", "dl_error", "dl_sym", "dl_close", "randomness",
                "sleep", "time", "last_error", "time64", "set_call", "get_call", "next_call",
            )
        ),
    ]  # fmt: skip


_OPEN = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.c_void_p, ctypes.c_char_p, ctypes.POINTER(_File), ctypes.c_int, ctypes.c_void_p
)
_DELETE = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int)
_WRITE = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int, ctypes.c_int64)
_TRUNCATE = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int64)
_SYNC = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int)
_CLOSE = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p)


class _Noting:
    """Keeps every callback alive: SQLite holds their addresses."""

    def __init__(self, journal: Journal, real: _Vfs) -> None:
        self.journal = journal
        self.real = real
        self.files: dict[int, tuple[str, _Methods]] = {}
        self.kept: list[object] = []
        self.vfs = _Vfs.from_buffer_copy(real)
        self.vfs.name = b"noting"
        self.vfs.next = None
        self.vfs.open = self._address(_OPEN, self.open)
        self.vfs.delete = self._address(_DELETE, self.delete)
        self.hooks = {
            "write": self._address(_WRITE, self.write),
            "truncate": self._address(_TRUNCATE, self.truncate),
            "sync": self._address(_SYNC, self.sync),
            "close": self._address(_CLOSE, self.close),
        }

    def _address(self, kind: type, function: Callable[..., int]) -> int:
        callback = kind(function)
        self.kept.append(callback)
        return ctypes.cast(callback, ctypes.c_void_p).value or 0

    def open(self, vfs: int, name: bytes | None, file: "ctypes._Pointer[_File]", flags: int, out: int) -> int:
        code: int = _OPEN(self.real.open)(vfs, name, file, flags, out)
        if code == OK and name and file.contents.methods:
            real = file.contents.methods.contents
            noted = _Methods.from_buffer_copy(real)
            for method, address in self.hooks.items():
                setattr(noted, method, address)
            self.kept.append(noted)
            file.contents.methods = ctypes.pointer(noted)
            self.files[ctypes.addressof(file.contents)] = (name.decode(), real)
        return code

    def delete(self, vfs: int, name: bytes, sync_folder: int) -> int:
        self.journal.append(Delete(name.decode()))
        code: int = _DELETE(self.real.delete)(vfs, name, sync_folder)
        return code

    def write(self, file: int, data: int, size: int, offset: int) -> int:
        name, real = self.files[file]
        self.journal.append(Write(name, offset, ctypes.string_at(data, size)))
        code: int = _WRITE(real.write)(file, data, size, offset)
        return code

    def truncate(self, file: int, size: int) -> int:
        name, real = self.files[file]
        self.journal.append(Truncate(name, size))
        code: int = _TRUNCATE(real.truncate)(file, size)
        return code

    def sync(self, file: int, flags: int) -> int:
        """Noted when it is done: until then nothing is sure."""
        name, real = self.files[file]
        code: int = _SYNC(real.sync)(file, flags)
        self.journal.append(Sync(name))
        return code

    def close(self, file: int) -> int:
        _, real = self.files.pop(file)
        code: int = _CLOSE(real.close)(file)
        return code


@contextmanager
def noting() -> Iterator[Journal]:
    """What SQLite does to files from here on, in one order for all threads."""
    library = ctypes.CDLL(_sqlite3.__file__)
    if not hasattr(library, "sqlite3_vfs_register"):
        missing("this Python keeps SQLite's functions to itself")
    library.sqlite3_vfs_find.restype = ctypes.POINTER(_Vfs)
    journal: Journal = []
    hooks = _Noting(journal, library.sqlite3_vfs_find(None).contents)
    library.sqlite3_vfs_register(ctypes.byref(hooks.vfs), 1)
    try:
        yield journal
    finally:
        library.sqlite3_vfs_unregister(ctypes.byref(hooks.vfs))


class Disk:
    """What is on disk after a power cut: files by name."""

    def __init__(self) -> None:
        self.files: dict[str, bytearray] = {}

    def do(self, event: Event) -> None:
        match event:
            case Write(file, offset, data):
                content = self.files.setdefault(file, bytearray())
                content.extend(bytes(max(0, offset + len(data) - len(content))))
                content[offset : offset + len(data)] = data
            case Truncate(file, size):
                content = self.files.setdefault(file, bytearray())
                del content[size:]
            case Delete(file):
                self.files.pop(file, None)

    def put(self, folder: Path) -> None:
        folder.mkdir()
        for name, content in self.files.items():
            (folder / Path(name).name).write_bytes(content)


def cut(journal: Sequence[Event], at: int, chance: random.Random) -> Disk:
    """The disk, when the power goes after `at` events: what was synced is there, of the rest anything."""
    sure = _sure(journal[:at])
    keep = chance.choice([0.0, 0.0, 0.3, 0.7, 1.0])  # often nothing at all of it
    disk = Disk()
    for index, event in enumerate(journal[:at]):
        if isinstance(event, Said | Sync):
            continue
        if index < sure["" if isinstance(event, Delete) else event.file]:
            disk.do(event)
        elif isinstance(event, Write):
            for part in torn(event, chance):
                if chance.random() < keep:
                    disk.do(part)
        elif chance.random() < keep:
            disk.do(event)
    return disk


def _sure(journal: Sequence[Event]) -> dict[str, int]:
    """By file, the last event that made sure what was done to it before; "" is the folder, for deletions.

    SQLite syncs the folder with the first sync of each log it makes there.
    """
    sure: dict[str, int] = defaultdict(lambda: -1)
    logs: set[str] = set()
    for index, event in enumerate(journal):
        if isinstance(event, Sync):
            sure[event.file] = index
            if event.file.endswith(("-wal", "-journal")) and event.file not in logs:
                sure[""] = index
                logs.add(event.file)
        elif isinstance(event, Delete):
            logs.discard(event.file)
    return sure


def torn(write: Write, chance: random.Random) -> list[Write]:
    """Its sectors, in any order; the boundaries are the disk's, not the write's."""
    parts = []
    start = 0
    while start < len(write.data):
        size = SECTOR - (write.offset + start) % SECTOR
        parts.append(Write(write.file, write.offset + start, write.data[start : start + size]))
        start += size
    chance.shuffle(parts)
    return parts
