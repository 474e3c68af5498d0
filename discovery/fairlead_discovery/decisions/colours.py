"""marathon-lb's deployment labels: apps that are one service to balancers while one version replaces the other.

HAPROXY_DEPLOYMENT_GROUP=web   HAPROXY_DEPLOYMENT_COLOUR=green   HAPROXY_DEPLOYMENT_STARTED_AT=2026-11-20T10:00:00
HAPROXY_DEPLOYMENT_TARGET_INSTANCES=4   HAPROXY_DEPLOYMENT_NEW_INSTANCES=0   HAPROXY_DEPLOYMENT_ALT_PORT=10101
"""

import re
from collections.abc import Collection, Mapping, Sequence

from fairlead_discovery.decisions.words import BadLabel, shown, whole
from fairlead_discovery.records import Colour

HEAD = "HAPROXY_DEPLOYMENT_"
GROUP = f"{HEAD}GROUP"
ALT_PORT = f"{HEAD}ALT_PORT"
COLOUR = f"{HEAD}COLOUR"
STARTED_AT = f"{HEAD}STARTED_AT"
TARGET = f"{HEAD}TARGET_INSTANCES"
NEW = f"{HEAD}NEW_INSTANCES"
APP_ID = "HAPROXY_APP_ID"
_SEGMENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}", re.ASCII)
_MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d(?::\d\d(?:\.\d{1,9})?)?(?:Z|[+-]\d\d:?\d\d)?", re.ASCII)
_WORD = re.compile(r"[A-Za-z0-9_-]{1,32}", re.ASCII)


def of_labels(app_id: str, labels: Mapping[str, str], *, scaled_at: str = "") -> Colour | None:
    """None without a group. Raises BadLabel, its text beginning with the label."""
    if GROUP not in labels:
        return None
    text = labels[GROUP]
    return Colour(
        group=_group(app_id, text),
        backend=f"/{text.strip('/')}",
        name=_matching(labels, COLOUR, _WORD, "is no word"),
        started_at=_matching(labels, STARTED_AT, _MOMENT, "is no time, as 2026-11-20T10:00:00"),
        scaled_at=scaled_at,
        target=max(1, _number(labels, TARGET)),
        new=_number(labels, NEW),
    )


def _group(app_id: str, text: str) -> str:
    """Only apps that stand side by side can be one service: nobody joins another's group from elsewhere."""
    parent = app_id.rstrip("/").rpartition("/")[0]
    folder, _, name = text.strip("/").rpartition("/")
    if not _SEGMENT.fullmatch(name):
        raise BadLabel(f"{GROUP}: {shown(text)} is no name")
    if folder and f"/{folder}" != parent:
        raise BadLabel(f"{GROUP}: {shown(text)} is not beside {app_id}: a group's apps have one parent with it")
    return f"{parent}/{name}"


def _matching(labels: Mapping[str, str], label: str, form: re.Pattern[str], why: str) -> str:
    text = labels.get(label, "").strip()
    if text and not form.fullmatch(text):
        raise BadLabel(f"{label}: {shown(text)} {why}")
    return text


def _number(labels: Mapping[str, str], label: str) -> int:
    try:
        return whole(labels.get(label, "0"))
    except BadLabel as error:
        raise BadLabel(f"{label}: {error}") from None


def in_order(colours: Mapping[str, Colour]) -> Sequence[str]:
    """By whatever they are known by, the newest last. Where both colours stay, who was scaled last counts as newer:
    so marathon-lb's zdd.py goes back to the one before (`--complete-prev`).
    """
    both_stay = any(c.new for c in colours.values())
    return sorted(colours, key=lambda k: ((colours[k].scaled_at if both_stay else ""), colours[k].started_at, k))


def drained(old: Collection[str], new_count: int, target: int) -> Sequence[str]:
    """Of the older colours' tasks, those that get no requests any more: one for each new one, and only what is more
    than the target. Always the same ones, by their ids.
    """
    many = min(len(old), new_count, max(0, new_count + len(old) - target))
    return sorted(old)[:many]
