"""What the package is made of, and what is installed to test it."""

from __future__ import annotations

import ast
import itertools
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

pytestmark = pytest.mark.full

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "django_secret_registry"
LOCKS = sorted((ROOT / "requirements").glob("*.txt"))

#: What makes code of data, or starts programs.
MODULES = {
    "code",
    "commands",
    "ctypes",
    "dill",
    "jsonpickle",
    "marshal",
    "multiprocessing",
    "pickle",
}
MODULES |= {"pty", "runpy", "shelve", "subprocess", "yaml"}
CALLS = {"eval", "exec", "compile", "__import__", "breakpoint"}
OF_OS = re.compile(r"(system|popen|startfile|exec[lv]p?e?|spawn[lv]p?e?|posix_spawnp?)\Z")


def faults(source: str) -> list[str]:
    """Return what a module must not have, with its lines."""
    found = []
    for node in ast.walk(ast.parse(source)):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names = [node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Assert):
            found.append(f"{node.lineno}: assert")
        elif isinstance(node, ast.Name) and node.id in CALLS:
            found.append(f"{node.lineno}: {node.id}")
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            names = [f"{node.value.id}.{node.attr}"]
        imported = not isinstance(node, ast.Attribute)
        for name in names:
            module, _, rest = name.partition(".")
            is_program = module == "os" and OF_OS.match(rest)
            if (
                (imported and module in MODULES)
                or is_program
                or name in ("builtins.eval", "builtins.exec")
            ):
                found.append(f"{getattr(node, 'lineno', 0)}: {name}")
    return found


@pytest.mark.parametrize(
    "planted",
    [
        "import pickle",
        "from pickle import loads",
        "import os.path, subprocess as s",
        "def f():\n    from yaml import safe_load",
        "import os\nos.system('x')",
        "from os import popen",
        "from os import execv as f",
        "assert x",
        "eval('x')",
        "run = exec",
        "import shelve",
        "import marshal",
    ],
)
def test_what_must_not_be_there_would_be_found(planted: str) -> None:
    """The look at the sources sees each of these, wherever it stands."""
    assert faults(planted)


@pytest.mark.parametrize("harmless", ["import copy", "re.compile('x')", "os.fork()", "self.exec"])
def test_what_may_be_there_is_not_found(harmless: str) -> None:
    """Nor does it see what is not there."""
    assert faults(harmless) == []


def test_the_package_makes_no_code_of_data_and_starts_no_program() -> None:
    """No eval, exec, pickle, marshal, shelve, YAML or subprocess, and no ``assert`` that ``-O``
    would take away; a conformance suite, which is a test that others run, asserts.
    """
    found = {
        str(path.relative_to(PACKAGE)): told
        for path in sorted(PACKAGE.rglob("*.py"))
        if (told := faults(path.read_text()))
    }
    suite = found.pop("conformance.py")
    assert {text.partition(": ")[2] for text in suite} == {"assert"}
    assert found == {}


# -- the lock --------------------------------------------------------------------------------------


def pins(path: Path) -> Iterator[tuple[Requirement, list[str]]]:
    """Yield the releases of a lock, and the hashes of their files."""
    text = path.read_text().replace("\\\n", " ")
    for line in text.splitlines():
        if line.strip() and not line.lstrip().startswith("#"):
            requirement, *hashes = re.split(r"\s--hash=", line)
            yield Requirement(requirement.strip()), [one.strip() for one in hashes]


def locked(*names: str) -> dict[str, list[Version]]:
    found: dict[str, list[Version]] = {}
    for name in names:
        for requirement, _ in pins(ROOT / "requirements" / name):
            (pin,) = requirement.specifier
            found.setdefault(canonicalize_name(requirement.name), []).append(Version(pin.version))
    return found


def declared() -> Iterator[Requirement]:
    """Yield whatever pyproject.toml and tox.ini ask for."""
    project: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())
    lists = [
        project["build-system"]["requires"],
        project["project"]["dependencies"],
        *project["project"]["optional-dependencies"].values(),
        *project["dependency-groups"].values(),
    ]
    for text in itertools.chain(*lists):
        if isinstance(text, str) and not text.startswith(project["project"]["name"]):
            yield Requirement(text)
    for text in re.findall(
        r"^ +[a-z0-9{},]+: ([A-Za-z][\w-]+[~>=].*)$", (ROOT / "tox.ini").read_text(), re.MULTILINE
    ):
        yield Requirement(text)


def test_there_are_locks() -> None:
    """One for everything but Django, and one for each choice of it."""
    names = ["django.txt", "django52.txt", "django60.txt", "django61.txt", "lock.txt"]
    assert [path.name for path in LOCKS] == names
    assert len(list(pins(ROOT / "requirements" / "lock.txt"))) > 100


@pytest.mark.parametrize("path", LOCKS, ids=lambda path: path.name)
def test_each_release_is_pinned_and_hashed(path: Path) -> None:
    """pip installs from any index, and takes only files that are one of these."""
    for requirement, hashes in pins(path):
        assert [pin.operator for pin in requirement.specifier] == ["=="], requirement
        assert requirement.url is None
        assert hashes, requirement
        assert all(re.fullmatch(r"sha256:[0-9a-f]{64}", one) for one in hashes), requirement
    assert not re.search(
        r"://|^\s*-|file:|index-url|find-links", _without_hashes(path), re.MULTILINE
    )


def _without_hashes(path: Path) -> str:
    return re.sub(r"^ +--hash=sha256:[0-9a-f]+( \\)?$", "", path.read_text(), flags=re.MULTILINE)


def test_the_lock_has_what_is_asked_for() -> None:
    """A dependency that is new, or asked for in a newer version, stands in the lock: ``tox run -e
    lock`` adds it. Without that pip would refuse it in every environment.
    """
    known = locked(*(path.name for path in LOCKS))
    missing = [
        str(requirement)
        for requirement in declared()
        if not any(
            version in requirement.specifier
            for version in known.get(canonicalize_name(requirement.name), ())
        )
    ]
    assert missing == []


@pytest.mark.parametrize(("name", "series"), [("52", "5.2"), ("60", "6.0"), ("61", "6.1")])
def test_each_environment_has_its_django(name: str, series: str) -> None:
    """The file of a factor of tox.ini has that Django, and no other file has one."""
    ((package, versions),) = locked(f"django{name}.txt").items()
    assert package == "django"
    assert [f"{version.major}.{version.minor}" for version in versions] == [series]
    assert "django" not in locked("lock.txt")
