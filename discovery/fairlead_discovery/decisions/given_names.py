"""Names that people give to rings, their members, locks and groups."""

from fairlead_daemon.errors import Refused

MEMBER_BYTES = 255


def checked(what: str, name: str, *, most_bytes: int = 0) -> str:
    """The name. Raises Refused for an empty, unprintable or (with `most_bytes`) too long one; `what` begins the words."""
    if not name.strip():
        raise Refused(f"{what}: a name is needed, {name!r} is none")
    if not name.isprintable():
        raise Refused(f"{what}: the name {name[:80]!r} holds a character that cannot be printed")
    size = len(name.encode())
    if most_bytes and size > most_bytes:
        raise Refused(f"{what}: the name {name[:40]}… has {size} bytes, at most {most_bytes} are allowed")
    return name
