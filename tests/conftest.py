"""What holds for the whole test run; see ``canary_check`` for the most important part."""

from __future__ import annotations

import importlib.util
import os
import re
import threading
from collections.abc import Iterator

import pytest

pytest_plugins = ["pytester", "tests.canary_check"]
#: Only the environment that tests the packaging has the build tool, and only one builds a site.
collect_ignore = [
    *([] if importlib.util.find_spec("build") else ["test_packaging.py"]),
    *([] if os.environ.get("SECRET_REGISTRY_SITE") else ["test_docs_site.py"]),
]

#: Set in CI: a server that is missing there fails the test instead of skipping it.
NO_SKIP = os.environ.get("SECRET_REGISTRY_TESTS_NO_SKIP") == "1"
#: The only good reason then: the test does not apply to this version ("needs Python 3.12").
VERSION_REASON = re.compile(r"\b(Python|Django) [<>=]*\s*[0-9]")


def pytest_configure(config: pytest.Config) -> None:
    # Without an installed distribution, straight from the source tree, there is no entry point.
    if not config.pluginmanager.has_plugin("django_secret_registry") and importlib.util.find_spec(
        "django_secret_registry.pytest_plugin"
    ):
        from django_secret_registry import pytest_plugin

        config.pluginmanager.register(pytest_plugin, "django_secret_registry")
    if importlib.util.find_spec("hypothesis"):
        from hypothesis import settings

        # Hypothesis fails an example that takes 200 ms, which on a busy machine any may take.
        settings.register_profile("suite", deadline=None)
        settings.load_profile("suite")


def _refuse_skip(report: pytest.TestReport | pytest.CollectReport) -> None:
    if not NO_SKIP or not report.skipped or hasattr(report, "wasxfail"):
        return
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    if not VERSION_REASON.search(reason):
        report.outcome, report.longrepr = "failed", f"skipped, where nothing may skip: {reason}"


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport() -> Iterator[pytest.TestReport]:
    report: pytest.TestReport = yield
    _refuse_skip(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Iterator[pytest.CollectReport]:
    report: pytest.CollectReport = yield
    _refuse_skip(report)
    return report


@pytest.fixture(autouse=True, scope="session")
def _nobody_works_unasked() -> Iterator[None]:
    """Tests move the clock and count fetches: no thread of this process fetches what is due then.

    What follows copied secrets, and what carries metrics over, begins with the process and does not
    end with a test. They are tested by themselves, and in processes of their own.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("django_secret_registry.following.start", lambda source: None)
        if importlib.util.find_spec("prometheus_client"):
            patch.setattr("django_secret_registry.metrics.INTERVAL", threading.TIMEOUT_MAX)
        yield
