"""Command lines as Go's flag package reads them: `-config=FILE -v 1 -version`, with one dash or two.

For the daemons whose old command line ours takes: Bamboo's, Mesos-DNS'.
"""

from collections.abc import Collection, Mapping, Sequence

TRUE = frozenset({"1", "t", "T", "TRUE", "true", "True"})
FALSE = frozenset({"0", "f", "F", "FALSE", "false", "False"})


class UsageError(Exception):
    """No such command line; says why, in Go's words."""


def read(
    arguments: Sequence[str], *, values: Collection[str], switches: Collection[str] = ()
) -> Mapping[str, Sequence[str]]:
    """What each flag was given, in order; a switch alone is `true`. Raises UsageError."""
    given: dict[str, list[str]] = {}
    left = list(arguments)
    while left:
        word = left.pop(0)
        name, sign, value = word.removeprefix("-").removeprefix("-").partition("=")
        if not word.startswith("-") or not name:
            raise UsageError(f"{word!r} is no flag")
        if name not in values and name not in switches:
            raise UsageError(f"flag provided but not defined: -{name}")
        if not sign and name in values:
            if not left:
                raise UsageError(f"flag needs an argument: -{name}")
            value = left.pop(0)
        given.setdefault(name, []).append(value if sign or name in values else "true")
    return given


def switch(given: Mapping[str, Sequence[str]], name: str) -> bool:
    """Off where it was not given; the last one counts. Raises UsageError."""
    value = given.get(name, ["false"])[-1]
    if value not in TRUE | FALSE:
        raise UsageError(f"invalid boolean value {value!r} for -{name}")
    return value in TRUE
