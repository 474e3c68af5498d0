"""Which tasks want a certificate, when it is renewed, and what a task is told of it."""

import enum
from collections.abc import Mapping
from dataclasses import dataclass

from fairlead_daemon.errors import Refused
from fairlead_discovery.decisions import label_names
from fairlead_discovery.decisions.identity import renew_at_s

FOLDER = "identity"
"""Below the sandbox."""
WHOLE, KEY, CERTIFICATE, ROOTS = "identity.pem", "key.pem", "cert.pem", "bundle.pem"
"""The first holds certificate and key in one, so that a renewal never shows half of it."""
VARIABLES = {
    "FAIRLEAD_IDENTITY_FILE": WHOLE,
    "FAIRLEAD_IDENTITY_KEY": KEY,
    "FAIRLEAD_IDENTITY_CERT": CERTIFICATE,
    "FAIRLEAD_IDENTITY_ROOTS": ROOTS,
}


class Wish(enum.Enum):
    """OPTIONAL: the task starts without one, and finds it as soon as there is one."""

    NONE = "false"
    OPTIONAL = "optional"
    NEEDED = "true"


def wish(labels: Mapping[str, str], setting: str) -> Wish:
    """Of a task on an agent whose setting is `asked`, `all` or `off`. Raises Refused."""
    said = labels.get(label_names.IDENTITY)
    try:
        found = Wish(said.strip().lower()) if said is not None else Wish.OPTIONAL if setting == "all" else Wish.NONE
    except ValueError as error:
        raise Refused(f"label {label_names.IDENTITY}: {str(said)[:40]!r}: expected true, optional or false") from error
    if setting == "off" and found is Wish.NEEDED:
        raise Refused(f"label {label_names.IDENTITY}: this agent gives no identities (setting identities)")
    return found if setting != "off" else Wish.NONE


def environment(sandbox: str, *, mesh: str, mesh_tcp: str) -> dict[str, str]:
    files = {name: f"{sandbox}/{FOLDER}/{file}" for name, file in VARIABLES.items()}
    ways = {"FAIRLEAD_MESH": mesh, "FAIRLEAD_MESH_TCP": mesh_tcp}
    return {**files, **{name: value for name, value in ways.items() if value}}


@dataclass(frozen=True, slots=True, kw_only=True)
class Had:
    """A certificate a task has; `chain` and `bundle` PEM."""

    not_before_s: float
    not_after_s: float
    chain: str
    bundle: str


def due(had: Had | None, now_s: float) -> bool:
    return had is None or now_s >= renew_at_s(had.not_before_s, had.not_after_s)
