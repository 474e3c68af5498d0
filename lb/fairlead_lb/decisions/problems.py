"""What a service asked of the balancer and does not get, in words for those who deployed it."""

from collections.abc import Iterator, Mapping

from fairlead_discovery.decisions import vips
from fairlead_lb.decisions.breaking import Breakers
from fairlead_lb.decisions.routes import Wanted


def problems(
    wanted: Wanted,
    taken: Mapping[int, str],
    taken_vips: Mapping[str, str] | None = None,
    breakers: Breakers | None = None,
) -> Mapping[str, tuple[str, ...]]:
    """By service; `taken` are ports that other processes hold, `taken_vips` places, with the reason."""
    services = sorted({*wanted.parts, *wanted.refused})
    lost: dict[str, list[str]] = {}
    for place, why in (taken_vips or {}).items():
        if (backend := wanted.backends.get(wanted.maps.vips.get(place, ""))) is not None:
            lost.setdefault(backend.key.service, []).append(f"VIP {place} is held by another process: {why.lower()}")
    for key, breaker in sorted((breakers or {}).items()):
        if breaker.state != "closed":
            lost.setdefault(key.service, []).append(f"port {key.index}: its circuit breaker is {breaker.state}")
    found = {service: (*_of(service, wanted, taken), *lost.get(service, ())) for service in services}
    return {service: told for service, told in found.items() if told}


def _of(service: str, wanted: Wanted, taken: Mapping[int, str]) -> Iterator[str]:
    if service in wanted.refused:
        yield wanted.refused[service]
    parts = wanted.parts.get(service)
    if parts is None:
        return
    yield from (f"{label}: not taken: {_why(label)}" for label in parts.route.not_taken)
    for part in parts.parts:
        if (why := taken.get(part.service_port)) is not None:
            yield f"service port {part.service_port} is held by another process: {why.lower()}"


def _why(label: str) -> str:
    if vips.asked((label,)):
        return "it belongs to the labels of a port, in portDefinitions"
    if label.endswith("_BACKEND_HEALTHCHECK_PORT_INDEX"):
        return "HAProxy checks the port it sends requests to; the agent makes the app's checks of other ports"
    return "raw HAProxy"
