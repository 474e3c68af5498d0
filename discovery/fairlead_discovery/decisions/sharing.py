"""A mapping that never changes, and whose successors share nearly all of it: one change among 10,000 keys copies about 200
of them. A dict would be copied whole, and a reader that remembers the last seconds would hold, and its garbage collector
walk, hundreds of whole copies.
"""

from collections.abc import Collection, ItemsView, Iterator, KeysView, Mapping, ValuesView
from itertools import chain
from typing import Any, Generic, TypeVar

V = TypeVar("V")
T = TypeVar("T")
SPARE = 8
"""Laid out anew, at the cost of all, when there are so many times more keys than suit it, or twice as many times fewer."""


class Shared(Mapping[str, V]):
    """Keys spread over about as many dicts as each of them has keys. In no order; `of` makes one, `changed` the next."""

    __slots__ = ("_count", "_dicts", "_mask")
    _dicts: tuple[dict[str, V], ...]
    _mask: int
    _count: int

    @classmethod
    def of(cls, mapping: Mapping[str, V]) -> "Shared[V]":
        """The same object when it is one already."""
        return mapping if isinstance(mapping, Shared) else _spread(mapping)

    def changed(self, put: Mapping[str, V], gone: Collection[str] = ()) -> "Shared[V]":
        """With what is `put`, new or in the place of what was there, and without what is `gone`, if it was there.
        What is both is there. The very same object when that is nothing.
        """
        dicts, mask = list(self._dicts), self._mask
        own: set[int] = set()
        count = self._count
        for key in gone:
            place = hash(key) & mask
            if key in dicts[place]:
                del _own(dicts, own, place)[key]
                count -= 1
        for key, value in put.items():
            place = hash(key) & mask
            count += key not in dicts[place]
            _own(dicts, own, place)[key] = value
        if not own:
            return self
        made, suits = _made(dicts, count), len(dicts) ** 2
        return made if suits // (2 * SPARE) <= count <= suits * SPARE else _spread(made)

    def differing(self, before: "Shared[V]") -> Collection[str] | None:
        """Keys whose values are not the same objects as `before`, or that one of the two lacks. Costs what the two do
        not share. None: they are laid out differently, and all would have to be looked at.
        """
        if self._mask != before._mask:  # noqa: SLF001  # of the same class
            return None
        found: list[str] = []
        for old, new in zip(before._dicts, self._dicts, strict=True):  # noqa: SLF001  # see above
            if old is not new:
                found += old.keys() - new.keys()
                found += [key for key, value in new.items() if old.get(key, _MISSING) is not value]
        return found

    def __getitem__(self, key: str) -> V:
        return self._dicts[hash(key) & self._mask][key]

    def get(self, key: str, default: Any = None) -> Any:  # typed by Mapping
        return self._dicts[hash(key) & self._mask].get(key, default)

    def __contains__(self, key: object) -> bool:
        return key in self._dicts[hash(key) & self._mask]

    def __iter__(self) -> Iterator[str]:
        return chain.from_iterable(self._dicts)

    def __len__(self) -> int:
        return self._count

    def keys(self) -> KeysView[str]:
        return _Keys(self)

    def values(self) -> ValuesView[V]:
        return _Values(self)

    def items(self) -> ItemsView[str, V]:
        return _Items(self)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({dict(self)!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        return _spread, (dict(self),)  # hashes of texts are others in another process


class _View(Generic[V]):
    """Goes through the dicts as fast as through one."""

    _mapping: Shared[V]

    def _each(self, what: Any) -> Iterator[Any]:
        return chain.from_iterable(map(what, self._mapping._dicts))  # noqa: SLF001  # of this file


class _Keys(_View[V], KeysView[str]):
    def __iter__(self) -> Iterator[str]:
        return iter(self._mapping)


class _Values(_View[V], ValuesView[V]):
    def __iter__(self) -> Iterator[V]:
        return self._each(dict.values)


class _Items(_View[V], ItemsView[str, V]):
    def __iter__(self) -> Iterator[tuple[str, V]]:
        return self._each(dict.items)


_MISSING = object()


def _own(dicts: list[dict[str, T]], own: set[int], place: int) -> dict[str, T]:
    """Copied at the first change."""
    if place not in own:
        own.add(place)
        dicts[place] = dict(dicts[place])
    return dicts[place]


def _spread(mapping: Mapping[str, T]) -> Shared[T]:
    dicts: list[dict[str, T]] = [{} for _ in range(1 << (len(mapping).bit_length() // 2))]
    mask = len(dicts) - 1
    for key, value in mapping.items():
        dicts[hash(key) & mask][key] = value
    return _made(dicts, len(mapping))


def _made(dicts: Collection[dict[str, T]], count: int) -> Shared[T]:
    made: Shared[T] = Shared.__new__(Shared)
    made._dicts, made._mask, made._count = tuple(dicts), len(dicts) - 1, count  # noqa: SLF001  # of this file
    return made


NOTHING: Shared[Any] = _spread({})
