"""A task's identity in its sandbox: a folder of ours that it can read, files of mode 0600 that are its own.

The sandbox is the task's: it may rename the folder and plant a link there. So nothing is opened through a link, and a
folder that is not ours is never written to.
"""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from fairlead_core.agent.adapters.accounts import Account
from fairlead_core.agent.decisions.identities import CERTIFICATE, FOLDER, KEY, ROOTS, WHOLE, Had
from fairlead_core.agent.keeper.protocol import AS_KEEPER
from fairlead_daemon.errors import Refused
from fairlead_discovery.adapters import x509
from fairlead_discovery.identities import Answer

LIMIT_BYTES = 256 * 1024
_OPEN_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def keep(sandbox: Path, account: Account, key: str, answer: Answer) -> Had:
    """Each file is replaced at once: the old one or the new one. Raises Refused."""
    with _folder(sandbox, make=True) as folder:
        _replace(folder, ROOTS, answer.bundle, account)
        _replace(folder, KEY, key, account)
        _replace(folder, CERTIFICATE, answer.chain, account)
        _replace(folder, WHOLE, answer.chain + key, account)
    return _had(answer.chain, answer.bundle)


def keep_roots(sandbox: Path, account: Account, bundle: str) -> None:
    """Raises Refused."""
    with _folder(sandbox, make=False) as folder:
        _replace(folder, ROOTS, bundle, account)


def found(sandbox: Path) -> Had | None:
    """What an agent before us left; None when it is none, or only half of one."""
    try:
        with _folder(sandbox, make=False) as folder:
            whole, bundle = _read(folder, WHOLE), _read(folder, ROOTS)
        chain = x509.joined(x509.split(whole))
        return _had(chain, bundle) if x509.fits(chain, whole) else None
    except Refused:
        return None


def remove(sandbox: Path) -> None:
    """A key without a task is of use to nobody else."""
    with suppress(Refused, OSError), _folder(sandbox, make=False) as folder:
        for name in os.listdir(folder):  # noqa: PTH208  # of an open folder, which no Path names
            os.unlink(name, dir_fd=folder)
        with _opened(sandbox) as above:
            os.rmdir(FOLDER, dir_fd=above)


def _had(chain: str, bundle: str) -> Had:
    seen = x509.seen(chain)
    return Had(not_before_s=seen.not_before_s, not_after_s=seen.not_after_s, chain=chain, bundle=bundle)


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    handle = os.open(path, _OPEN_FOLDER)
    try:
        yield handle
    finally:
        os.close(handle)


@contextmanager
def _folder(sandbox: Path, *, make: bool) -> Iterator[int]:
    """Raises Refused: for whatever goes wrong in it, too."""
    try:
        with _opened(sandbox) as above:
            if make:
                with suppress(FileExistsError):
                    os.mkdir(FOLDER, mode=0o755, dir_fd=above)
            handle = os.open(FOLDER, _OPEN_FOLDER, dir_fd=above)
        try:
            if os.fstat(handle).st_uid != os.geteuid():
                raise Refused(f"{sandbox / FOLDER}: the task has put another folder there")
            if make:
                os.fchmod(handle, 0o755)
            yield handle
        finally:
            os.close(handle)
    except (OSError, UnicodeDecodeError) as error:
        raise Refused(f"{sandbox / FOLDER}: {getattr(error, 'strerror', None) or error}") from error


def _replace(folder: int, name: str, text: str, account: Account) -> None:
    beside = f".{name}.{secrets.token_hex(8)}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    handle = os.open(beside, flags, 0o600, dir_fd=folder)
    try:
        try:
            os.write(handle, text.encode("ascii"))
            os.fchmod(handle, 0o600)
            if account.uid != AS_KEEPER:
                os.fchown(handle, account.uid, account.gid)
            os.fsync(handle)
        finally:
            os.close(handle)
        os.rename(beside, name, src_dir_fd=folder, dst_dir_fd=folder)
    except BaseException:
        with suppress(OSError):
            os.unlink(beside, dir_fd=folder)
        raise


def _read(folder: int, name: str) -> str:
    """The file may be the task's own work: any size, any kind."""
    handle = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
    try:
        return os.read(handle, LIMIT_BYTES).decode("ascii")
    finally:
        os.close(handle)
