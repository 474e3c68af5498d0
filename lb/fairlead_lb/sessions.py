"""Who still has sessions with whom: in the serving worker and in the old ones."""

from collections.abc import Collection, Iterator, Mapping

from fairlead_lb.decisions.progress import Session
from fairlead_lb.decisions.values import Admin
from fairlead_lb.memory import Memory, Place
from fairlead_lb.state import State


def sessions(
    state: State, draining: Collection[str], old_used: Mapping[Place, int], memory: Memory
) -> Iterator[Session]:
    """With servers that get no new requests. `draining`: backends that have such."""
    serving = state.serving
    if not draining and not old_used:
        return
    slots = serving.slots if serving is not None else {}
    for backend in draining:
        service = _service(state, backend)
        for slot in slots.get(backend, {}).values():
            if slot.used and slot.admin is not Admin.READY:
                yield Session(service=service, task=slot.task, used=slot.used)
    for (backend, place), used in old_used.items():
        if used and (serving is None or backend not in serving.slots):
            service = _service(state, backend)
            yield Session(service=service, task=memory.task_at(backend, place), used=used)


def _service(state: State, backend: str) -> str:
    serving = state.serving
    for owners in (serving.structure.owners if serving is not None else {}, state.wanted.names, state.former):
        if backend in owners:
            return owners[backend].service
    return ""
