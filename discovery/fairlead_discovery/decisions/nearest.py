"""Names a person may have meant."""

from collections.abc import Collection
from difflib import get_close_matches


def nearest(name: str, known: Collection[str], *, most: int = 3) -> list[str]:
    """The most alike first; those that contain what was typed count too."""
    close = get_close_matches(name, known, n=most, cutoff=0.6)
    containing = sorted(other for other in known if name and name in other and other not in close)
    return [*close, *containing][:most]
