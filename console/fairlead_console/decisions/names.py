"""Names a person may have meant."""

from fairlead_discovery.decisions.nearest import nearest

__all__ = ["dns_name", "nearest", "srv_name"]


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
