"""The node store: transactions, versions, sequences, sessions. Compared with a plain dictionary."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead_daemon.errors import Conflict
from fairlead_discovery.decisions.nodes import Effects, Nodes
from fairlead_discovery.decisions.ops import AnyOp, Check, Drop, Make, Set
from fairlead_discovery.registry import ANY, NEW


def contents(nodes: Nodes) -> dict[str, tuple[bytes, int, str]]:
    return {p: (e.data, e.version, e.owner) for p, e in nodes.everything().nodes.items() if e is not None}


def test_versions_count_the_sets():
    """0 when new, one more at each set, 0 again after a removal."""
    nodes = Nodes()
    results = nodes.apply((Set(path="/a"), Set(path="/a"), Drop(path="/a"), Set(path="/a")), session="").results

    assert (0, 1, 0, 0) == results


def test_folders_are_implied():
    """They come and go with what lies in them."""
    nodes = Nodes()
    nodes.apply((Set(path="/a/b/c"), Set(path="/a/d")), session="")
    assert (("a",), ("b", "d"), ("c",)) == (nodes.names("/"), nodes.names("/a"), nodes.names("/a/b"))
    assert {"d"} == set(nodes.nodes("/a"))

    nodes.apply((Drop(path="/a/b/c"),), session="")
    assert ("d",) == nodes.names("/a")
    assert () == nodes.names("/a/b")


def test_a_node_with_others_below_it_stays():
    """As in ZooKeeper: no subtree is lost by mistake."""
    nodes = Nodes()
    nodes.apply((Set(path="/a"), Set(path="/a/b")), session="")

    with pytest.raises(Conflict, match="/a: other nodes lie below it"):
        nodes.apply((Drop(path="/a"),), session="")


def test_a_sessions_nodes_go_with_it():
    """And with no other's."""
    nodes = Nodes()
    nodes.open_session("s")
    nodes.open_session("t")
    nodes.apply((Make(path="/x/1", data=b""), Make(path="/x/2", data=b"")), session="s")
    nodes.apply((Make(path="/x/3", data=b""), Drop(path="/x/2"), Make(path="/x/2", data=b"")), session="t")
    assert (("1",), ("2", "3")) == (nodes.owned("/x", "s"), nodes.owned("/x", "t"))

    assert {"/x/1": None} == nodes.end_session("s").nodes
    assert ("2", "3") == nodes.names("/x")
    with pytest.raises(Conflict, match="session has ended"):
        nodes.apply((Make(path="/x/4", data=b""),), session="s")


def test_sequence_numbers_never_come_twice():
    """Not after the node went, and not in a store that was loaded from disk."""
    nodes = Nodes()
    nodes.open_session("s")
    make = Make(path="/e/c_", data=b"", sequential=True)
    assert ("/e/c_0000000000", "/e/c_0000000001") == nodes.apply((make, make), session="s").results
    nodes.end_session("s")

    loaded = Nodes()
    loaded.load(nodes.everything())
    loaded.open_session("s")
    assert ("/e/c_0000000002",) == loaded.apply((make,), session="s").results


PATHS = st.sampled_from(("/a", "/a/b", "/a/b/c", "/d", "/d/e"))
OPS: st.SearchStrategy[AnyOp] = st.one_of(
    st.builds(Set, path=PATHS, data=st.sampled_from((b"", b"x")), expect=st.sampled_from((ANY, NEW, 0, 1))),
    st.builds(Drop, path=PATHS, expect=st.sampled_from((ANY, 0, 1)), missing_ok=st.booleans()),
    st.builds(Check, path=PATHS, version=st.sampled_from((ANY, 0, 1))),
    st.builds(Make, path=PATHS, data=st.just(b"e"), sequential=st.booleans()),
)


@given(st.lists(st.tuples(st.sampled_from("st"), st.lists(OPS, max_size=5)), max_size=12))
def test_transactions_are_whole_and_effects_tell_all(transactions: list[tuple[str, list[AnyOp]]]):
    """A refused one changes nothing; a store that was only told the effects is the same as the one that ran."""
    nodes, copy = Nodes(), Nodes()
    for session in "st":
        copy.load(nodes.open_session(session))
    for session, ops in transactions:
        before = contents(nodes)
        try:
            copy.load(nodes.apply(ops, session=session).effects)
        except Conflict:
            assert before == contents(nodes)
        assert contents(copy) == contents(nodes)
        assert copy.sessions == nodes.sessions
    copy.load(nodes.end_session("s"))

    assert contents(copy) == contents(nodes)
    assert not any(owner == "s" for _, _, owner in contents(nodes).values())
    for path in contents(nodes):
        folder, _, name = path.rpartition("/")
        assert name in nodes.names(folder or "/")


@given(st.lists(st.lists(OPS, max_size=3), max_size=8))
def test_a_loaded_store_goes_on_like_the_one_that_was_stored(transactions: list[list[AnyOp]]):
    """What is on disk is everything."""
    nodes = Nodes()
    nodes.open_session("s")
    half = len(transactions) // 2
    run(nodes, transactions[:half])
    loaded = Nodes()
    loaded.load(nodes.everything())

    assert run(nodes, transactions[half:]) == run(loaded, transactions[half:])
    assert contents(nodes) == contents(loaded)


def run(nodes: Nodes, transactions: list[list[AnyOp]]) -> list[object]:
    outcomes: list[object] = []
    for ops in transactions:
        try:
            outcomes.append(nodes.apply(ops, session="s").results)
        except Conflict as error:
            outcomes.append(str(error))
    return outcomes


def test_effects_of_a_batch_add_up():
    """The last word on each path is what goes to disk."""
    nodes, batch = Nodes(), Effects()
    for ops in ((Set(path="/a", data=b"1"),), (Set(path="/a", data=b"2"), Set(path="/b")), (Drop(path="/b"),)):
        batch.add(nodes.apply(ops, session="").effects)

    assert {"/a": nodes.get("/a"), "/b": None} == batch.nodes
