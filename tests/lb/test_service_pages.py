"""Entries of services are made once, for as long as their slots are what they were."""

from dataclasses import replace

import msgspec

from fairlead_lb.decisions.change import Serving
from fairlead_lb.decisions.values import Admin, Key, Maps, Shape, Slot, Structure
from fairlead_lb.service_pages import Listing, backends_of, slots_of
from fairlead_lb.state import State
from harness.haproxy_model import FRAME

READY = Slot(host="10.0.0.1", port=80, admin=Admin.READY, up=True, task="t")


def state() -> State:
    shapes = {"a": Shape(), "b": Shape()}
    owners = {name: Key(f"marathon:/{name}", 0) for name in shapes}
    structure = Structure(frame=FRAME, shapes=shapes, owners=owners)
    slots = {name: {"s1": READY, "s2": Slot()} for name in shapes}
    return State(serving=Serving(structure=structure, slots=slots, maps=Maps(hosts={"a.example/": "a"})))


async def entries(listing: Listing, now: State) -> list[msgspec.Raw]:
    return list(await listing.services(now, slots_of(now, backends_of(now, ""))))


async def test_what_did_not_change_is_not_made_again():
    """The very bytes; another slot, or another host, makes its own service's entry anew and no other."""
    now, listing = state(), Listing()
    first = await entries(listing, now)
    assert all(a is b for a, b in zip(first, await entries(listing, now), strict=True))

    assert now.serving is not None
    down = {"s1": msgspec.structs.replace(READY, up=False), "s2": Slot()}
    now.serving = replace(now.serving, slots={**now.serving.slots, "b": down})
    second = await entries(listing, now)
    assert [True, False] == [a is b for a, b in zip(first, second, strict=True)]
    assert ["ready", "down"] == [msgspec.json.decode(e)["servers"][0]["state"] for e in second]

    now.serving = replace(now.serving, maps=Maps(hosts={"b.example/": "b"}))
    assert [[], ["b.example"]] == [msgspec.json.decode(e)["hosts"] for e in await entries(listing, now)]


async def test_one_service_is_its_backends_alone():
    """And a service that nobody has is none."""
    assert (["b"], [], ["a", "b"]) == tuple(backends_of(state(), s) for s in ("marathon:/b", "marathon:/c", ""))
