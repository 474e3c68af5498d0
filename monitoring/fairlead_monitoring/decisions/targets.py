"""Prometheus' HTTP service discovery: every TCP port of every task, with labels that say whose it is."""

from collections.abc import Iterator, Mapping
from typing import Any

from fairlead_discovery.records import Member
from fairlead_discovery.snapshots import Snapshot

PATH_LABEL = "metrics_path"
"""A discovery label of a task with this name says where its metrics are."""


def targets(snapshot: Snapshot, wanted: Mapping[str, str] | None = None) -> list[dict[str, Any]]:
    """The whole list, sorted; `wanted` keeps those whose labels agree, as {"service": "marathon:/shop/web"}."""
    found = [
        (address, labels)
        for service, members in sorted(snapshot.members.items())
        for _, member in sorted(members.items())
        for address, labels in _of_member(service, member)
    ]
    keep = (wanted or {}).items()
    return [{"targets": [a], "labels": labels} for a, labels in found if all(labels.get(k) == v for k, v in keep)]


def _of_member(service: str, member: Member) -> Iterator[tuple[str, dict[str, str]]]:
    host = member.serviceEndpoint.host
    for port in member.ports:
        if port.protocols and "tcp" not in port.protocols:
            continue
        labels = {
            "service": service,
            "app": member.task.app,
            "framework": member.task.framework,
            "task": member.task.id,
            "agent": member.task.agent,
            "port": port.name or str(port.index),
        }
        if path := member.discovery.labels.get(PATH_LABEL):
            labels["__metrics_path__"] = path
        yield f"{_bracketed(host)}:{port.host_port}", {k: v for k, v in labels.items() if v}


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
