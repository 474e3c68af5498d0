"""What of a foreign folder stays while its owners come back."""

from collections.abc import Sequence

import pytest

from fairlead_daemon.errors import BadSettings
from fairlead_discovery.decisions.announcements import Bridge, Service, check_all
from fairlead_discovery.decisions.settling import HANDOVER_S, keep

SETTLE_S = 30.0


def folder(*ports: int, session: int = 1) -> dict[str, Service]:
    """Each session writes nodes of other names."""
    return {f"{port}-{session}": Service(name="web", host="10.0.0.1", port=port) for port in ports}


def after(start: dict[str, Service], *readings: tuple[float, dict[str, Service]]) -> list[list[int]]:
    """The announced ports after each reading at its time."""
    standing, kept, out = start, dict[str, float](), []
    for now_s, present in readings:
        kept = keep(kept, standing, present, now_s=now_s, settle_s=SETTLE_S)
        standing = present | {task: standing[task] for task in kept}
        out.append(sorted(service.port for service in standing.values()))
    return out


def test_owners_that_come_back_one_by_one_lose_nobody():
    """Ten lose their sessions, each comes back under another name: all ten stand at every moment."""
    ten = range(1, 11)
    back = [(100.0 + 2 * n, folder(*ten[:n], session=2)) for n in ten]
    seen = after(folder(*ten), (50.0, {}), (90.0, {}), *back)

    assert [set(ten)] * 12 == [set(ports) for ports in seen]


def test_a_reading_that_missed_the_emptiness_is_understood():
    """Six of ten are back, under new names, when the folder is seen again."""
    seen = after(folder(*range(10)), (0.0, folder(*range(6), session=2)))

    assert set(range(10)) == set(seen[0])


def test_who_does_not_come_back_goes_after_the_settle_time():
    """It begins with the first return, however long the folder was empty."""
    seen = after(folder(1, 2), (0.0, {}), (999.0, {}), (1000.0, folder(1)), (1029.0, folder(1)), (1030.0, folder(1)))

    assert [[1, 2], [1, 2], [1, 2], [1, 2], [1]] == seen


def test_an_empty_folder_keeps_its_last_endpoints():
    """Whatever had been before."""
    seen = after(folder(1, 2), (0.0, folder(1)), (1.0, {}), (9999.0, {}))

    assert [[1], [1], [1]] == seen


@pytest.mark.parametrize(
    ("before", "left", "stay"),
    [((1, 2), (1,), False), ((1, 2, 3), (1, 2), False), ((1, 2, 3, 4), (1, 2), False), ((1, 2, 3), (1,), True)],
)
def test_more_than_half_of_three_is_no_ordinary_removal(before: Sequence[int], left: Sequence[int], stay: bool):
    """Less goes at once, more after the settle time."""
    seen = after(folder(*before), (0.0, folder(*left)), (29.0, folder(*left)), (30.0, folder(*left)))

    assert [list(before if stay else left)] * 2 == seen[:2]
    assert list(left) == seen[2]


def test_a_removal_while_others_are_missing_goes_at_once():
    """One that is back is like any other."""
    seen = after(folder(1, 2, 3, 4), (0.0, {}), (1.0, folder(1, 2, 3)), (2.0, folder(1, 2)))

    assert [1, 2, 4] == seen[2]


def test_what_stands_under_another_name_is_handed_over():
    """Its old member goes when the new one had time to be announced."""
    again = folder(1, session=2)
    seen = after(folder(1), (0.0, again), (HANDOVER_S / 2, again), (HANDOVER_S, again))

    assert [[1, 1], [1, 1], [1]] == seen


@pytest.mark.parametrize("settle_s", [-1.0, float("inf"), float("nan")])
def test_the_settle_time_is_a_time(settle_s: float):
    """Said at the start."""
    bridge = Bridge(name="web", format="serverset", path="/web", settle_s=settle_s)

    with pytest.raises(BadSettings, match="web: settle_s"):
        check_all((), [bridge], where="static.toml")
