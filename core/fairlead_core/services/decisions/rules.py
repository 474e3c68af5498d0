"""The rules a well-formed app keeps: one generator a field, each problem with the field's path."""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence

from fairlead_core.services.decisions import naming
from fairlead_core.services.decisions.app import App, HealthCheck
from fairlead_core.services.decisions.bounds import number_problems, text_problems
from fairlead_core.services.decisions.problems import Problem
from fairlead_discovery.decisions import label_names

OPERATORS = ("UNIQUE", "CLUSTER", "GROUP_BY", "LIKE", "UNLIKE", "MAX_PER", "IS")
IS_VALUE = re.compile(r"^[a-zA-Z0-9_/.-]*$")
SINGLE_INSTANCE = "MARATHON_SINGLE_INSTANCE_APP"
DRAIN_MOST_S = 3600
DNS_TTL_MOST_S = 3600
PORT_PROTOCOLS = frozenset({"tcp", "udp", "udp,tcp", "tcp,udp"})
CONSTRAINT_MOST = 1000
"""Characters of a constraint's value."""


def check(app: App, *, role: str, largest_ttl_s: int) -> Iterator[Problem]:
    """Every problem of an app whose types are right."""
    for rule in RULES:
        yield from rule(app)
    yield from _roles(app, role)
    yield from _drain_seconds(app, largest_ttl_s)


def id_problems(app_id: str, path: str) -> Iterator[Problem]:
    """Why this is no app id, in Marathon's words."""
    if not app_id.startswith("/"):
        yield Problem(path=path, error="Path needs to be absolute")
        return
    parts = app_id.split("/")[1:]
    if parts == [""]:
        yield Problem(path=path, error="must not be root")
        return
    if not all(naming.SEGMENT.match(part) for part in parts):
        yield Problem(path=path, error=f"must fully match regular expression '{naming.SEGMENT.pattern}'")
    elif parts[-1] in naming.RESERVED_LAST:
        yield Problem(
            path=path, error="must not end with any of the following reserved words: restart, tasks, versions, ., .."
        )
    elif len(app_id) > naming.APP_ID_LIMIT:
        yield Problem(path=path, error=f"must not be longer than {naming.APP_ID_LIMIT} characters")


def _id(app: App) -> Iterator[Problem]:
    yield from id_problems(app.id, "/id")
    for position, other in enumerate(app.dependencies):
        yield from id_problems(other, f"/dependencies({position})")
        if other == app.id:
            yield Problem(path=f"/dependencies({position})", error="must not depend on itself")


def _command(app: App) -> Iterator[Problem]:
    if (app.cmd is not None) == bool(app.args):
        yield Problem(path="/", error="AppDefinition must either contain one of 'cmd' or 'args', and/or a 'container'.")
    elif app.cmd is not None and not app.cmd.strip():
        yield Problem(path="/cmd", error="must not be an empty string")
    for path, text in (("/cmd", app.cmd or ""), *((f"/args({i})", a) for i, a in enumerate(app.args or ()))):
        if "\x00" in text:
            yield Problem(path=path, error="must not contain NUL")
    if app.user is not None and not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*\$?", app.user):
        yield Problem(path="/user", error="must be a user name")
    if app.executor not in {"", "//cmd"}:
        yield Problem(path="/executor", error="custom executors are not supported by this server")


def _resources(app: App) -> Iterator[Problem]:
    if app.gpus:
        yield Problem(path="/gpus", error="GPUs are not supported by this server")
    if app.labels.get(SINGLE_INSTANCE) == "true" and app.instances > 1:
        yield Problem(path="/instances", error=f"must be at most 1 for an app labelled {SINGLE_INSTANCE}")


