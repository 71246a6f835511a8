"""docs/SECURITY.md names a test for every control, and every test that it names is there."""

import ast
import re
from functools import cache
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
LINK: Final = re.compile(r"`(tests/\w+/\w+\.py)::(\w+)`")
PAGE: Final = ROOT / "docs" / "SECURITY.md"


@cache
def _tests_of(file: str) -> frozenset[str]:
    path = ROOT / file
    if not path.exists():
        return frozenset()
    tree = ast.parse(path.read_text())
    return frozenset(
        node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    )


def _rows() -> list[list[str]]:
    lines = [line for line in PAGE.read_text().splitlines() if line.startswith("| ")]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return [row for row in rows if row[0] != "control"]


def test_every_control_has_a_clause_and_a_test_or_an_issue() -> None:
    rows = _rows()
    assert len(rows) > 50
    for row in rows:
        assert len(row) == 3, row
        control, clause, shown = row
        assert control and clause, row
        assert LINK.search(shown) or re.search(r"issue \d", shown), f"nothing shows: {control}"


def test_every_test_that_is_named_is_there() -> None:
    gone = [f"{file}::{name}" for file, name in LINK.findall(PAGE.read_text()) if name not in _tests_of(file)]
    assert not gone, "\n".join(gone)


def test_no_name_of_a_test_is_written_some_other_way() -> None:
    """Else it would not be looked at."""
    text = PAGE.read_text()
    assert text.count("::") == len(LINK.findall(text))


def test_pages_that_are_named_are_there() -> None:
    gone = [
        name for name in re.findall(r"\]\((\w+\.md)\)", PAGE.read_text()) if not (PAGE.parent / name).exists()
    ]
    assert not gone
