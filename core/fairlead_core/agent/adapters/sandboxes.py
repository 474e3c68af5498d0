"""Sandboxes: a folder a task, owned by its user; files fetched as that user, logs kept small, files read safely.

A task may plant links in its sandbox: whatever the agent opens there it opens without following any.
"""

import asyncio
import os
import shutil
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from fairlead_core.agent.adapters.accounts import Account
from fairlead_core.agent.decisions.fetching import steps
from fairlead_core.agent.decisions.tasks import SAFE_PATH, Uri
from fairlead_core.agent.keeper.protocol import AS_KEEPER
from fairlead_daemon.errors import Refused

FETCH_LIMIT_S = 120.0
SANDBOX_MODE = 0o750
_COPY_BYTES = 1 << 20


class Sandboxes:
    def __init__(self, folder: Path) -> None:
        self.root = folder / "sandboxes"

    def prepare(self) -> None:
        self.root.mkdir(parents=True, exist_ok=True)
        self.root.chmod(0o755)

    def path(self, framework_id: str, task_id: str) -> Path:
        return self.root / framework_id / task_id

    def make(self, path: Path, account: Account) -> None:
        """Raises Refused with the reason. One that is there (a launch taken up again) is used as it is."""
        try:
            path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            path.parent.chmod(0o755)
            path.mkdir(mode=SANDBOX_MODE, exist_ok=True)
            if account.uid != AS_KEEPER:
                os.chown(path, account.uid, account.gid, follow_symlinks=False)
        except OSError as error:
            raise Refused(f"cannot make the sandbox {path}: {error.strerror}") from error

    def set_aside(self, path: Path) -> None:
        """An earlier task of the same id had it: its files stay beside, under `<id>~<n>`."""
        with suppress(FileNotFoundError):
            number = sum(1 for _ in path.parent.glob(f"{path.name}~*")) + 1
            path.rename(path.with_name(f"{path.name}~{number}"))

    def mark_ended(self, path: Path) -> None:
        """Its age counts from now."""
        with suppress(OSError):
            os.utime(path, follow_symlinks=False)

    def collect(self, keep_s: float, in_use: frozenset[str]) -> int:
        """Removes sandboxes that nobody uses and whose tasks ended `keep_s` ago; returns how many."""
        limit = time.time() - keep_s
        removed = 0
        for path in [p for f in self.root.iterdir() if f.is_dir() for p in f.iterdir()]:
            with suppress(OSError):
                if str(path) not in in_use and path.lstat().st_mtime < limit:
                    shutil.rmtree(path)
                    removed += 1
        return removed


async def fetch(uri: Uri, sandbox: Path, account: Account) -> None:
    """Copies one file in, as the task's user: what that user may not read is not read. Raises Refused."""
    for argv in steps(uri):
        await _run_as(account, argv, sandbox, what=f"uri {uri.value!r}")


async def _run_as(account: Account, argv: tuple[str, ...], folder: Path, *, what: str) -> None:
    process = await asyncio.create_subprocess_exec(
        *argv,
        cwd=folder,
        env={"PATH": SAFE_PATH, "LC_ALL": "C"},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        **account.switch(),  # type: ignore[arg-type]  # the stubs want each keyword by itself
    )
    try:
        async with asyncio.timeout(FETCH_LIMIT_S):
            _, errors = await process.communicate()
    except TimeoutError as error:
        raise Refused(f"{what}: {argv[0]} took longer than {FETCH_LIMIT_S:.0f} s") from error
    finally:
        if process.returncode is None:
            process.kill()
    if process.returncode:
        text = errors.decode(errors="replace").strip().splitlines()
        raise Refused(
            f"{what}: {text[-1] if text else f'{argv[0]} ended with {process.returncode}'} (as {account.name})"
        )


# --- logs --------------------------------------------------------------------------------------------------------


def trim_logs(sandbox: Path, limit_bytes: int) -> None:
    """Moves what a task wrote beyond the limit to `<log>.1`. Its writing goes on in the same file, at its new end."""
    with suppress(OSError), _folder(sandbox) as folder:
        for name in ("stdout", "stderr"):
            _trim(folder, name, limit_bytes)


def _trim(folder: int, name: str, limit_bytes: int) -> None:
    with suppress(FileNotFoundError):
        source = os.open(name, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
        try:
            status = os.fstat(source)
            if stat.S_ISREG(status.st_mode) and status.st_nlink == 1 and status.st_size > limit_bytes:
                _copy_end(folder, source, f"{name}.1", limit_bytes)
                os.ftruncate(source, 0)
        finally:
            os.close(source)


def _copy_end(folder: int, source: int, name: str, limit_bytes: int) -> None:
    with suppress(FileNotFoundError):
        os.unlink(name, dir_fd=folder)
    status = os.fstat(source)
    target = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o640, dir_fd=folder)
    try:
        os.fchown(target, status.st_uid, status.st_gid)
        os.lseek(source, max(0, status.st_size - limit_bytes), os.SEEK_SET)
        while data := os.read(source, _COPY_BYTES):
            os.write(target, data)
    finally:
        os.close(target)


# --- reading -----------------------------------------------------------------------------------------------------


@contextmanager
def _folder(path: Path) -> Iterator[int]:
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        yield handle
    finally:
        os.close(handle)


@contextmanager
def beneath(root: Path, relative: str) -> Iterator[int]:
    """A descriptor of `root/relative`, no link followed on the way. Raises OSError, PermissionError on `..`."""
    handle = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for part in [p for p in relative.split("/") if p not in {"", "."}]:
            if part == "..":
                raise PermissionError(f"{relative} leaves the sandboxes")
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            inner = os.open(part, flags, dir_fd=handle)
            os.close(handle)
            handle = inner
        yield handle
    finally:
        os.close(handle)
