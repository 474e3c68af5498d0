"""Runs in pymesos' own virtual environment, as an executor of a task: pymesos' example executor in small."""

import sys
import threading
import time

from pymesos import Executor, MesosExecutorDriver, decode_data, encode_data


class Example(Executor):
    def registered(self, driver, executor_info, framework_info, agent_info):
        print("registered", executor_info["executor_id"]["value"], framework_info["name"], flush=True)

    def launchTask(self, driver, task):  # noqa: N802  # pymesos' name
        def run():
            for state in ("TASK_RUNNING", "TASK_FINISHED"):
                driver.sendStatusUpdate({"task_id": task["task_id"], "state": state})
                time.sleep(0.05)
            driver.sendFrameworkMessage(encode_data(b"done " + decode_data(task["data"])))

        threading.Thread(target=run).start()

    def shutdown(self, driver):
        print("shutdown", flush=True)


if __name__ == "__main__":
    MesosExecutorDriver(Example(), use_addict=False).run()
    sys.exit(0)
