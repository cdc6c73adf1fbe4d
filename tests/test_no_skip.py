"""In CI nothing may skip: a missing server would hide what it was to test."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.full

TESTS = """
import pytest

def test_server():
    pytest.skip("needs Redis: install redis-server")

@pytest.mark.skipif(True, reason="needs Python 4")
def test_version():
    pass

@pytest.mark.xfail(strict=True)
def test_known_fault():
    raise ValueError
"""


@pytest.fixture
def run(pytester, pytestconfig, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(pytestconfig.rootpath))

    def run(**files: str) -> dict[str, int]:
        pytester.makepyfile(**files)
        result = pytester.runpytest_subprocess("-p", "tests.conftest", "-p", "no:randomly")
        return result.parseoutcomes()

    return run


def test_skips_fail_in_ci(run, monkeypatch):
    """There only a version that a test does not apply to is a reason to skip it."""
    monkeypatch.setenv("SECRET_REGISTRY_TESTS_NO_SKIP", "1")
    assert run(test_it=TESTS) == {"failed": 1, "skipped": 1, "xfailed": 1}


def test_skipped_files_fail_in_ci(run, monkeypatch):
    """A file that skips itself as a whole fails there too."""
    monkeypatch.setenv("SECRET_REGISTRY_TESTS_NO_SKIP", "1")
    skipped = "import pytest; pytest.skip('no server', allow_module_level=True)"
    assert run(test_it=skipped) == {"errors": 1}


def test_skips_elsewhere(run, monkeypatch):
    """On a newcomer's machine a test that lacks a server skips."""
    monkeypatch.delenv("SECRET_REGISTRY_TESTS_NO_SKIP", raising=False)
    assert run(test_it=TESTS) == {"skipped": 2, "xfailed": 1}
