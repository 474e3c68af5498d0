"""Runs in pymesos' own virtual environment: a scheduler like pymesos' example, telling what it sees as JSON lines.

    pymesos_program.py MASTER TASKS COMMAND [--hold FILE]

Launches TASKS tasks running COMMAND, one after the other's offer, until each has finished; with --hold it goes on
until that file exists, then kills what still runs. Exit code 0: everything ended as wanted.
"""

import argparse
import json
import os
import sys
import threading
import time
import uuid

from pymesos import MesosSchedulerDriver, Scheduler


def tell(**fields):
    print(json.dumps(fields), flush=True)


class Program(Scheduler):
    def __init__(self, options):
        self.options = options
        self.states = {}
        self.done = threading.Event()

    def registered(self, driver, framework_id, master_info):
        tell(event="registered", framework=framework_id["value"], version=master_info["version"])

    def reregistered(self, driver, master_info):
        tell(event="reregistered")
        driver.reconcileTasks([{"task_id": {"value": task}} for task in self.states])

    def disconnected(self, driver):
        tell(event="disconnected")

    def resourceOffers(self, driver, offers):  # noqa: N802  # pymesos' name
        for offer in offers:
            if len(self.states) >= self.options.tasks:
                driver.declineOffer(offer["id"], {"refuse_seconds": 3600})
                continue
            task_id = str(uuid.uuid4())
            self.states[task_id] = "LAUNCHED"
            driver.launchTasks(offer["id"], [self.task(task_id, offer)], {"refuse_seconds": 0})

    def task(self, task_id, offer):
        return {
            "name": "example",
            "task_id": {"value": task_id},
            "agent_id": offer["agent_id"],
            "command": {"value": self.options.command},
            "resources": [
                {"name": "cpus", "type": "SCALAR", "scalar": {"value": 0.1}},
                {"name": "mem", "type": "SCALAR", "scalar": {"value": 32}},
            ],
        }

    def statusUpdate(self, driver, update):  # noqa: N802  # pymesos' name
        task_id, state = update["task_id"]["value"], update["state"]
        self.states[task_id] = state
        tell(event="update", task=task_id, state=state, reason=update.get("reason", ""))
        if len(self.states) >= self.options.tasks and all(
            s in ("TASK_FINISHED", "TASK_KILLED") for s in self.states.values()
        ):
            self.done.set()

    def error(self, driver, message):
        tell(event="error", message=message)

    def offerRescinded(self, driver, offer_id):  # noqa: N802  # pymesos' name
        tell(event="rescinded")

    def kill_all(self, driver):
        for task_id, state in list(self.states.items()):
            if state in ("TASK_STAGING", "TASK_STARTING", "TASK_RUNNING"):
                driver.killTask({"value": task_id})


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("master")
    parser.add_argument("tasks", type=int)
    parser.add_argument("command")
    parser.add_argument("--hold", default="")
    options = parser.parse_args()
    program = Program(options)
    framework = {"user": os.environ.get("USER") or "nobody", "name": "pymesos", "failover_timeout": 60}
    driver = MesosSchedulerDriver(program, framework, options.master, use_addict=False)
    driver.start()
    asked = False
    deadline = time.time() + 90
    while not program.done.wait(0.1):
        if options.hold and not asked and os.path.exists(options.hold):
            asked = True
            program.kill_all(driver)
        if time.time() > deadline:
            tell(event="timeout", states=program.states)
            return 1
    driver.stop()
    driver.join()
    tell(event="ended", states=sorted(program.states.values()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
