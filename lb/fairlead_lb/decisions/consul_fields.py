"""What both directions of Consul's config entries share: how its JSON is read field by field, names, durations."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from fairlead_daemon.errors import Refused
from fairlead_discovery import paths

T = TypeVar("T")
SCHEDULED = "marathon"
"""Whose service names are app ids, which begin with a slash."""
_DURATION = re.compile(r"(?:\d+(?:\.\d+)?(?:ns|us|µs|ms|s|m|h))+")
_PART = re.compile(r"(\d+(?:\.\d+)?)(ns|us|µs|ms|s|m|h)")
_UNITS_S = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}


@dataclass(frozen=True, slots=True, kw_only=True)
class Names:
    """Consul's service names and ours: `web` is `<framework>:web` (`marathon:/web`), where `given` says nothing else."""

    framework: str = SCHEDULED
    given: Mapping[str, str] = field(default_factory=dict)

    def ours(self, name: str) -> str:
        """Raises Refused."""
        if name in self.given:
            return self.given[name]
        if not name or "@" in name or name.startswith("/"):
            raise Refused(f"{name[:80]!r}: no service's name")
        return paths.service_key(self.framework, f"/{name}" if self.framework == SCHEDULED else name)

    def theirs(self, service: str) -> str:
        """Raises Refused for one that `given` would have to name."""
        name = next((n for n, key in self.given.items() if key == service), "")
        if name:
            return name
        framework, own = paths.split_service_key(service)
        own = own.removeprefix("/") if framework == SCHEDULED else own
        if framework != self.framework or not own or "/" in own:
            raise Refused(f"{service}: no name of Consul's; give it one (--service NAME={service})")
        return own


class Fields:
    """One object of an entry. What is not taken until `close` is refused by name; case and underscores mean nothing."""

    def __init__(self, given: object, place: str) -> None:
        if not isinstance(given, Mapping):
            raise Refused(f"{place}: not an object")
        self.place = place
        self._left: dict[str, tuple[str, object]] = {_plain(str(k)): (str(k), v) for k, v in given.items()}

    def take(self, name: str, kind: type[T], default: T) -> T:
        """Null is nothing. Raises Refused for another type."""
        _, value = self._left.pop(_plain(name), ("", None))
        if value is None:
            return default
        if isinstance(value, bool) is not (kind is bool) or not isinstance(
            value, (int, float) if kind is float else kind
        ):
            raise Refused(f"{self.place}: {name}: not {_SAID.get(kind, kind.__name__)}")
        return kind(value) if kind is float else value  # type: ignore[call-arg,return-value]  # it is of the kind

    def texts(self, name: str) -> tuple[str, ...]:
        found = self.take(name, list, [])
        if not all(isinstance(one, str) for one in found):
            raise Refused(f"{self.place}: {name}: not texts")
        return tuple(found)

    def inner(self, name: str) -> "Fields":
        return Fields(self.take(name, dict, {}), f"{self.place}: {name}")

    def each(self, name: str) -> Iterator["Fields"]:
        for number, one in enumerate(self.take(name, list, []), 1):
            yield Fields(one, f"{self.place}: {name} {number}")

    def seconds(self, name: str) -> float:
        """Text as `1m30s`, or a number of nanoseconds."""
        _, value = self._left.pop(_plain(name), ("", None))
        if value is None:
            return 0.0
        if isinstance(value, int) and not isinstance(value, bool):
            return value / 1e9
        if not isinstance(value, str) or not _DURATION.fullmatch(value):
            raise Refused(f"{self.place}: {name}: {value!r:.60} is no duration, as 1m30s")
        return round(sum(float(count) * _UNITS_S[unit] for count, unit in _PART.findall(value)), 9)

    def drop(self, *names: str) -> None:
        """What means nothing to a balancer."""
        for name in names:
            self._left.pop(_plain(name), None)

    def leave(self, said: list[str], why: str, *names: str) -> None:
        """What is said and not taken over; `said` is told."""
        for name in names:
            _, value = self._left.pop(_plain(name), ("", None))
            if value:
                said.append(f"{self.place}: {name}: {why}")

    def must_not(self, why: str, *names: str) -> None:
        """Raises Refused for what would change the meaning of the rest."""
        for name in names:
            _, value = self._left.pop(_plain(name), ("", None))
            if value and value != "default":
                raise Refused(f"{self.place}: {name}: {why}")

    def close(self) -> None:
        """Raises Refused when something was not taken."""
        said = [name for name, value in self._left.values() if value not in (None, "", 0, False, [], {})]
        if said:
            raise Refused(f"{self.place}: {said[0]}: has no counterpart here")


_SAID = {str: "text", dict: "an object", list: "a list", bool: "true or false", float: "a number", int: "a number"}


def _plain(name: str) -> str:
    return name.replace("_", "").lower()


def duration(value_s: float) -> str:
    """As Go writes them: `1.5s`."""
    return f"{value_s:.9f}".rstrip("0").rstrip(".") + "s"


def without_nothing(found: Mapping[str, Any]) -> dict[str, Any]:
    """Consul leaves out what is not said."""
    return {key: value for key, value in found.items() if value not in (None, "", 0, False, (), [], {})}


def ordered(entries: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    return sorted(entries, key=lambda e: (str(e["Kind"]), str(e["Name"])))
