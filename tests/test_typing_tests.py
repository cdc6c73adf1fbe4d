"""``typing_tests``, which the type checkers read, leave out no public name."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE, CHECKED = ROOT / "django_secret_registry", ROOT / "typing_tests"
MODULES = (
    "__init__",
    "conformance",
    "database",
    "db/backends/mysql/base",
    "db/backends/postgresql/base",
    "db/mixin",
    "debug",
    "environ",
    "providers/__init__",
    "providers/base",
    "pytest_plugin",
    "redaction",
    "signals",
    "test",
)


def public(module: str) -> set[str]:
    """Return the names of ``__all__``, or else what the module defines without an underscore."""
    tree = ast.parse((PACKAGE / f"{module}.py").read_text())
    names = {name: value for node in tree.body for name, value in defined(node)}
    if "__all__" in names:
        return set(ast.literal_eval(names["__all__"]))
    private = {name for name in names if name.startswith(("_", "pytest_"))} | {"logger"}  # hooks
    type_variables = {
        name
        for name, value in names.items()
        if isinstance(value, ast.Call) and getattr(value.func, "id", "") == "TypeVar"
    }
    return set(names) - private - type_variables


def defined(node: ast.stmt) -> Iterator[tuple[str, ast.expr | None]]:
    if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        yield node.name, None
    elif isinstance(node, ast.Assign):
        yield from ((target.id, node.value) for target in node.targets if type(target) is ast.Name)
    elif isinstance(node, ast.AnnAssign) and type(node.target) is ast.Name:
        yield node.target.id, node.value


def used() -> set[str]:
    """Return the names that the files use; one that is only imported says nothing of its type."""
    names = set()
    for path in CHECKED.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Name):
                names.add(node.id)
            elif isinstance(node, ast.alias) and node.asname:
                names.add(node.name)  # under another name, which linters want to be used
    return names


@pytest.mark.parametrize("module", MODULES)
def test_every_public_name(module):
    """Each public name of the module stands in ``typing_tests``."""
    names = public(module)
    assert names
    assert names - used() == set()
