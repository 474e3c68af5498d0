"""Text of others, as it may stand in a terminal: nothing in it moves the cursor, colours, or breaks a line."""

ELLIPSIS = "…"


def visible(text: str, *, keep: str = "") -> str:
    """Control and other unseen characters escaped as Python does; those in `keep` stay."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in keep else _escaped(c) for c in text)


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


def cut(text: str, width: int) -> str:
    """At most `width` characters; what is missing is marked."""
    return text if len(text) <= width else text[: max(0, width - 1)] + ELLIPSIS
