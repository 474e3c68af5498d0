"""What is kept of a task that is over."""

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from fairlead_core import history

TEXT = st.integers(0, 20_000).map(lambda n: "x" * n)
TASK = st.fixed_dictionaries(
    {"task_id": st.just({"value": "t"}), "name": TEXT, "labels": TEXT, "command": TEXT, "data": TEXT, "executor": TEXT}
)


@given(TASK)
def test_a_task_keeps_its_name_and_few_bytes(info):
    """Never the command, the executor or the data; what does not fit goes."""
    kept = history.brief_task(info)

    assert {"value": "t"} == kept["task_id"]
    assert not {"command", "executor", "data"} & kept.keys()
    assert len(msgspec.json.encode(kept)) < history.MOST_BYTES + 200


@given(TEXT, TEXT)
def test_a_status_keeps_its_state_and_the_beginning_of_its_message(message, data):
    """So that people can read why it ended, and the framework can be told again."""
    status = {"task_id": {"value": "t"}, "state": "TASK_FAILED", "uuid": "u", "message": message, "data": data}
    kept = history.brief_status(status)

    assert ("TASK_FAILED", "u") == (kept["state"], kept["uuid"])
    assert message.startswith(kept["message"].removesuffix("..."))
    assert len(msgspec.json.encode(kept)) < history.MOST_BYTES + 200
