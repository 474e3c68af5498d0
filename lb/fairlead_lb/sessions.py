"""Who still has sessions with whom: in the serving worker and in the old ones."""

from collections.abc import Collection, Iterator, Mapping

from fairlead_lb.decisions.change import Serving
from fairlead_lb.decisions.progress import Session
from fairlead_lb.decisions.values import Admin, Picture
from fairlead_lb.memory import Memory, Place
from fairlead_lb.state import State

Strays = Mapping[Place, Collection[tuple[str, str]]]
"""By backend and slot: services and tasks."""


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
        if used:
            for service, task in state.strays.get((backend, place), ()):
                yield Session(service=service, task=task, used=used)


def strayed(before: Strays, last: Serving, candidate: Picture) -> Strays:
    """With those that were put into slots of the last worker while the next one came up, as the candidate has it: their
    sessions are counted by slots in which somebody else stands now, or nobody.
    """
    found = {place: set(who) for place, who in before.items()}
    owners = last.structure.owners
    for backend in owners.keys() & last.slots.keys() & candidate.slots.keys():
        there, next_ = last.slots[backend], candidate.slots[backend]
        for place, slot in there.items() if there != next_ else ():
            if not slot.empty and (place not in next_ or next_[place].task != slot.task):
                found.setdefault((backend, place), set()).add((owners[backend].service, slot.task))
    return found


def _service(state: State, backend: str) -> str:
    serving = state.serving
    for owners in (serving.structure.owners if serving is not None else {}, state.wanted.names, state.former):
        if backend in owners:
            return owners[backend].service
    return ""
