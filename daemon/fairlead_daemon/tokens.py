"""The token: a file of mode 0600 that fairlead makes and reads by itself."""

import os
import secrets
from collections.abc import Iterable
from pathlib import Path

from fairlead_daemon.errors import BadSettings
from fairlead_daemon.files import replace_file
from fairlead_daemon.settings import DaemonSettings

LOGIN_SHELLS_END = ("sh",)  # bash, zsh, dash, fish, ksh … nologin, false and sync do not
FIRST_HUMAN_UID = 1000


def token_path(settings: DaemonSettings) -> Path:
    return Path(settings.token_file) if settings.token_file else Path(settings.data_dir) / "token"


def wanted(settings: DaemonSettings, *, passwd: str, own_uid: int) -> bool:
    """`passwd` is the text of /etc/passwd; pure, so that it can be tested."""
    if settings.token != "auto":  # noqa: S105  # a mode, not a secret
        return settings.token == "on"  # noqa: S105  # see above
    return any(True for _ in _other_logins(passwd, own_uid))


def _other_logins(passwd: str, own_uid: int) -> Iterable[str]:
    for line in passwd.splitlines():
        fields = line.split(":")
        if len(fields) >= 7 and fields[6].endswith(LOGIN_SHELLS_END) and fields[2].isdigit():
            uid = int(fields[2])
            if uid != own_uid and uid >= FIRST_HUMAN_UID:
                yield fields[0]


def ensure_token(settings: DaemonSettings) -> str:
    """The token every HTTP write must carry, made at the first call; "" when there is none."""
    if not wanted(
        settings, passwd=Path("/etc/passwd").read_text(encoding="utf-8", errors="replace"), own_uid=os.getuid()
    ):
        return ""
    path = token_path(settings)
    if not path.exists():
        replace_file(path, secrets.token_urlsafe(24).encode() + b"\n", mode=0o600)
    return read_token(path)


def read_token(path: Path) -> str:
    """The token, or nothing when there is no file. Raises BadSettings when others could read it."""
    try:
        status = path.stat()
        if status.st_mode & 0o077:
            raise BadSettings(f"token_file: {path} may be read by others; chmod 600 it")
        return path.read_text(encoding="ascii").strip()
    except FileNotFoundError:
        return ""
    except PermissionError:
        return ""
