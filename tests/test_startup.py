"""What a process does, and does not do, until it is set up; each test starts one of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.canary import canary

SDKS = {
    "azure",
    "boto3",
    "botocore",
    "google",
    "grpc",
    "hvac",
    "kubernetes",
    "prometheus_client",
    "psycopg",
    "redis",
}

SETTINGS = """
from pathlib import Path

from django_secret_registry import secret

SECRETS = Path(__file__).parent / "secrets"
INSTALLED_APPS = ["django_secret_registry", "shop", "django.contrib.contenttypes"]
PROVIDERS = "django_secret_registry.providers"
SECRET_REGISTRY = {
    "REGION": "eu-central-1",
    "PROVIDERS": {
        "aws": {"BACKEND": f"{PROVIDERS}.aws.SecretsManagerProvider"},
        "gcp": {"BACKEND": f"{PROVIDERS}.gcp.SecretManagerProvider", "OPTIONS": {"project": "x-1"}},
        "file": {"BACKEND": f"{PROVIDERS}.file.FileProvider", "OPTIONS": {"path": str(SECRETS)}},
    },
    "SECRETS": {"stripe": "aws://prod/stripe", "maps": "gcp://maps", "smtp": "file://smtp"},
}
SECRET_KEY = secret("aws://prod/django#secret_key")
STRIPE_KEY = secret("stripe")
SMTP_KEY = secret("smtp")
NESTED = {"a": [secret("maps"), {"b": secret("file://smtp")}]}
USE_TZ = True
"""

#: Records whatever leaves the process or reads below ``secrets``, from the first line on.
WATCH = """
import json, os, sys, threading
seen = []
below = os.path.join(os.getcwd(), "secrets")
def watch(event, arguments):
    if event.startswith(("socket.", "subprocess.", "os.fork", "os.posix_spawn", "_thread.start")):
        seen.append(event)
    elif event in ("open", "os.listdir", "os.scandir") and below in str(arguments[0]):
        seen.append(event)
sys.addaudithook(watch)
"""


class Project:
    """A project on disk, with an app ``shop`` and the code that a test gives its process."""

    def __init__(self, path: Path) -> None:
        self.path = path
        (path / "settings.py").write_text(SETTINGS)
        (path / "secrets").mkdir()
        (path / "secrets" / "smtp").write_text(canary("smtp"))
        (path / "shop").mkdir()
        (path / "shop" / "__init__.py").write_text("")

    def add_settings(self, text: str) -> None:
        with (self.path / "settings.py").open("a") as file:
            file.write(text)

    def run(
        self, code: str, *arguments: str, options: Sequence[str] = (), **environ: str
    ) -> subprocess.CompletedProcess[str]:
        """Run ``code`` in an interpreter with these ``options`` and arguments, and variables."""
        kept = {name: text for name, text in os.environ.items() if not name.startswith("AWS_")}
        return subprocess.run(
            [sys.executable, "-W", "error", *options, "-c", code, *arguments],
            cwd=self.path,
            env={
                **kept,
                "DJANGO_SETTINGS_MODULE": "settings",
                "PYTHONPATH": os.pathsep.join((str(self.path), str(Path(__file__).parents[1]))),
                **environ,
            },
            capture_output=True,
            text=True,
            check=False,
        )

    def tell(self, code: str, *arguments: str, **environ: str) -> Any:
        """Return what the last line that ``code`` prints is in JSON."""
        process = self.run(code, *arguments, **environ)
        assert process.returncode == 0, process.stderr
        return json.loads(process.stdout.splitlines()[-1])


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


def test_setup_imports_no_sdk(project: Project) -> None:
    """Django's set-up, with the app and with AWS and GCP configured, imports no SDK."""
    process = project.run("import django; django.setup()", options=["-X", "importtime"])
    assert process.returncode == 0, process.stderr
    modules = {
        line.rpartition("|")[2].strip()
        for line in process.stderr.splitlines()
        if line.startswith("import time:")
    }
    assert "django_secret_registry.checks" in modules
    assert {name for name in modules if name.split(".")[0] in SDKS} == set()


COMMAND = """
import django
from django.core.management import call_command
django.setup()
threads = [threading.active_count()]
call_command(*sys.argv[1:])
threads.append(threading.active_count())
told = list(seen)
from django_secret_registry import registry
built = [row.alias for row in registry.snapshot().providers if row.builds]
sdks = [name for name in sys.modules if name in SDKS]
print()
print(json.dumps([told, threads, sdks, built, registry.started]))
"""


@pytest.mark.parametrize("command", ["check", "diffsettings", "shell -c pass"])
def test_a_command_reaches_for_nothing(project: Project, command: str) -> None:
    """Neither set-up nor a command that needs no secret connects, reads one or starts a thread."""
    code = f"SDKS = {SDKS!r}{WATCH}{COMMAND}"
    assert project.tell(code, *command.split()) == [[], [1, 1], [], [], False]


