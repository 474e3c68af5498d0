"""Routes that nobody wrote: from the labels of a foreign framework's tasks."""

from collections.abc import Mapping

from fairlead_discovery.decisions import labels
from fairlead_discovery.records import Member, Route

SOURCE = "labels"


def route_from_labels(service: str, members: Mapping[str, Member]) -> tuple[Route, tuple[str, ...]] | None:
    """The route and what is wrong with the labels; None when they ask for nothing.

    Tasks that disagree are a version being replaced by another: the first by node name speaks for all. Apps of our own
    service scheduler are routed by the record it writes, and by nothing else.
    """
    if not members:
        return None
    speaker = members[min(members)]
    given = speaker.discovery.labels
    if speaker.task.app or not labels.asks(given):
        return None
    route, problems = labels.route_of(service, given, labels.plain_ports(speaker.ports), source=SOURCE)
    return route, tuple(map(str, problems))
