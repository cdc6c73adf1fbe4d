"""docs/integrations.md keeps its promises: its blocks are run as they stand there."""

from __future__ import annotations

import io
import json
import logging
import logging.config
import os
import re
import subprocess
import sys
import types
from importlib import metadata
from pathlib import Path

import pytest

from django_secret_registry import audit
from tests.canary import canary

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "integrations.md").read_text()
#: The blocks of the page, by the file that their first line names.
BLOCKS = {
    found[1]: found[0]
    for found in re.finditer(r"(?<=```python\n)# (\S+)\n.*?(?=```)", PAGE, re.DOTALL)
}


def executed(name: str) -> types.ModuleType:
    module = types.ModuleType(name)
    exec(BLOCKS[name], vars(module))
    return module


def test_every_block_is_run():
    """The page has no block besides those that are run here, and the command of test_explain."""
    assert set(BLOCKS) == {
        "shop/urls.py",
        "shop/telemetry.py",
        "shop/settings.py",
        "test_payment.py",
    }
    assert PAGE.count("```python") == len(BLOCKS)
    assert PAGE.count("```console") == 1


def test_health_check(settings, client):
    """The page's URL answers that all is held."""
    pytest.importorskip("health_check", reason="pip install django-health-check")
    settings.ROOT_URLCONF = executed("shop/urls.py")
    response = client.get("/ready/", {"format": "json"})
    assert (response.status_code, response.json()) == (200, {"Secrets()": "OK"})


def test_structlog():
    """The page's LOGGING writes lines of JSON that have the fields of a record."""
    pytest.importorskip("structlog", reason="pip install structlog")
    config = executed("shop/settings.py").LOGGING
    written = io.StringIO()
    config["handlers"]["console"]["stream"] = written
    known = logging.root.manager.loggerDict.values()
    loggers = [one for one in known if isinstance(one, logging.Logger)]
    before = [(one, one.level, one.handlers[:], one.propagate, one.disabled) for one in loggers]
    try:
        logging.config.dictConfig(config)
        audit.record(user="ada", action="evict", reference="aws://db", outcome="ok")
    finally:  # it changes the loggers below the one that it names too, and those that it does not
        for one, level, handlers, one.propagate, one.disabled in before:
            one.setLevel(level)
            one.handlers[:] = handlers
    line = json.loads(written.getvalue())
    assert line["audit"]["reference"] == "aws://db"
    assert (line["level"], line["logger"]) == ("info", "django_secret_registry.audit")


@pytest.mark.full
def test_telemetry():
    """With the page's set-up a fetch is written to the console as a span."""
    pytest.importorskip("opentelemetry.sdk", reason="pip install opentelemetry-sdk")
    code = f"""
import threading
import django
from django_secret_registry.events import Fetched
from django.conf import settings
from django_secret_registry import registry
{BLOCKS["shop/telemetry.py"]}
settings.configure(
    INSTALLED_APPS=["django_secret_registry"],
    SECRET_REGISTRY={{"PROVIDERS": {{"env": {{
        "BACKEND": "django_secret_registry.providers.env.EnvProvider"}}}}}},
)
django.setup()
ended = threading.Event()  # listeners are told in order: the span has ended by then
registry.events.subscribe(lambda event: isinstance(event, Fetched) and ended.set())
registry.get("env://TRACED")
assert ended.wait(20)
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
        env={**os.environ, "TRACED": canary("traced")},
    )
    assert '"name": "fetch env"' in done.stdout
    assert canary("") not in done.stdout + done.stderr


@pytest.mark.full
def test_pytest_plugin(pytester):
    """The page's tests pass in a project that has nothing but the package and pytest-django."""
    pytester.makepyfile(
        project="""
        from django_secret_registry import secret

        INSTALLED_APPS = ["django_secret_registry"]
        SECRET_REGISTRY = {
            "PROVIDERS": {
                "aws": {
                    "BACKEND": "django_secret_registry.providers.aws.SecretsManagerProvider",
                    "REGION": "eu-central-1",
                },
            },
        }
        STRIPE_KEY = secret("aws://prod/stripe#api_key")
        """,
        test_payment=BLOCKS["test_payment.py"],
    )
    pytester.makeini("[pytest]\npythonpath = .\n")
    pytester.syspathinsert(ROOT)
    # Without an installed distribution, straight from the source tree, there is no entry point.
    found = metadata.entry_points(group="pytest11", name="django_secret_registry")
    plugin = [] if found else ["-p", "django_secret_registry.pytest_plugin"]
    result = pytester.runpytest_subprocess("--ds", "project", *plugin)
    result.assert_outcomes(passed=2)
