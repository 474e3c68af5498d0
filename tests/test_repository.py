"""The repository's own rules: folders, READMEs, sizes, links, commands, and nothing of the place where it was written."""

import ast
import re
import statistics
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from fairlead_console.cli import VERBS, cli
from fairlead_console.main import DAEMONS

ROOT = Path(__file__).parent.parent
PACKAGES = ("daemon", "discovery", "core", "dns", "lb", "messaging", "monitoring", "console")
HEADINGS = ["What it does", "Settings", "Metrics", "Failure behaviour", "Examples"]
LONGEST_FILE = 500
LONG_FILES: dict[str, str] = {}
"""Path -> why it is one file all the same."""
LONGEST_MEDIAN_FUNCTION = 10


def tracked(*patterns: str) -> list[Path]:
    """Files of the repository; of the working tree when it is no git checkout."""
    try:
        out = subprocess.run(
            ["git", "ls-files", "-z", "--", *patterns], cwd=ROOT, capture_output=True, text=True, check=True
        ).stdout
    except (OSError, subprocess.CalledProcessError):
        return [p for pattern in patterns for p in ROOT.rglob(pattern) if ".venv" not in p.parts]
    return [ROOT / name for name in out.split("\0") if name and (ROOT / name).is_file()]


@cache
def readmes() -> tuple[Path, ...]:
    return tuple(tracked("*.md"))


def headings(text: str) -> Iterator[tuple[int, str]]:
    fenced = False
    for line in text.splitlines():
        fenced ^= line.startswith("```")
        if not fenced and (match := re.match(r"(#+) (.+)", line)):
            yield len(match[1]), match[2].strip()


@pytest.mark.parametrize("folder", PACKAGES)
def test_every_readme_has_the_same_headings(folder: str):
    """Name, what it does, settings, metrics, failure behaviour, examples: whoever knows one knows where to look."""
    found = [(level, text) for level, text in headings((ROOT / folder / "README.md").read_text()) if level < 3]

    assert [(1, folder), *((2, heading) for heading in HEADINGS)] == found


@pytest.mark.parametrize("folder", PACKAGES)
def test_a_top_level_folder_is_no_package(folder: str):
    """A `dns/__init__.py` would hide dnspython from anyone who stands in the repository."""
    stray = ROOT / folder / "__init__.py"
    package = ROOT / folder / f"fairlead_{folder}" / "__init__.py"

    assert (False, True) == (stray.exists(), package.exists())


def test_every_package_says_what_it_promises():
    """The docstring of a package is its contract."""
    silent = [f for f in PACKAGES if not ast.get_docstring(parsed(ROOT / f / f"fairlead_{f}" / "__init__.py"))]

    assert [] == silent


def test_no_file_is_long_without_a_reason():
    """Over 500 lines a file has more than one subject."""
    long = {str(f.relative_to(ROOT)) for f in tracked("*.py") if len(f.read_text().splitlines()) > LONGEST_FILE}

    assert set(LONG_FILES) == long


def statements(tree: ast.AST) -> Iterator[ast.AST]:
    """All but what is inside expressions, which hold no functions and nine nodes of ten."""
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        yield node
        waiting.extend(child for child in ast.iter_child_nodes(node) if not isinstance(child, ast.expr))


def test_functions_are_short():
    """The median function of the packages is under ten lines."""
    lengths = [
        node.end_lineno - node.lineno + 1
        for folder in PACKAGES
        for file in (ROOT / folder).rglob("*.py")
        for node in statements(parsed(file))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno is not None
    ]

    assert statistics.median(lengths) < LONGEST_MEDIAN_FUNCTION


def test_no_module_is_named_after_nothing():
    """A module is named after its subject."""
    nameless = {"utils.py", "util.py", "common.py", "helpers.py", "misc.py"}

    assert [] == [str(f.relative_to(ROOT)) for f in tracked("*.py") if f.name in nameless]


def test_links_lead_somewhere():
    """Every relative link of a document is a file, every `#anchor` a heading."""
    broken = [
        f"{file.relative_to(ROOT)}: {target}"
        for file in readmes()
        for target in re.findall(r"\]\(([^)\s]+)\)", file.read_text())
        if "://" not in target and not leads_somewhere(file, target)
    ]

    assert [] == broken


def leads_somewhere(file: Path, target: str) -> bool:
    name, _, anchor = target.partition("#")
    there = (file.parent / name) if name else file
    if not there.exists():
        return False
    return not anchor or anchor in {slug(text) for _, text in headings(there.read_text())}


def slug(heading: str) -> str:
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


NOT_YET = re.compile(r".*not yet.*", re.IGNORECASE)


def test_commands_in_documents_exist():
    """Every `fairlead …` that a document shows is a verb or a daemon, and so is its second word."""
    unknown = {
        f"{file.relative_to(ROOT)}: {' '.join(words)}"
        for file in readmes()
        for words in commands(file.read_text())
        if not exists(words)
    }

    assert set() == unknown


def commands(text: str) -> Iterator[list[str]]:
    """First two words after `fairlead` in code; lines that say "not yet" promise nothing."""
    for part in code(text):
        for found in re.findall(r"(?:^|[$/|] ?)fairlead ([a-z][a-z-]*)((?: [a-z][a-z-]*)?)(?=[^a-z-]|$)", part):
            yield [word.strip() for word in found if word.strip()]


def code(text: str) -> Iterator[str]:
    """Fenced lines, and what stands in backticks elsewhere."""
    fenced = False
    for line in text.splitlines():
        fenced ^= line.startswith("```")
        if not NOT_YET.match(line):
            yield from [line] if fenced else re.findall(r"`([^`]+)`", line)


def exists(words: list[str]) -> bool:
    verb, *rest = words
    if verb in DAEMONS and not rest:
        return True
    if verb not in VERBS:
        return False
    command = cli.get_command(None, verb)  # type: ignore[attr-defined,arg-type]  # our group asks nothing of it
    known = getattr(command, "commands", None)
    return known is None or not rest or rest[0] in known


@pytest.mark.parametrize("verb", VERBS)
def test_every_help_has_an_example(verb: str):
    """`fairlead <verb> --help` shows how it is used, and so does each of its own verbs."""
    command = cli.get_command(None, verb)  # type: ignore[attr-defined,arg-type]  # see above
    every = [command, *getattr(command, "commands", {}).values()]

    assert [] == [c.name for c in every if "Example: fairlead " not in f"{c.help} {c.epilog}"]


def test_nothing_names_the_place_where_it_was_written():
    """No absolute path of a developer's machine stands in the repository."""
    places = [f"{place}/" for place in (ROOT.parent, Path.home()) if place != Path("/")]
    found = [
        f"{file.relative_to(ROOT)}: {place}"
        for file in tracked()
        for place in places
        if re.search(rf"(?<![\w.*$}}]){re.escape(place)}\w", file.read_text(errors="replace"))
    ]

    assert [] == found


def test_pins_are_exact():
    """constraints.txt holds `name==version` lines and nothing else."""
    lines = (ROOT / "constraints.txt").read_text().splitlines()

    assert [] == [line for line in lines if not re.fullmatch(r"[\w.-]+==[\w.]+", line)]
    assert lines


def test_every_make_target_is_a_script():
    """The Makefile is thin: a target calls the script of its name."""
    targets = re.search(r"^\.PHONY: (.+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)

    assert targets is not None
    assert [] == [t for t in targets[1].split() if not (ROOT / "scripts" / t).stat().st_mode & 0o100]


def parsed(file: Path) -> ast.Module:
    return ast.parse(file.read_text())
