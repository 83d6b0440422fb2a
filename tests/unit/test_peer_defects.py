"""The page about peers' defects names tests that exist."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "peer-defects.md").read_text(encoding="utf-8")
TEST = re.compile(r"`(tests/[^`]*)`")


def rows(page: str) -> list[list[str]]:
    """Read the cells of the table, without its head."""
    lines = [line for line in page.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def problems(page: str) -> list[str]:
    """Name every row that promises what is not there."""
    found = []
    for peer, defect, applies, protection, tests in rows(page):
        named = TEST.findall(tests)
        if not (peer and defect and protection) or (applies.startswith("yes") and not named):
            found.append(f"{peer}: {defect}: says too little")
        found += [f"{peer}: there is no {name}" for name in named if not is_test(name)]
    return found


def is_test(name: str) -> bool:
    """Tell whether a file holds a test function of this name."""
    path, _, function = name.partition("::")
    file = ROOT / path
    return (
        file.name.startswith("test_")
        and file.is_file()
        and function.startswith("test_")
        and any(
            isinstance(node, ast.FunctionDef) and node.name == function
            for node in ast.parse(file.read_text(encoding="utf-8")).body
        )
    )


def test_every_defect_that_applies_has_tests_that_exist() -> None:
    """A test that is renamed or dropped must not leave its promise behind."""
    assert len(rows(PAGE)) >= 30
    assert problems(PAGE) == []


@pytest.mark.parametrize(
    "cells",
    [
        "peer | defect | yes | protection | `tests/unit/test_peer_defects.py::test_that_is_not_there`",
        "peer | defect | yes | protection | `tests/unit/test_no_such_file.py::test_anything`",
        "peer | defect | yes | protection | `tests/unit/test_peer_defects.py::rows`",
        "peer | defect | yes, was ours | protection |",
        "peer | defect | no | | ",
    ],
)
def test_broken_promise_is_found(cells: str) -> None:
    """Each way in which a row can be wrong."""
    assert problems(f"| head |\n|---|\n| {cells} |\n") != []
