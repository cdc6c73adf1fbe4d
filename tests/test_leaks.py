"""No secret is seen on any path, with everything switched on at once; and each leak is found."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.leaks import planted
from tests.leaks.planted import Plant
from tests.servers import aws, azure, gcp, kubernetes, openbao
from tests.servers.libraries import lacking

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "django_secret_registry"
DOCUMENT = ROOT / "docs" / "leaks.md"


def driven(*names: str, where: Path = ROOT) -> dict[str, list[str]]:
    """Drive paths in a new process, with the package that lies in ``where``."""
    # The lines of a copy are none of the package's: coverage.py does not count them.
    left_out = ("AWS_",) if where == ROOT else ("AWS_", "COVERAGE_")
    environment = {
        **{key: value for key, value in os.environ.items() if not key.startswith(left_out)},
        "PYTHONPATH": os.pathsep.join((str(where), str(ROOT))),
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    done = subprocess.run(
        [sys.executable, "-m", "tests.leaks", *names],
        cwd=where,
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, list[str]] = json.loads(done.stdout.splitlines()[-1])
    return found


def documented() -> set[str]:
    """Return the paths that the document's tables name in their last column."""
    rows = [line for line in DOCUMENT.read_text().splitlines() if line.startswith("|")]
    return {name for row in rows for name in re.findall("`([^`]+)`", row.split("|")[-2])}


def test_each_path_has_its_planted_leak():
    """For each path that the document calls safe there is a leak to be found."""
    plants = {plant.path for plant in (*planted.CORE, *planted.BACKENDS)}
    # What Python's own faulthandler writes is not made by code of ours.
    assert plants == {name for name in documented() if "shown:" not in name} - {"faulthandler"}


@pytest.fixture(scope="module", autouse=True)
def libraries() -> None:
    if reason := lacking(
        "sentry-sdk celery prometheus-client", "sentry_sdk", "celery", "kombu", "prometheus_client"
    ):
        pytest.skip(reason)


@pytest.fixture
def backends() -> None:
    for server in (aws, azure, gcp, kubernetes, openbao):
        if reason := server.missing():
            pytest.skip(reason)


def test_nothing_is_seen():
    """With all switched on, each path shows what the documentation says: nothing, mostly."""
    found = driven()
    assert {name: where for name, where in found.items() if where} == {}
    assert {*found, *(plant.path for plant in planted.BACKENDS)} == documented()


@pytest.mark.full
def test_nothing_is_seen_of_backends(backends):
    """What the SDKs log at DEBUG while this package calls them shows no secret."""
    found = driven("backends")
    assert {name: where for name, where in found.items() if where} == {}
    assert set(found) == {plant.path for plant in planted.BACKENDS}


def unfound(plants: Sequence[Plant], where: Path) -> str:
    """Plant one leak in a copy of the package; return what goes wrong if it is not found."""
    copy, plant = where / PACKAGE.name, plants[0]
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    file = copy / plant.file
    source = file.read_text()
    if plant.old not in source:
        return f"{plant.file} has no {plant.old!r}"
    file.write_text(source.replace(plant.old, plant.new))
    found = driven(*{one.path for one in plants}, where=where)
    missed = [
        f"{one.path}, {one.where}"
        for one in plants
        if not any(one.where in place for place in found[one.path])
    ]
    return f"{plant.file}, {plant.new!r}: {missed} not in {found}" if missed else ""


def assert_found(plants: Sequence[Plant], where: Path) -> None:
    """Plant each leak; one that several paths have to find is planted once."""
    leaks: dict[tuple[str, ...], list[Plant]] = {}
    for plant in plants:
        leaks.setdefault((plant.file, plant.old, plant.new), []).append(plant)
    folders = [where / str(number) for number in range(len(leaks))]
    with ThreadPoolExecutor(2) as pool:
        missed = [one for one in pool.map(unfound, leaks.values(), folders) if one]
    assert missed == []


@pytest.mark.full
def test_each_planted_leak_is_found(tmp_path):
    """The suite is no decoration: a leak that is put into the code is found on its path."""
    assert_found(planted.CORE, tmp_path)


@pytest.mark.full
def test_each_planted_leak_of_a_backend_is_found(tmp_path, backends):
    """An SDK that is allowed to log is found, and so is a provider that logs an answer."""
    assert_found(planted.BACKENDS, tmp_path)
