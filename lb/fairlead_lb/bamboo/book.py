"""What is known of rules and apps: the registry's snapshot with the rules of a Bamboo's tree beneath its own."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from fairlead_discovery.policies import Bamboo, name_of
from fairlead_discovery.snapshots import Snapshot
from fairlead_lb.decisions import bamboo_records as records


class Book:
    """One task's: values come in by `offer` and `take_tree`, and go on to `take` together."""

    def __init__(self, framework: str, take: Callable[[Snapshot], None]) -> None:
        self.framework = framework
        self.snapshot: Snapshot | None = None
        """As it was given on: with the tree's rules."""
        self.tree: Mapping[str, Bamboo] = {}
        self.definitions: Mapping[str, records.Definition] = {}
        """Marathon's, by app id."""
        self.changed = asyncio.Event()
        self.waits = False
        """A tree was never read: without its rules, nothing may be taken for the whole."""
        self._given: Snapshot | None = None
        self._take = take

    def offer(self, snapshot: Snapshot) -> None:
        self._given = snapshot
        self._go_on()

    def take_tree(self, rules: Mapping[str, Bamboo]) -> None:
        self.tree, self.waits = rules, False
        self._go_on()

    def take_definitions(self, definitions: Mapping[str, records.Definition]) -> None:
        if definitions != self.definitions:
            self.definitions = definitions
            self.changed.set()

    def _go_on(self) -> None:
        given = self._given
        if given is None or self.waits:
            return
        beneath = {name_of(rule): rule for rule in self.tree.values()}
        self.snapshot = replace(given, policies={**beneath, **given.policies}) if beneath else given
        self.changed.set()
        self._take(self.snapshot)

    # --- as Bamboo tells it

    def rules(self) -> Mapping[str, Bamboo]:
        return records.rules_of(self.snapshot) if self.snapshot is not None else {}

    def own(self, service: str) -> bool:
        """Whether the rule is the registry's, not only the tree's."""
        return self._given is not None and service in records.rules_of(self._given)

    def services(self) -> dict[str, dict[str, Any]]:
        return records.services(self.rules(), self.framework)

    def apps(self) -> list[dict[str, Any]]:
        if self.snapshot is None:
            return []
        return records.apps(self.snapshot, self.framework, self.definitions)
