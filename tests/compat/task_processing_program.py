"""Runs in task_processing's own virtual environment: what its examples do, telling the outcome as JSON lines.

    task_processing_program.py MASTER ROLE EXAMPLE

EXAMPLE is one of sync, async, promise, subscription, retry, timeout, kill. Commands of the Mesos containerizer
instead of Docker images; else each runs its tasks the way the example of that name does.
"""

import json
import logging
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from queue import Queue

from task_processing.runners.async_runner import Async, EventHandler
from task_processing.runners.promise import Promise
from task_processing.runners.subscription import Subscription
from task_processing.runners.sync import Sync
from task_processing.task_processor import TaskProcessor

WAIT_S = 60


def tell(event):
    print(json.dumps({"state": event.platform_type, "success": event.success, "terminal": event.terminal}), flush=True)


def config(executor, command, **more):
    return executor.TASK_CONFIG_INTERFACE(containerizer="MESOS", cmd=command, cpus=0.1, mem=32, disk=1, **more)


def sync(executor, processor):
    runner = Sync(executor)
    for command in ('echo "hello world"', "exit 3"):
        tell(runner.run(config(executor, command)))
    return runner


def run_async(executor, processor):
    """Events come to a callback."""
    done = threading.Event()

    def ended(event):
        tell(event)
        done.set()

    runner = Async(executor, [EventHandler(predicate=lambda event: event.terminal, cb=ended)])
    runner.run(config(executor, "exit 0"))
    assert done.wait(WAIT_S)
    return runner


def promise(executor, processor):
    """Three at once, each a future."""
    runner = Promise(executor, ThreadPoolExecutor(max_workers=3))
    futures = [runner.run(config(executor, f"sleep {n % 2}; exit {n}")) for n in range(3)]
    for future in futures:
        tell(future.result(WAIT_S))
    return runner


def subscription(executor, processor):
    """Every event, in order."""
    queue = Queue(100)
    runner = Subscription(executor, queue)
    runner.run(config(executor, "sleep 0.5"))
    while True:
        event = queue.get(timeout=WAIT_S)
        if event.kind == "task":
            tell(event)
            if event.terminal:
                return runner


def retry(executor, processor):
    """A task that fails is run again, here twice, before its end is told."""
    retrying = processor.executor_from_config(
        provider="retrying", provider_config={"downstream_executor": executor, "retries": 2}
    )
    runner = Sync(retrying)
    event = runner.run(config(executor, "exit 1"))
    tell(event)
    print(json.dumps({"tries_left": event.extensions["RetryingExecutor/tries"]}), flush=True)
    return runner


def timeout(executor, processor):
    """A task that runs longer than it may is killed."""
    limited = processor.executor_from_config(provider="timeout", provider_config={"downstream_executor": executor})
    runner = Sync(limited)
    tell(runner.run(config(executor, "sleep 300", timeout=2)))
    return runner


def kill(executor, processor):
    """At the first event that says it runs."""
    queue = Queue(100)
    runner = Subscription(executor, queue)
    task = config(executor, "sleep 300")
    runner.run(task)
    while True:
        event = queue.get(timeout=WAIT_S)
        if event.platform_type == "running":
            runner.kill(task.task_id)
        if event.terminal:
            tell(event)
            return runner


EXAMPLES = {
    "sync": sync,
    "async": run_async,
    "promise": promise,
    "subscription": subscription,
    "retry": retry,
    "timeout": timeout,
    "kill": kill,
}


def main():
    master, role, example = sys.argv[1:]
    logging.basicConfig(level=logging.INFO)
    processor = TaskProcessor()
    processor.load_plugin(provider_module="task_processing.plugins.mesos")
    executor = processor.executor_from_config(
        provider="mesos_task",
        provider_config={"secret": "sesame", "mesos_address": master, "role": role, "framework_name": example},
    )
    runner = EXAMPLES[example](executor, processor)
    runner.stop()
    print(json.dumps({"ended": example}), flush=True)


if __name__ == "__main__":
    main()
