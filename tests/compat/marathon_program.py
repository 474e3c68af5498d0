"""Everything marathon-python's client can ask of an app, one after the other; run by its own virtual environment.

Any key it does not know makes its models raise TypeError, so getting through is the test. Prints what it saw.
"""

import collections
import collections.abc
import json
import logging
import sys
import time

collections.Iterable = collections.abc.Iterable  # type: ignore[attr-defined]  # 0.13 was written for Python 3.9

from marathon import MarathonClient, MarathonHttpError  # noqa: E402  # see above
from marathon.models import MarathonApp, MarathonConstraint, MarathonHealthCheck  # noqa: E402  # see above
from marathon.models.app import PortDefinition  # noqa: E402  # see above

logging.disable(logging.CRITICAL)
APP = "/py/web"
client = MarathonClient(sys.argv[1], timeout=5)
EVERYTHING = {
    f"embed_{name}": True
    for name in ("tasks", "counts", "deployments", "readiness", "last_task_failure", "failures", "task_stats")
}


def settled(count: int) -> MarathonApp:
    end = time.monotonic() + 20
    while time.monotonic() < end:
        app = client.get_app(APP, **EVERYTHING)
        if not client.list_deployments() and count == app.tasks_running == app.tasks_healthy == len(app.tasks):
            return app
        time.sleep(0.05)
    raise SystemExit(f"not settled at {count}: {app}")


def refused(what: object) -> str:
    try:
        client.create_app("/py/bad", what)
    except MarathonHttpError as error:
        return f"{error.status_code} {error.error_details}"
    return "taken"


assert client.ping() == b"pong"
made = client.create_app(
    APP,
    MarathonApp(
        cmd="sleep 100",
        cpus=0.01,
        mem=16,
        instances=2,
        labels={"team": "shop"},
        constraints=[MarathonConstraint("hostname", "UNLIKE", "nowhere")],
        port_definitions=[PortDefinition(port=0, protocol="tcp", name="http")],
        health_checks=[MarathonHealthCheck(protocol="COMMAND", command="true", interval_seconds=1)],
    ),
)
first = settled(2)
assert made.deployments, made
assert {t.id for t in first.tasks} == {t.id for t in client.list_tasks(APP)}
assert len(client.list_endpoints()) == 2
assert [a.id for a in client.list_apps(**EVERYTHING)] == [APP]
client.scale_app(APP, 3)
settled(3)
first.mem = 17
client.update_app(APP, first)
settled(2)
client.restart_app(APP)
settled(2)
versions = client.list_versions(APP)
assert client.get_version(APP, versions[0]).mem == 17
client.rollback_app(APP, versions[-1])
settled(2)
client.kill_task(APP, client.list_tasks(APP)[0].id, scale=True)
left = settled(1)
client.kill_given_tasks([t.id for t in left.tasks])
client.kill_tasks(APP)
settled(1)
client.create_app("/py/big", MarathonApp(cmd="x", cpus=1000))
queue = client.list_queue(embed_last_unused_offers=True)
client.delete_app("/py/big", force=True)
told = {
    "bad": refused(MarathonApp(cmd="x", cpus=-1)),
    "group": [a.id for a in client.get_group("/py").apps],
    "info": client.get_info().name,
    "leader": client.get_leader()["leader"],
    "mem": client.get_app(APP).mem,
    "queue": [item.app.id for item in queue],
    "versions": len(versions),
}
client.delete_app(APP)
print(json.dumps(told))
