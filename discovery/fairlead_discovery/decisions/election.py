"""Who leads: the candidate whose node has the lowest sequence number."""

from collections.abc import Iterable

DIGITS = 10


def sequence(name: str, stem: str) -> int | None:
    """The number at the end of a candidate's name, None when the name is no candidate's."""
    number = name[len(stem) :]
    return int(number) if name.startswith(stem) and len(number) == DIGITS and number.isdigit() else None


def lowest(names: Iterable[str], stem: str) -> str | None:
    """`json.info_` over `json.info_0000000004`, `json.info_0000000003`, `log_replicas` -> `json.info_0000000003`."""
    numbered = ((number, name) for name in names if (number := sequence(name, stem)) is not None)
    return min(numbered, default=(0, None))[1]
