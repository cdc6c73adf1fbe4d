"""What follows a rotation: stock packages in a project whose one secret rotates."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

from tests import followers
from tests.followers import FOLLOWERS
from tests.live_support import run

pytestmark = pytest.mark.full


PACKAGES = (
    "allauth", "anymail", "channels_redis", "django_redis", "djstripe", "oauth2_provider",
    "rest_framework_simplejwt", "social_django", "storages",
)  # fmt: skip


def looked(where: Path, *arguments: str) -> Any:
    """Run the project; return what each follower uses before and after the rotation."""
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        pytest.skip(f"needs {', '.join(missing)}: pip install --group followers")
    # The packages warn of one another and of Python.
    done = run("-m", "tests.projects.followers", *arguments, where=where, warnings="ignore")
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return looked(tmp_path_factory.mktemp("alone"))


@pytest.fixture(scope="module")
def helped(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return looked(tmp_path_factory.mktemp("helped"), "helped")


@pytest.mark.parametrize("name", FOLLOWERS)
def test_alone(name: str, alone: Any) -> None:
    """Without rebinding it uses the new secret if the table says so, and else the old one."""
    assert alone["before"][name] == "old"
    assert alone["after"][name] == ("new" if FOLLOWERS[name].alone else "old")


@pytest.mark.parametrize("name", FOLLOWERS)
def test_helped(name: str, helped: Any) -> None:
    """With what the table says it uses the new secret after the rotation."""
    assert helped["before"][name] == "old"
    assert helped["after"][name] == ("old" if FOLLOWERS[name].never else "new")


def test_table(helped: Any) -> None:
    """The table has a line for each package of the project, and is the document's."""
    assert FOLLOWERS.keys() == helped["after"].keys()
    assert followers.DOCUMENT.read_text() == followers.document()
