"""Names a person may have meant, also among very many."""

import pytest

from fairlead_discovery.decisions import nearest as module
from fairlead_discovery.decisions.nearest import nearest

FEW = ["web.marathon.mesos", "payments-api.shop.marathon.mesos", "marathon:/shop/payments", "leader.mesos"]
MANY = [*(f"{word}-{n}.marathon.mesos" for n in range(700) for word in ("db", "queue", "cache")), *FEW]


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("wbe.marathon.mesos", "web.marathon.mesos"),
        ("payemnts-api.shop.marathon.mesos", "payments-api.shop.marathon.mesos"),
        ("marathon:/shop/paymnets", "marathon:/shop/payments"),
        ("queue-77x.marathon.mesos", "queue-77.marathon.mesos"),
        ("leader", "leader.mesos"),
    ],
)
def test_a_typing_error_is_seen_through_among_very_many(
    typed: str, meant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The best of all, though only the few that begin most alike are compared letter by letter."""
    compared: list[int] = []
    by_letters = module.get_close_matches
    monkeypatch.setattr(
        module,
        "get_close_matches",
        lambda name, known, **how: compared.append(len(known)) or by_letters(name, known, **how),
    )

    assert meant == nearest(typed, MANY)[0]
    assert [module.MANY] == compared
