"""As whom a task runs. Never as root unless the agent was told so."""

from dataclasses import dataclass

from fairlead_daemon.errors import Refused

ROOT = "root"
LAST_RESORT = "nobody"
NO_ROOT = "this agent runs no task as root (setting allow_root_tasks)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Agent:
    """Who the agent is and what it was told. `sudo_user` is the environment's SUDO_USER, "" without."""

    own_name: str
    is_root: bool
    sudo_user: str = ""
    task_user: str = ""
    allow_root_tasks: bool = False


def default_user(agent: Agent) -> str:
    """For tasks that name no user, or root when that is not allowed."""
    if not agent.is_root:
        return agent.own_name
    chosen = agent.task_user or agent.sudo_user
    return chosen if chosen not in {"", ROOT} or (chosen == ROOT and agent.allow_root_tasks) else LAST_RESORT


def choose(agent: Agent, *, command_user: str, framework_user: str) -> str:
    """The account's name. Raises Refused when the task wants what this agent cannot give.

    A framework's user is a wish (drivers send whoever runs them), a command's user is a demand.
    """
    if not agent.is_root:
        if command_user not in {"", agent.own_name}:
            raise Refused(f"user {command_user!r}: this agent is not root and runs tasks as {agent.own_name!r} only")
        return agent.own_name
    if command_user == ROOT and not agent.allow_root_tasks:
        raise Refused(f"user {ROOT!r}: {NO_ROOT}")
    wanted = command_user or framework_user
    if wanted == ROOT:
        return ROOT if agent.allow_root_tasks else default_user(agent)
    return wanted or default_user(agent)


def warning(agent: Agent, *, command_user: str, framework_user: str) -> str:
    """What the framework is to know when its own user is not taken; "" when it is, or a command names another."""
    if command_user or framework_user in {"", agent.own_name if not agent.is_root else ""}:
        return ""
    if not agent.is_root:
        return f"framework user {framework_user!r}: this agent is not root; the task runs as {agent.own_name!r}"
    if framework_user != ROOT or agent.allow_root_tasks:
        return ""
    return f"framework user {ROOT!r}: {NO_ROOT}; the task runs as {default_user(agent)!r}"
