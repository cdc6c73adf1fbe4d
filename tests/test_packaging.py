"""What a project gets that installs the package from an index: the wheel and nothing else."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.full

PACKAGE = "django_secret_registry"

PROJECT = Path(__file__).with_name("projects") / "installed.py"
#: What an environment holds that needs nothing but Django and django-environ.
BARE = {"asgiref", "django", "django-environ", "django-secret-registry", "sqlparse"}
#: By extra: the aliases that find their library and the classes that can be imported.
EXTRAS = {
    "none": ({}, []),
    "aws": ({"aws": "SecretsManagerProvider", "ssm": "ParameterStoreProvider"}, []),
    "gcp": ({"gcp": "SecretManagerProvider"}, []),
    "azure": ({"azure": "KeyVaultProvider"}, []),
    "vault": ({"vault": "VaultProvider"}, []),
    "kubernetes": ({"k8s": "SecretProvider"}, []),
    "prometheus": ({}, ["ExportToDjangoView"]),
    "redis": ({}, ["RedisBus", "Redis"]),
    "postgres": ({}, ["DatabaseWrapper", "Connection"]),
}
OF_ALIAS = {alias: extra for extra, (aliases, _) in EXTRAS.items() for alias in aliases}
EXTRAS["all"] = (
    {alias: name for aliases, _ in EXTRAS.values() for alias, name in aliases.items()},
    [name for _, classes in EXTRAS.values() for name in classes],
)


def run(*command: str | Path, cwd: Path | None = None) -> str:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def dist(pytestconfig, tmp_path_factory) -> Path:
    """Build the sdist, and the wheel from it."""
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--outdir", folder, pytestconfig.rootpath)
    return folder


@pytest.fixture(scope="module")
def wheel(dist) -> Path:
    return next(dist.glob("*.whl"))


def test_wheel_holds_every_file_of_the_package(wheel, pytestconfig):
    """Modules, templates, static files, migrations and py.typed are all in the wheel."""
    source = pytestconfig.rootpath
    expected = {
        path.relative_to(source).as_posix()
        for path in (source / PACKAGE).rglob("*")
        # No caches: __pycache__, and what hides behind a dot.
        if path.is_file() and not re.search(r"/(\.|__pycache__)", path.as_posix())
    }
    names = set(zipfile.ZipFile(wheel).namelist())
    assert f"{PACKAGE}/py.typed" in expected
    assert {name for name in names if ".dist-info/" not in name} == expected
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)
    # W004: the names of migrations begin with a digit.
    run(sys.executable, "-m", "check_wheel_contents", "--ignore", "W004", wheel)


def test_sdist_can_run_its_tests(dist):
    """The sdist holds what the tests need, so that a distributor can run them."""
    with tarfile.open(next(dist.glob("*.tar.gz"))) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    wanted = {"pyproject.toml", "tox.ini", "README.md", "CHANGELOG.md", "LICENSE"}
    others = {"tests/conftest.py", "trials/conftest.py", "example_project/manage.py"}
    others.add("docs/monitoring/alerts.yml")
    assert wanted | others <= names


def test_metadata(dist, pytestconfig):
    """An index would take both: their metadata is valid and the README can be rendered."""
    run(sys.executable, "-m", "twine", "check", "--strict", *dist.iterdir())
    run(sys.executable, "-m", "validate_pyproject", pytestconfig.rootpath / "pyproject.toml")


def test_version_stands_in_one_place(dist, pytestconfig):
    """Both files are of the version that the package says, which nothing else states."""
    said = re.search(
        r'^__version__ = "(.+)"$',
        (pytestconfig.rootpath / PACKAGE / "__init__.py").read_text(),
        re.MULTILINE,
    )
    assert said is not None
    assert {path.name for path in dist.iterdir()} == {
        f"{PACKAGE}-{said[1]}.tar.gz",
        f"{PACKAGE}-{said[1]}-py3-none-any.whl",
    }


def test_changelog_has_a_place_for_what_changes(pytestconfig):
    """The changelog begins with what is not released, and its versions are those of releases."""
    headings = re.findall(
        r"^## (.+)$", (pytestconfig.rootpath / "CHANGELOG.md").read_text(), re.MULTILINE
    )
    assert headings[0] == "Unreleased"
    assert all(re.fullmatch(r"\d+\.\d+\.\d+ - \d{4}-\d\d-\d\d", one) for one in headings[1:])


@pytest.fixture
def installed(wheel, tmp_path):
    """Install the wheel with an extra into an empty environment; return what a project finds."""

    def install(extra: str) -> dict[str, Any]:
        venv.create(tmp_path / "venv")
        python = tmp_path / "venv" / "bin" / "python"
        wanted = wheel if extra == "none" else f"{wheel}[{extra}]"
        run(
            *(sys.executable, "-m", "pip", "--python", python, "install", "-q", "--no-compile"),
            wanted,
        )
        return json.loads(run(python, "-I", PROJECT, extra, cwd=tmp_path).splitlines()[-1])

    return install


@pytest.mark.parametrize("extra", EXTRAS)
def test_installed_wheel_works(extra, installed, wheel, tmp_path):
    """With each extra alone the wheel's app starts, is checked, reads a secret, builds clients."""
    found = installed(extra)
    assert Path(found["file"]).is_relative_to(tmp_path)
    assert found["version"] in wheel.name
    assert {"secret_cache", "warm_secrets"} <= set(found["commands"])
    assert found["entry_points"] == {PACKAGE: f"{PACKAGE}.pytest_plugin"}
    assert found["value"] == "of the environment"
    assert sorted(found["classes"]) == sorted(EXTRAS[extra][1])
    if extra == "none":
        assert set(found["distributions"]) == BARE
        # Each alias' check and error say which extra to install.
        assert found["warnings"] == len(found["clients"])
        assert found["clients"] == {
            alias: f"Install django-secret-registry[{name}]." for alias, name in OF_ALIAS.items()
        }
    else:
        assert found["warnings"] == 0
        assert found["clients"] == EXTRAS[extra][0]
    assert found.get("metrics", True)


def test_every_extra_is_tried(wheel):
    """No extra of the metadata is without a test."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (one for one in archive.namelist() if one.endswith(".dist-info/METADATA"))
        metadata = archive.read(name).decode()
    assert set(re.findall(r"^Provides-Extra: (.+)$", metadata, re.MULTILINE)) == (
        EXTRAS.keys() - {"none"}
    )
