"""Routes that nobody wrote: from the labels of a foreign framework's tasks."""

from collections.abc import Mapping

from fairlead_discovery.records import Member, Route


def route_from_labels(service: str, members: Mapping[str, Member]) -> Route | None:
    """None when the labels ask for nothing. Raises Refused."""
    return None
