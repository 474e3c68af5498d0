"""Whoever gives a name anything is found, without looking through every task of the zone."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairlead_discovery.records import Discovery, Ips, Member
from fairlead_discovery.snapshots import Snapshot, Trust
from fairlead_dns.decisions import why as module
from fairlead_dns.decisions import wire
from fairlead_dns.decisions.naming import Dialect, Rules
from fairlead_dns.decisions.speaking import of_task
from fairlead_dns.decisions.why import why
from fairlead_dns.names import Names
from harness.names import authority, member, node_name

LONG = "x" * 70
DIALECTS = tuple(Dialect(kind=kind) for kind in ("consul", "kubernetes", "dcos", "numbered_ports", "l4lb"))
services = st.dictionaries(
    st.sampled_from(["a", "a-b", "payments", "web", "b.a", "Web_1", LONG]),
    st.tuples(st.sampled_from(["", "web", "b.a", "a"]), st.integers(1, 2), st.booleans()),
    max_size=3,
)


def made_of(chosen: dict[str, tuple[str, int, bool]], rules: Rules) -> Names:
    made = Names(rules, authority())
    members: dict[str, dict[str, Member]] = {}
    for index, (name, (discovery, count, foreign)) in enumerate(chosen.items()):
        ips = Ips(host=(f"10.0.0.{index + 1}",), netinfo=(f"172.16.0.{index + 1}",) if foreign else ())
        tasks = [member(n, name=name, discovery=Discovery(name=discovery), ips=ips) for n in range(count)]
        members[f"marathon:{name}"] = {node_name(task): task for task in tasks}
    made.take_snapshot(Snapshot(revision=1, trust=Trust.LIVE, members=members))
    return made


@settings(max_examples=20, deadline=None)
@given(services, st.booleans())
def test_everyone_who_gives_a_name_is_found(chosen: dict[str, tuple[str, int, bool]], dialects: bool) -> None:
    """Of every name in the zone, and nobody else; names of one service that stand in another's too."""
    rules = Rules(dialects=DIALECTS if dialects else ())
    made = made_of(chosen, rules)
    givers: dict[bytes, set[str]] = {}
    for service, tasks in made.sources.members.items():
        for task in tasks.values():
            for record in of_task(task, rules, made.sources.rivals.get(service, "")):
                givers.setdefault(record.owner, set()).add(task.task.id)

    for name, tasks_of in givers.items():
        assert tasks_of == {giver.task for giver in why(made.sources, name).givers}, wire.text(name)


def test_a_short_name_does_not_mean_every_name_it_is_part_of(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the services that could be meant are looked through."""
    made = made_of({"a": ("", 3, False), "payments": ("", 2, False)}, Rules())
    looked: list[str] = []
    plain = module._by_dialect  # what is counted
    monkeypatch.setattr(module, "_by_dialect", lambda task, *rest: looked.append(task.task.name) or plain(task, *rest))

    why(made.sources, wire.parse_text("payments.marathon.mesos") or b"")
    assert ["payments", "payments"] == looked
