"""A custom executor of standard library only, run by the system's python3: says what it gets, does what tasks' data say.

Task data (Base64): `finish` ends it at once, `run` keeps it until it is killed, `die` ends the executor.
"""

import base64
import http.client
import json
import os
import sys
import time
import uuid

HOST, PORT = os.environ["MESOS_AGENT_ENDPOINT"].split(":")
IDS = {
    "framework_id": {"value": os.environ["MESOS_FRAMEWORK_ID"]},
    "executor_id": {"value": os.environ["MESOS_EXECUTOR_ID"]},
}
unacknowledged = {}
launched = {}


def post(body):
    connection = http.client.HTTPConnection(HOST, int(PORT), timeout=20)
    connection.request("POST", "/api/v1/executor", json.dumps({**IDS, **body}), {"Content-Type": "application/json"})
    return connection.getresponse()


def update(task_id, state):
    status = {"task_id": {"value": task_id}, "state": state, "uuid": base64.b64encode(uuid.uuid4().bytes).decode()}
    unacknowledged[status["uuid"]] = {"status": status}
    assert post({"type": "UPDATE", "update": {"status": status}}).status == 202


def records(stream):
    while head := stream.readline():
        yield json.loads(stream.read(int(head)))


def on_launch(task):
    task_id = task["task_id"]["value"]
    assert task_id not in launched, "launched twice"
    launched[task_id] = task
    what = base64.b64decode(task.get("data", "")).decode()
    if what == "die":
        sys.exit(3)
    update(task_id, "TASK_RUNNING")
    if what == "finish":
        update(task_id, "TASK_FINISHED")


def on_event(event):
    kind = event["type"]
    print(kind, flush=True)
    if kind == "LAUNCH":
        on_launch(event["launch"]["task"])
    elif kind == "KILL":
        update(event["kill"]["task_id"]["value"], "TASK_KILLED")
    elif kind == "ACKNOWLEDGED":
        unacknowledged.pop(event["acknowledged"]["uuid"], None)
        launched.pop(event["acknowledged"]["task_id"]["value"], None)
    elif kind == "MESSAGE":
        post({"type": "MESSAGE", "message": {"data": event["message"]["data"]}})
    elif kind == "SHUTDOWN":
        sys.exit(0)


while True:
    try:
        subscribe = {
            "unacknowledged_tasks": list(launched.values()),
            "unacknowledged_updates": list(unacknowledged.values()),
        }
        for record in records(post({"type": "SUBSCRIBE", "subscribe": subscribe})):
            on_event(record)
    except (OSError, http.client.HTTPException) as error:
        print("disconnected", error, flush=True)
    time.sleep(0.1)