def test_the_package_can_be_imported_by_settings(project: Project) -> None:
    """Importing the package reads no setting, and loads neither Django's ORM nor any SDK."""
    code = """
import sys, json
import django_secret_registry
from django.conf import settings
print(json.dumps([settings.configured, [name for name in sys.argv if name in sys.modules]]))
"""
    heavy = ("django.db", "django.template", "django.core.management", "environ")
    assert project.tell(code, *SDKS, *heavy) == [False, []]


def test_every_later_app_reads_live_settings(project: Project) -> None:
    """An app's own module and its ``models.py`` get the value, long before ``ready()``."""
    read = """
from django.conf import settings
key = settings.SMTP_KEY
raw = settings.NESTED["a"][1]["b"]
"""
    (project.path / "shop" / "__init__.py").write_text(read)
    (project.path / "shop" / "models.py").write_text(read)
    code = """
import django, json
django.setup()
import shop, shop.models
text = open("secrets/smtp").read()
values = (shop.key, shop.raw, shop.models.key, shop.models.raw)
print(json.dumps([isinstance(value, str) and value == text for value in values]))
"""
    assert project.tell(code) == [True] * 4


def test_importing_the_app_makes_settings_live(project: Project) -> None:
    """The import of ``apps`` is enough, loads no models, and may come before the settings."""
    code = """
import json, sys
{first}
import django_secret_registry.apps
from django.conf import settings
{second}
print(json.dumps([settings.SMTP_KEY == open("secrets/smtp").read(),
                  "django_secret_registry.models" in sys.modules]))
"""
    loaded = code.format(first="from django.conf import settings; settings.DEBUG", second="")
    assert project.tell(loaded) == [True, False]
    assert project.tell(code.format(first="", second="import django; django.setup()")) == [
        True,
        True,
    ]


BROKEN = """
SECRET_REGISTRY["PROVIDERS"]["aws"]["TLT"] = 1
SECRET_REGISTRY["PROVIDERS"]["gcp"] = {"BACKEND": "no.such.Provider"}
"""


def test_a_process_starts_in_spite_of_mistakes(project: Project) -> None:
    """``django.setup()`` passes; the first use of a broken alias raises, and of no other."""
    project.add_settings(BROKEN)
    code = """
import django, json
django.setup()
from django.conf import settings
from django_secret_registry import InvalidProvider, registry
told = [settings.SMTP_KEY == open("secrets/smtp").read()]
for ref in ("stripe", "maps"):
    try:
        registry.get(ref)
    except InvalidProvider as error:
        told.append([error.provider, "['PROVIDERS']['aws']" in str(error)])
print(json.dumps(told))
"""
    assert project.tell(code) == [True, ["aws", True], ["gcp", False]]


def test_check_fails_with_all_mistakes(project: Project) -> None:
    """``manage.py check`` exits 1 with every mistake, and 0 once they are silenced."""
    project.add_settings(BROKEN)
    check = (
        "from django.core.management import execute_from_command_line as run; run(['', 'check'])"
    )
    process = project.run(check)
    assert process.returncode == 1
    assert "(secret_registry.E002) SECRET_REGISTRY['PROVIDERS']['aws']" in process.stderr
    assert "(secret_registry.E008) SECRET_REGISTRY['PROVIDERS']['gcp']['BACKEND']" in process.stderr
    ids = ["secret_registry.E002", "secret_registry.E008"]
    project.add_settings(f"SILENCED_SYSTEM_CHECKS = {ids!r}\n")
    process = project.run(check)
    assert (process.returncode, process.stderr) == (0, "")


REQUEST = """
import django, json, logging
django.setup()
from django.core.handlers.wsgi import WSGIHandler
from django.test import RequestFactory
from django_secret_registry import registry

records = []
handler = logging.Handler()
handler.emit = lambda record: records.append((record.levelname, record.getMessage()))
logging.getLogger("django_secret_registry").addHandler(handler)
told = [registry.started]
for path in ("/a", "/b"):
    WSGIHandler()(RequestFactory().get(path).environ, lambda *arguments: None).close()
    told.append(registry.started)
print(json.dumps([told, records]))
"""


def test_the_first_request_begins_background_work(project: Project) -> None:
    """A server that does not call ``registry.start()`` has it called by the first request."""
    project.add_settings("ROOT_URLCONF = 'shop'\nDEBUG = False\nALLOWED_HOSTS = ['testserver']\n")
    (project.path / "shop" / "__init__.py").write_text("urlpatterns = []\n")
    assert project.tell(REQUEST) == [[False, True, True], []]


def test_requests_in_offline_mode_are_a_loud_warning(project: Project) -> None:
    """The first request of a process in offline mode logs one warning that names the switch."""
    project.add_settings("ROOT_URLCONF = 'shop'\nDEBUG = False\nALLOWED_HOSTS = ['testserver']\n")
    (project.path / "shop" / "__init__.py").write_text("urlpatterns = []\n")
    _, records = project.tell(REQUEST, SECRET_REGISTRY_OFFLINE="1")
    ((level, text),) = records
    assert level == "WARNING"
    assert "SECRET_REGISTRY_OFFLINE" in text
