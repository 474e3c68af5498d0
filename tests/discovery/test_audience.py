"""Name servers' announcements: what is heeded, and what is remembered of those that went."""

import pytest

from fairlead_discovery.audience import ttls
from fairlead_discovery.decisions.leaving import LARGEST_TTL_S, WENT_MOST, NameServers, seen
from fairlead_discovery.registry import Node


def nodes(**texts: str) -> dict[str, Node]:
    return {name: Node(data=text.encode(), version=0) for name, text in texts.items()}


@pytest.mark.parametrize("ttl", ["-1", str(LARGEST_TTL_S + 1), "1000000000", "1e300", '"x"', "null"])
def test_an_impossible_ttl_is_not_heeded(ttl: str):
    """The others are; each is refused by its name."""
    found = nodes(
        bad=f'{{"id": "b", "address": "x", "largest_ttl_s": {ttl}}}',
        good='{"id": "g", "address": "x", "largest_ttl_s": 60}',
    )
    announced, refused = ttls(found, {})

    assert {"good": 60.0} == announced
    assert ["bad"] == list(refused)


def test_what_is_remembered_is_bounded():
    """Of a thousand servers that went, the largest TTLs count."""
    before = NameServers(announced={f"d{n}": float(n) for n in range(1000)})
    after = seen(before, {}, now_s=0.0)

    assert WENT_MOST == len(after.went)
    assert 999.0 == after.largest_ttl_s(now_s=1.0)
    assert 0.0 == after.largest_ttl_s(now_s=2000.0)
