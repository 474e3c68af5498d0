"""The balancer's README has every label that is taken, and every module."""

from pathlib import Path

import fairlead_lb
from fairlead_discovery.decisions import labels, words

HERE = Path(fairlead_lb.__file__).parent
TEXT = (HERE.parent / "README.md").read_text()


def test_every_label_is_in_the_table() -> None:
    """And every word of the traffic rules in theirs."""
    wanted = {key.partition("_")[2] for key in (*labels.PER_PORT, *labels.TRAFFIC_PER_PORT, *labels.FOR_ANY_PORT)}
    table = TEXT.partition("### Labels")[2].partition("### Traffic rules")[0]
    rules = TEXT.partition("### Traffic rules")[2].partition("### Shares")[0]

    assert set() == {word for word in wanted if f"_{word}`" not in table}
    assert set() == {word for word in words.TRAFFIC if f"`{word}`" not in rules}


def test_every_module_is_in_the_table_of_files() -> None:
    """Those of a folder or a family by its name."""
    table = TEXT.partition("| file | holds |")[2].partition("###")[0]
    families = ("adapters/", "bamboo/", "decisions/bamboo", "decisions/acl")
    modules = [str(path.relative_to(HERE)) for path in HERE.rglob("*.py") if path.name != "__init__.py"]
    alone = [m for m in modules if not m.startswith(families)]

    assert [] == sorted(m for m in alone if f"`{m}`" not in table and f"`{m.removeprefix('decisions/')}`" not in table)
