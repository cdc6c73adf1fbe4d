"""``check --deploy``: secrets that somebody copies and nobody rebinds."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
from django.core.checks import run_checks
from django.test import override_settings

from django_secret_registry import secret
from django_secret_registry.checks import check_configuration
from django_secret_registry.deploy_checks import DEAF, LISTENING, check_rotation
from tests.rotating import Vault


def told(rebind: tuple[Any, ...] = (), **settings: Any) -> list[tuple[str, str]]:
    """Return id and place of what the checks say of a project with these settings."""
    settings["SECRET_REGISTRY"] = Vault().settings(REBIND=list(rebind))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Overriding setting DATABASES")
        with override_settings(**settings):
            return [(str(one.id), one.msg.split()[0]) for one in check_rotation()]


def reset(**kwargs: Any) -> None:
    """Stand for a function of the project."""


VALUE = secret("vault://value")


@pytest.mark.parametrize("name", ["SIMPLE_JWT", "OAUTH2_PROVIDER", "CHANNEL_LAYERS"])
def test_listening_readers(name):
    """A setting whose reader copies it is warned of until REBIND names it."""
    config = {"default": {"KEY": [VALUE]}}
    assert told(**{name: config}) == [("secret_registry.W007", f"settings.{name}")]
    assert told((name,), **{name: config}) == []
    assert told((reset,), **{name: config}) == []
    assert told(**{name: {"KEY": "literal"}}) == []


@pytest.mark.parametrize("name", ["CELERY_RESULT_BACKEND", "CELERY_BROKER_URL"])
def test_celery(name):
    """Celery's results and its pool are warned of until there is a function in REBIND."""
    expected = [("secret_registry.W007", f"settings.{name}")]
    assert told(**{name: VALUE}) == expected
    assert told(("SIMPLE_JWT",), **{name: VALUE}) == expected
    assert told(("tests.test_deploy_checks.reset",), **{name: VALUE}) == []


@pytest.mark.parametrize(
    ("engine", "options", "warned"),
    [
        ("django.db.backends.postgresql", {"pool": True}, True),
        ("django.db.backends.postgresql", {}, False),
        ("django_secret_registry.db.backends.postgresql", {"pool": True}, False),
        ("there.is.none", {"pool": True}, False),
    ],
)
def test_pools(engine, options, warned):
    """A pool of Django's own engine is warned of: it keeps its first password."""
    database = {"ENGINE": engine, "OPTIONS": options, "PASSWORD": VALUE}
    expected = [("secret_registry.W007", "settings.DATABASES['default']")] if warned else []
    assert told(DATABASES={"default": database}) == expected
    literal = {**database, "PASSWORD": "literal"}
    assert told(DATABASES={"default": literal}) == []


def test_secret_key():
    """A SECRET_KEY that is a secret is warned of as long as no fallback is one."""
    assert told(SECRET_KEY=VALUE) == [("secret_registry.W008", "settings.SECRET_KEY")]
    assert told(SECRET_KEY=VALUE, SECRET_KEY_FALLBACKS=[secret("vault://old", default=None)]) == []


def test_registration(settings):
    """The warnings come with ``check --deploy`` and with no other check."""
    settings.SECRET_REGISTRY = Vault().settings()
    settings.CHANNEL_LAYERS = {"default": VALUE}
    deployed, usual = (
        {message.id for message in run_checks(include_deployment_checks=deploy)}
        for deploy in (True, False)
    )
    assert "secret_registry.W007" in deployed
    assert "secret_registry.W007" not in usual


def test_every_copy_that_is_known():
    """Each setting that docs/rotation.md saw copied, and that REBIND mends, is looked at."""
    page = (Path(__file__).parents[1] / "docs" / "rotation.md").read_text()
    rows = [[cell.strip(" `") for cell in row.split("|")[1:-1]] for row in page.splitlines()]
    copied = {row[1] for row in rows if len(row) == 5 and row[2] == "no" and "REBIND" in row[3]}
    assert copied <= {*LISTENING, *DEAF}
    assert "SIMPLE_JWT" in copied


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("SIMPLE_JWTT", "secret_registry.E006"),
        ("tests.test_deploy_checks.missing", "secret_registry.E008"),
        ("tests.test_deploy_checks.VALUE", "secret_registry.E008"),
        ("tests.test_deploy_checks.reset", None),
        ("CACHES", None),
        (reset, None),
    ],
)
def test_rebind(settings, target, expected):
    """REBIND names settings that exist and functions that can be called."""
    settings.SECRET_REGISTRY = Vault().settings(REBIND=[target])
    found = [one.id for one in check_configuration() if "REBIND" in one.msg]
    assert found == ([expected] if expected else [])
