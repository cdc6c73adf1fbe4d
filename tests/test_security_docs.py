"""docs/security.md names tests that exist, and all of the chapters that it says it does."""

from __future__ import annotations

import ast
import functools
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "security.md").read_text()
NAMED = sorted(set(re.findall(r"`(tests/[\w/.]+?\.py(?:::\w+)?)`", PAGE)))

#: Requirements of each section of the ASVS 5.0.
SECTIONS = {11: (4, 5, 5, 4, 2, 2, 2), 13: (4, 6, 4, 7), 14: (2, 8, 3), 15: (5, 5, 7, 4)}
SECTIONS[16] = (1, 5, 4, 3, 4)


@functools.cache
def defined_in(path: Path) -> frozenset[str]:
    return frozenset(
        node.name
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    )


def test_claims_name_tests() -> None:
    """The page has evidence, and nothing in it looks like evidence in another form."""
    assert len(NAMED) > 80
    assert len(re.findall(r"tests/\w+", PAGE)) == len(re.findall(r"`tests/[\w/.]+\.py", PAGE))


@pytest.mark.parametrize("named", NAMED)
def test_each_test_that_is_named_exists(named: str) -> None:
    """A claim ends with its test: whoever renames or removes one sees what it held."""
    file, _, test = named.partition("::")
    path = ROOT / file
    assert path.is_file()
    assert not test or test in defined_in(path)


def test_each_requirement_has_a_row() -> None:
    """No requirement of the chapters is left out, and none stands there twice."""
    rows = re.findall(
        r"^\| (\d+\.\d+\.\d+) [^|]+ \| (?:ours|in part|yours|none) \|", PAGE, re.MULTILINE
    )
    assert rows == [
        f"{chapter}.{section}.{number}"
        for chapter, counts in SECTIONS.items()
        for section, count in enumerate(counts, 1)
        for number in range(1, count + 1)
    ]


def test_what_is_ours_has_something_to_say() -> None:
    """A row without evidence or reason is none."""
    for line in PAGE.splitlines():
        if " | ours | " in line or " | in part | " in line:
            assert len(line.rpartition("|")[0].rpartition("|")[2].strip()) > 10, line
