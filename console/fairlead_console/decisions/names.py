"""Names a person may have meant."""

from collections.abc import Collection
from difflib import get_close_matches


def nearest(name: str, known: Collection[str], *, most: int = 3) -> list[str]:
    """The most alike first; those that contain what was typed count too."""
    close = get_close_matches(name, known, n=most, cutoff=0.6)
    containing = sorted(other for other in known if name and name in other and other not in close)
    return [*close, *containing][:most]


def dns_name(text: str, *, framework: str = "marathon", domain: str = "mesos") -> str:
    """An app id as its Mesos-DNS name, anything else as it is. `/shop/web` -> `web-shop.marathon.mesos`."""
    if not text.startswith("/"):
        return text.rstrip(".")
    segments = [part.replace(".", "-") for part in reversed(text.strip("/").split("/"))]
    return f"{'-'.join(segments)}.{framework}.{domain}"


def srv_name(name: str, *, protocol: str = "tcp") -> str:
    """`web-shop.marathon.mesos` -> `_web-shop._tcp.marathon.mesos`; SRV names as they are."""
    task, dot, rest = name.partition(".")
    return name if task.startswith("_") or not dot else f"_{task}._{protocol}.{rest}"
