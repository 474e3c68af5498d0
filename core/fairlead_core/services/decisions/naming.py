"""Names made of app ids, and times as Marathon writes them.

`/shop/web`: task name `web.shop`, task id `shop_web.instance-<uuid>._app.1`.
"""

import hashlib
import re
from datetime import UTC, datetime

SEGMENT = re.compile(r"^(([a-z0-9]|[a-z0-9][a-z0-9\-]*[a-z0-9])\.)*([a-z0-9]|[a-z0-9][a-z0-9\-]*[a-z0-9])$")
RESERVED_LAST = frozenset({"restart", "tasks", "versions", ".", ".."})
APP_ID_LIMIT = 180
"""Characters: a task id made of it must stay within Mesos' 255."""
_TIMESTAMP = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", re.ASCII)
_TASK_ID = re.compile(r"^(?P<app>.+)\.(?:instance|marathon)-(?P<mark>[^._]{8})?[^.]*\._app\.\d+$")


def absolute(app_id: str) -> str:
    """`shop/web`, `//shop/web/` -> `/shop/web`."""
    return "/" + "/".join(part for part in app_id.split("/") if part)


def task_name(app_id: str) -> str:
    """`/shop/web` -> `web.shop`; Mesos-DNS makes `web-shop` of it."""
    return ".".join(reversed(app_id.strip("/").split("/")))


def version_mark(version: str) -> str:
    """Eight hex digits that stand for a configuration's version at the head of an instance's uuid."""
    return hashlib.sha256(version.encode()).hexdigest()[:8]


def task_id(app_id: str, version: str, uuid: str) -> str:
    """`uuid` in its usual form; its first eight digits give way to the version's mark."""
    return f"{app_id.strip('/').replace('/', '_')}.instance-{version_mark(version)}{uuid[8:]}._app.1"


def app_of_task(task: str) -> str | None:
    """`shop_web.instance-…._app.1` -> `/shop/web`; None for an id that is not ours."""
    found = _TASK_ID.match(task)
    return "/" + found["app"].replace("_", "/") if found else None


def mark_of_task(task: str) -> str:
    """The version mark in a task id, "" when there is none."""
    found = _TASK_ID.match(task)
    return (found["mark"] or "") if found else ""


def instance_of_task(task: str) -> str:
    """`shop_web.instance-<uuid>._app.1` -> `shop_web.instance-<uuid>`."""
    return task.partition("._app.")[0]


def timestamp(now_s: float) -> str:
    """`2026-11-20T09:15:03.123Z`: sorts as text."""
    moment = datetime.fromtimestamp(round(now_s, 3), UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{moment.microsecond // 1000:03d}Z"


def is_version(text: str) -> bool:
    """Whether it is such a timestamp, of a moment that exists."""
    if not _TIMESTAMP.fullmatch(text):
        return False
    try:
        seconds(text)
    except ValueError:
        return False
    return True


def seconds(stamp: str) -> float:
    """Seconds since 1970 of a timestamp. Raises ValueError."""
    return datetime.fromisoformat(stamp).timestamp()


def next_version(now_s: float, *, after: str = "") -> str:
    """A version that sorts after `after`, also when the clock stands still or goes back."""
    stamp = timestamp(now_s)
    return stamp if stamp > after else timestamp(seconds(after) + 0.001)
