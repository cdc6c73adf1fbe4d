"""The check that guards all other tests: a planted leak is found, and nothing else."""

from __future__ import annotations

import base64
import re
import textwrap

import pytest

from tests.canary import CANARY, canary
from tests.canary_check import masked, shows

PRELUDE = """
import base64, contextlib, gc, logging, subprocess, sys, threading
import pytest
from django.core.management.base import OutputWrapper
from django.http import HttpResponse
from django.test import Client, override_settings
from django.urls import path
from django_secret_registry import exceptions
from tests.canary import canary
from tests.canary import unwatched

def raised(error, cause=None):
    with contextlib.suppress(type(error)):
        raise error from cause

class Site:
    # Answers with what it is given.
    def __init__(self, shown, **headers):
        self.urlpatterns = [path("", lambda request: HttpResponse(shown, headers=headers))]

    def get(self):
        with override_settings(ROOT_URLCONF=self):
            return Client().get("/")
"""

LEAKS = {
    "printed": "print(canary())",
    "printed to stderr": "print(canary(), file=sys.stderr)",
    "printed by a child": "subprocess.run(['echo', canary()])",
    "printed in base64": "print(base64.b64encode(b'x' + canary().encode()).decode())",
    "printed by a child that the test read": """
subprocess.run(['echo', canary()], capture_output=True)""",
    "written by a command": "OutputWrapper(sys.stdout).write(canary()); capsys.readouterr()",
    "in the body of a response": "Site(f'<p>{canary()}').get()",
    "in a header of a response": "Site('', **{'X-Key': canary()}).get()",
    "in the database": """
from django.contrib.auth.models import User
User.objects.create(username=canary())""",
    "in several rows of the database": """
from django.contrib.auth.models import User
User.objects.bulk_create([User(username='ada'), User(username=canary())])""",
    "in a metric": """
prometheus = pytest.importorskip('prometheus_client')
into = prometheus.CollectorRegistry()
prometheus.Counter('reads', 'Reads.', ['name'], registry=into).labels(canary()).inc()
prometheus.generate_latest(into)""",
    "read by the test": "print(canary()); capsys.readouterr()",
    "logged at debug": "logging.getLogger('some.where').debug('got %s', canary())",
    "logged by a logger that is off": """
logging.getLogger('off').setLevel(logging.CRITICAL)
logging.getLogger('off').propagate = False
logging.getLogger('off').info(canary())""",
    "logged in a thread": """
thread = threading.Thread(target=logging.getLogger('t').info, args=(canary(),))
thread.start()
thread.join()""",
    "logged as extra": "logging.getLogger('x').info('got it', extra={'value': canary()})",
    "logged with an exception": """
try:
    int(canary())
except ValueError:
    logging.getLogger('x').exception('no number')""",
    "text of a caught error": "raised(exceptions.ProviderError(canary()))",
    "field of a caught error": "raised(exceptions.ProviderError('bad', hint=canary()))",
    "note of a caught error": """
error = exceptions.ProviderError('bad')
error.add_note(canary())
raised(error)""",
    "cause of a caught error": "raised(exceptions.ProviderError('x'), ValueError(canary()))",
    "context of a caught error": """
with contextlib.suppress(exceptions.ProviderError):
    try:
        int(canary())
    except ValueError:
        raise exceptions.ProviderError('bad') from None""",
    "error in a cycle": """
error = exceptions.ProviderError(canary())
error.itself = error""",
    "error that pytest.raises caught": """
with pytest.raises(ValueError):
    int(canary())""",
    "error in a group": """
with pytest.raises(ExceptionGroup):
    raise ExceptionGroup('several', [TypeError('x'), KeyError(canary())])""",
    "attribute of an error": """
import json
with pytest.raises(ValueError):
    json.loads(canary())""",
}

HARMLESS = {
    "a value in use": "assert canary() == canary(); repr([canary()])",
    "a clean response": "assert Site('nothing').get().content == b'nothing'",
    "a clean row": """
from django.contrib.auth.models import User
assert User.objects.create(username='ada').pk""",
    "a clean error": "raised(exceptions.ProviderError('bad'), ValueError('x'))",
    "a refused comparison": """
with pytest.raises(AssertionError):
    assert canary() == 'other'""",
    "the test's own client": """
with unwatched():
    logging.getLogger('sdk').debug(canary())""",
    "a record that a filter drops": """
logger = logging.getLogger('filtered')
logger.addFilter(lambda record: False)
logger.debug(canary())""",
    "records below their level": """
logging.getLogger('level').debug('x')
assert not caplog.records""",
}


@pytest.fixture
def run(pytester, pytestconfig, monkeypatch):
    """Run each of these bodies as a test under the check; return what became of them by name."""
    monkeypatch.setenv("PYTHONPATH", str(pytestconfig.rootpath))

    def run(bodies: dict[str, str]) -> dict[str, str]:
        pytester.makepyfile(
            PRELUDE
            + "".join(
                f"\ndef test_{number}(capsys, caplog, db):\n"
                f"{textwrap.indent(body.strip(), '    ')}\n"
                for number, body in enumerate(bodies.values())
            )
        )
        plugins = ("-p", "tests.canary_check", "-p", "no:randomly")
        result = pytester.runpytest_subprocess(*plugins, "--show-capture=no", "-rA", "--tb=short")
        outcome = {
            int(number): why or status
            for status, number, why in re.findall(
                r"^(PASSED|FAILED|ERROR) .*?::test_(\d+)(?: - (.*))?",
                str(result.stdout),
                re.MULTILINE,
            )
        }
        return {name: outcome[number] for number, name in enumerate(bodies)}

    return run


@pytest.mark.full
def test_leaks_are_found(run):
    """Each way in which a secret can be seen fails the test, with a complaint that hides it."""
    found = "a secret can be seen in"
    assert {name: why for name, why in run(LEAKS).items() if not why.startswith(found)} == {}


@pytest.mark.full
def test_harmless_code_passes(run):
    """Code that uses a secret without showing it passes."""
    assert set(run(HARMLESS).values()) == {"PASSED"}


@pytest.mark.parametrize("before", ["", "a", "ab", "abc"])
def test_base64_is_recognised(before):
    """The mark is found in base64 wherever it falls, and not in other text."""
    value = f"{before}{canary()}-after".encode()
    assert shows(base64.b64encode(value).decode())
    assert not shows(base64.b64encode(b"no secret at all").decode())


def test_complaint_is_masked():
    """A complaint quotes what it found without the mark."""
    assert masked(f"value={CANARY}!") == "value=[SECRET]!"
