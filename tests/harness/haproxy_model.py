"""HAProxy as a model: slots and maps that change as its runtime API changes them, and workers that reload."""

from dataclasses import replace

from fairlead_lb.decisions import change as changes
from fairlead_lb.decisions import picture, routes, splits
from fairlead_lb.decisions.change import Nothing, Reload, Serving, Surroundings
from fairlead_lb.decisions.commands import Command, MapEntry, MapWhole, SetAddress, apply_to_map, apply_to_slots
from fairlead_lb.decisions.routes import Wanted
from fairlead_lb.decisions.values import MAP_NAMES, Admin, Frame, Maps, Slot

FRAME = Frame(folder="/srv/lb", sockets="/srv/lb/run")
AROUND = Surroundings(frame=FRAME, service_ports=(10100, 10119))


class Model:
    """Checks at every command what HAProxy 2.6 would make a request pay for."""

    def __init__(self, around: Surroundings = AROUND) -> None:
        first = picture.first_picture(around)
        self.serving = Serving(structure=first.structure, slots=first.slots, maps=first.maps)
        self.reloads = 0
        self.around = around

    def follow(self, wanted: Wanted, *, tidy: bool = True) -> Wanted:
        """What the controller does, until nothing is left to do; the wanted as it is after that."""
        for _ in range(10):
            self.serving = replace(self.serving, structure=changes.lent(self.serving, wanted))
            plans = changes.plans(self.serving, wanted)
            found = changes.change(self.serving, wanted, self.around, plans)
            if isinstance(found, Nothing):
                return wanted
            commands = found.routing_commands + (found.tidies if tidy else ())
            for command in commands:
                self.perform(command)
            if isinstance(found, Reload) and not found.routing_commands:
                wanted = self.reload(wanted)
            elif not commands:
                return wanted
        raise AssertionError("it does not come to rest")

    def perform(self, command: Command) -> None:
        serving = self.serving
        if isinstance(command, MapEntry | MapWhole):
            entries = getattr(serving.maps, command.map)
            if isinstance(command, MapEntry):
                assert command.known == (command.key in entries), "add map would double, set map would find nothing"
            tables = {n: dict(getattr(serving.maps, n)) for n in MAP_NAMES}
            tables[command.map] = apply_to_map(entries, command)
            leads_to = set(tables[command.map].values()) if command.map in splits.BETWEEN else set()
            assert leads_to <= set(serving.structure.shapes), "no request is sent to a backend that is not there"
            self.serving = replace(serving, maps=Maps(**tables))
            return
        slots = serving.slots[command.backend]
        slot = slots[command.slot]
        if isinstance(command, SetAddress):
            assert slot.admin is Admin.MAINT, "a slot changes its address only in maintenance"
            assert slot.used == 0, "a slot changes its address only without connections"
            assert slot.empty or command.task == "", "a new address only ever follows the dummy, which purges the pool"
        after = apply_to_slots(slots, [command])
        self.serving = replace(serving, slots={**serving.slots, command.backend: after})

    def reload(self, wanted: Wanted) -> Wanted:
        wanted = routes.brought_home(wanted, set(self.serving.structure.owners))
        made = picture.wanted_picture(self.serving, wanted, self.around)
        self.reloads += 1
        self.serving = Serving(structure=made.structure, slots=made.slots, maps=made.maps)
        return wanted

    def use(self, backend: str, slot: str, count: int) -> None:
        slots = dict(self.serving.slots[backend])
        old = slots[slot]
        slots[slot] = Slot(
            host=old.host, port=old.port, admin=old.admin, weight=old.weight, used=count, up=old.up, task=old.task
        )
        self.serving = replace(self.serving, slots={**self.serving.slots, backend: slots})

    def ready(self, backend: str) -> dict[str, tuple[str, int, int]]:
        """Task -> address and weight of what gets new requests."""
        slots = self.serving.slots.get(backend, {})
        return {s.task: (s.host, s.port, s.weight) for s in slots.values() if s.admin is Admin.READY}
