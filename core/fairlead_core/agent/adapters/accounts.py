"""Accounts of this machine, and what they can reach."""

import os
import pwd
from dataclasses import dataclass
from pathlib import Path

from fairlead_core.agent.decisions import users
from fairlead_core.agent.keeper.protocol import AS_KEEPER
from fairlead_core.agent.settings import AgentSettings
from fairlead_daemon.errors import BadSettings, Refused

SEARCH = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """`uid` AS_KEEPER: the agent's own, nothing is switched."""

    name: str
    uid: int = AS_KEEPER
    gid: int = AS_KEEPER

    def switch(self) -> dict[str, object]:
        """Arguments for subprocess, supplementary groups dropped."""
        if self.uid == AS_KEEPER:
            return {}
        return {"user": self.uid, "group": self.gid, "extra_groups": ()}


class Accounts:
    def __init__(self, settings: AgentSettings) -> None:
        self.agent = users.Agent(
            own_name=_name(os.geteuid()),
            is_root=os.geteuid() == 0,
            sudo_user=os.environ.get("SUDO_USER", ""),
            task_user=settings.task_user,
            allow_root_tasks=settings.allow_root_tasks,
        )

    def choose(self, *, command_user: str, framework_user: str) -> Account:
        """Raises Refused with the reason, also when there is no such user or it is root by another name."""
        return self._account(users.choose(self.agent, command_user=command_user, framework_user=framework_user))

    def _account(self, name: str) -> Account:
        if not self.agent.is_root:
            return Account(name=name)
        try:
            entry = pwd.getpwnam(name)
        except (KeyError, ValueError) as error:
            raise Refused(f"user {name!r} does not exist on this machine") from error
        if entry.pw_uid == 0 and not self.agent.allow_root_tasks:
            raise Refused(f"user {name!r} is root, and {users.NO_ROOT}")
        return Account(name=name, uid=entry.pw_uid, gid=entry.pw_gid)

    def check(self, folder: Path) -> Account:
        """At start: the default user exists and reaches the folder. Raises BadSettings naming the key."""
        name = users.default_user(self.agent)
        try:
            account = self._account(name)
        except Refused as error:
            raise BadSettings(f"task_user: {error}") from error
        if barrier := unreachable(folder, account):
            raise BadSettings(f"data_dir: {folder}: {barrier}; choose another, or another task_user")
        return account


def _name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def unreachable(folder: Path, account: Account) -> str:
    """Which of the folders on the way keeps the user out, in words; "" when none does."""
    if account.uid in {AS_KEEPER, 0}:
        return ""
    for part in (*reversed(folder.parents), folder):
        try:
            status = part.stat()
        except OSError as error:
            return f"{part}: {error.strerror}"
        if not _may_search(status, account):
            return f"user {account.name} cannot enter {part} (mode {status.st_mode & 0o7777:o})"
    return ""


def _may_search(status: os.stat_result, account: Account) -> bool:
    shift = 6 if status.st_uid == account.uid else 3 if status.st_gid == account.gid else 0
    return bool(status.st_mode >> shift & SEARCH)