def _strategies(app: App) -> Iterator[Problem]:
    strategy = app.upgrade_strategy
    shares = (
        ("minimumHealthCapacity", strategy.minimum_health_capacity),
        ("maximumOverCapacity", strategy.maximum_over_capacity),
    )
    single = app.labels.get(SINGLE_INSTANCE) == "true"
    for name, share in shares:
        if not 0 <= share <= 1:
            yield Problem(path=f"/upgradeStrategy/{name}", error=f"got {share:g}, expected between 0.0 and 1.0")
        elif single and share != 0:
            yield Problem(
                path=f"/upgradeStrategy/{name}", error=f"got {share:g}, expected 0.0 for a single-instance app"
            )
    patience = app.unreachable_strategy
    if patience != "disabled" and patience.expunge_after_seconds < patience.inactive_after_seconds:
        yield Problem(
            path="/unreachableStrategy/expungeAfterSeconds", error="must not be less than inactiveAfterSeconds"
        )


def _ports(app: App) -> Iterator[Problem]:
    for position, port in enumerate(app.port_definitions):
        where = f"/portDefinitions({position})"
        if not 0 <= port.port <= 65535:
            yield Problem(path=f"{where}/port", error="must be between 0 and 65535")
        if port.protocol not in PORT_PROTOCOLS:
            yield Problem(path=f"{where}/protocol", error="must be one of tcp, udp, udp,tcp")
        if port.name is not None and not re.fullmatch(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?", port.name):
            yield Problem(
                path=f"{where}/name", error="must fully match regular expression '^[a-z0-9]([a-z0-9-]*[a-z0-9])?$'"
            )
    if _repeat([p.port for p in app.port_definitions if p.port]):
        yield Problem(path="/portDefinitions", error="Ports must be unique.")
    if _repeat([p.name for p in app.port_definitions if p.name]):
        yield Problem(path="/portDefinitions", error="Port names must be unique.")
    for position, network in enumerate(app.networks):
        if network.mode != "host":
            yield Problem(path=f"/networks({position})/mode", error="only host networking is supported by this server")


def _repeat(items: Sequence[object]) -> bool:
    return len(set(items)) < len(items)


def _health(app: App) -> Iterator[Problem]:
    for position, one in enumerate(app.health_checks):
        where = f"/healthChecks({position})"
        if position > 0:
            yield Problem(
                path=where, error="AppDefinition can contain at most one health check: the agent runs one a task"
            )
        yield from _one_check(app, one, where)


def _one_check(app: App, one: HealthCheck, where: str) -> Iterator[Problem]:
    if one.kind == "COMMAND":
        if one.command is None or not one.command.value.strip():
            yield Problem(path=f"{where}/command", error="must be given for protocol COMMAND")
        return
    if one.path is not None and one.kind == "TCP":
        yield Problem(path=f"{where}/path", error="must not be given for protocol TCP")
    elif one.path is not None and not re.fullmatch(r"/[\x21-\x7e]*", one.path):
        yield Problem(path=f"{where}/path", error="must start with / and hold no blanks or control characters")
    yield from _check_port(app, one, where)


def _check_port(app: App, one: HealthCheck, where: str) -> Iterator[Problem]:
    wrong = "Health check port indices must address an element of the ports array or container port mappings."
    if one.port is not None and not 1 <= one.port <= 65535:
        yield Problem(path=f"{where}/port", error="must be between 1 and 65535")
    elif one.port is None and one.port_index is not None and not 0 <= one.port_index < len(app.port_definitions):
        yield Problem(path=f"{where}/portIndex", error=wrong)
    elif one.port is None and one.port_index is None and not app.port_definitions:
        yield Problem(path=where, error=wrong)


def _constraints(app: App) -> Iterator[Problem]:
    for position, one in enumerate(app.constraints):
        why = _constraint_problem(one)
        if why:
            yield Problem(path=f"/constraints({position})", error=why)


def _constraint_problem(one: tuple[str, ...]) -> str:
    if not 2 <= len(one) <= 3 or not one[0]:
        return "Each constraint must have either 2 or 3 fields"
    operator, value = one[1], one[2] if len(one) == 3 else None
    if any(len(part) > CONSTRAINT_MOST for part in one):
        return f"must not be longer than {CONSTRAINT_MOST} characters"
    if operator not in OPERATORS:
        return f"Operator must be one of {', '.join(OPERATORS)}"
    return _VALUE_RULES[operator](value)


def _is_regex(value: str) -> bool:
    try:
        re.compile(value)
    except (re.error, OverflowError, RecursionError):  # the latter two of `a{99999999999}` and of a thousand brackets
        return False
    return True


def _is_count(value: str) -> bool:
    """Beyond six digits it says nothing about instances; `isdigit` alone takes `²`, which is no number to int()."""
    return value.isascii() and value.isdigit() and len(value) <= 6


_VALUE_RULES: dict[str, Callable[[str | None], str]] = {
    "UNIQUE": lambda v: "Value specified but not used" if v else "",
    "CLUSTER": lambda _v: "",
    "GROUP_BY": lambda v: "" if not v or _is_count(v) else f"Value was specified but is not a number: '{v}'",
    "MAX_PER": lambda v: "" if v and _is_count(v) else f"Value was specified but is not a number: '{v or ''}'",
    "LIKE": lambda v: "" if v and _is_regex(v) else "A regular expression value must be provided",
    "UNLIKE": lambda v: "" if v and _is_regex(v) else "A regular expression value must be provided",
    "IS": lambda v: (
        "" if v is not None and IS_VALUE.match(v) else "IS only supports text made of letters, digits and _/.-"
    ),
}


def _fetch(app: App) -> Iterator[Problem]:
    for position, one in enumerate(app.fetch):
        local = one.uri.startswith(("/", "file:///"))
        if not 1 <= len(one.uri) <= 1024:
            yield Problem(path=f"/fetch({position})/uri", error="must have between 1 and 1024 characters")
        elif not local:
            yield Problem(
                path=f"/fetch({position})/uri", error="only file paths and file:// are supported by this server"
            )
        if one.dest_path is not None and (one.dest_path.startswith("/") or ".." in one.dest_path.split("/")):
            yield Problem(path=f"/fetch({position})/destPath", error="must stay within the sandbox")


def _roles(app: App, role: str) -> Iterator[Problem]:
    if app.role not in {None, role}:
        yield Problem(path="/role", error=f"must be {role!r}, the role this server is registered with")
    accepted = app.accepted_resource_roles
    if accepted is not None and (not accepted or not set(accepted) <= {"*", role}):
        yield Problem(path="/acceptedResourceRoles", error=f"must name '*' or {role!r}")


def _drain_seconds(app: App, largest_ttl_s: int) -> Iterator[Problem]:
    text = app.labels.get(label_names.DRAIN_SECONDS)
    if text is None:
        return
    path = f"/labels/{label_names.DRAIN_SECONDS}"
    if not re.fullmatch(r"[0-9]{1,5}", text) or int(text) > DRAIN_MOST_S:
        yield Problem(path=path, error=f"must be whole seconds, at most {DRAIN_MOST_S}")
    elif int(text) < largest_ttl_s:
        yield Problem(
            path=path,
            error=f"must be at least {largest_ttl_s}: name servers give out this TTL, so clients may go on"
            " asking a killed instance for as long",
        )


def _dns_ttl(app: App) -> Iterator[Problem]:
    text = app.labels.get(label_names.DNS_TTL)
    if text is not None and (not re.fullmatch(r"[0-9]{1,5}", text) or int(text) > DNS_TTL_MOST_S):
        yield Problem(path=f"/labels/{label_names.DNS_TTL}", error=f"must be whole seconds, at most {DNS_TTL_MOST_S}")


Rule = Callable[[App], Iterable[Problem]]
RULES: Sequence[Rule] = (
    _id,
    _command,
    number_problems,
    text_problems,
    _resources,
    _strategies,
    _ports,
    _health,
    _constraints,
    _fetch,
    _dns_ttl,
)
