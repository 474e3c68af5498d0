"""Whose fragment HAProxy refuses: known verdicts first, then halves. One bad tenant costs the others one check."""

import hashlib
from collections.abc import Collection, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import msgspec

from fairlead_lb.decisions import render
from fairlead_lb.decisions.values import Picture, Slot, Structure


@dataclass(slots=True)
class Verdicts:
    """Digests of what HAProxy has taken: head (settings, binds) and fragments as they are without their servers, which
    change all the time and pass the grammar.
    """

    good: set[str] = field(default_factory=set)

    def learn(self, structure: Structure) -> None:
        """HAProxy serves by it; what it does not hold is forgotten."""
        self.good = {head_digest(structure), *_digests(structure, structure.shapes).values()}

    def learn_checked(self, structure: Structure) -> None:
        """HAProxy's check took it; it does not serve by it yet."""
        self.good |= {head_digest(structure), *_digests(structure, structure.shapes).values()}

    def knows(self, structure: Structure) -> bool:
        """Whether HAProxy has taken each part of it: then it takes the whole."""
        return self.knows_head(structure) and set(_digests(structure, structure.shapes).values()) <= self.good

    def learn_fragments(self, structure: Structure, names: Iterable[str]) -> None:
        self.good |= set(_digests(structure, names).values())

    def knows_head(self, structure: Structure) -> bool:
        return head_digest(structure) in self.good

    def suspects(self, structure: Structure) -> tuple[str, ...]:
        """Fragments nobody has judged yet; when HAProxy has taken each before, it is a server's line: all of them."""
        known = self.good
        unjudged = tuple(n for n, digest in _digests(structure, structure.owners).items() if digest not in known)
        return unjudged or tuple(structure.owners)


def culprits(suspects: Sequence[str]) -> Generator[Sequence[str], bool, tuple[str, ...]]:
    """Yields groups to check, is sent whether HAProxy refuses each, returns those it refuses alone: about
    log2(suspects) checks for one.
    """
    found: list[str] = []
    groups: list[Sequence[str]] = [suspects]
    while groups:
        group = groups.pop()
        if not group or not (yield group):
            continue
        if len(group) == 1:
            found.append(group[0])
        else:
            half = len(group) // 2
            groups += [group[half:], group[:half]]
    return tuple(found)


def text_of(picture: Picture, names: Collection[str]) -> str:
    """A configuration of these tenants alone, with what they cause in the head (Lua, tables) and nothing of others."""
    return render.config_of(of_tenants(picture.structure, names), [render.backend(picture, name) for name in names])


def of_tenants(structure: Structure, names: Collection[str]) -> Structure:
    return msgspec.structs.replace(structure, shapes={name: structure.shapes[name] for name in names})


def head_digest(structure: Structure) -> str:
    """Of what no tenant has a part in."""
    return _digest(render.config_of(_ungenerated(of_tenants(structure, ())), []))


def _ungenerated(structure: Structure) -> Structure:
    """The generation is in a comment and a socket's name; the connections follow the limit of open files."""
    return msgspec.structs.replace(structure, generation=0, connections=0)


def _digests(structure: Structure, names: Iterable[str]) -> Mapping[str, str]:
    """Fragments of one shape are alike but for their names."""
    by_shape: dict[object, str] = {}
    found: dict[str, str] = {}
    for name in names:
        shape = structure.shapes[name]
        if shape not in by_shape:
            by_shape[shape] = _digest(render.backend_text("x", shape, {"s1": Slot()}, structure.frame))
        found[name] = by_shape[shape]
    return found


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
