"""Management commands: those that need no secret fetch none, and offline mode needs no provider."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from tests.live_support import ROOT, Project, run

pytestmark = pytest.mark.full  # each starts processes

SHOP = ROOT / "tests" / "projects" / "shop"


@pytest.fixture
def project(tmp_path) -> Project:
    """A project with secrets in a database, a mail server, storages and settings of its own."""
    return Project(tmp_path).write(
        """
        from pathlib import Path
        INSTALLED_APPS += [
            "django.contrib.contenttypes", "django.contrib.auth", "django.contrib.staticfiles"
        ]
        SECRET_KEY = secret("vault://key")
        SECRET_KEY_FALLBACKS = [secret("vault://old", default=None)]
        STRIPE_KEY = secret("vault://stripe", default="shown?")
        BROKER = secret("vault://broker").map(str.upper)
        DATABASES = {
            "default": {
                "ENGINE": "django.db.backends.postgresql",
                **dict.fromkeys(["NAME", "USER", "PASSWORD", "HOST", "PORT"], secret("vault://db")),
            },
            "other": {
                "ENGINE": "django.db.backends.sqlite3",
                "NAME": "other.sqlite3",  # which SQLite's backend reads to close a connection
                "PASSWORD": secret("vault://other"),
                "OPTIONS": {"x": secret("vault://option")},
            },
        }
        STATIC_URL = "/static/"
        STATIC_ROOT = Path(__file__).parent / "collected"
        STORAGES = {
            "default": {
                "BACKEND": "django.core.files.storage.FileSystemStorage",
                "OPTIONS": {"location": secret("vault://location")},
            },
            "staticfiles": {
                "BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage",
            },
        }
        LOCALE_PATHS = [Path(__file__).parent / "locale"]
        """
    )


@pytest.mark.parametrize(
    "command",
    [
        ["shell", "-c", "pass"],
        ["check"],
        ["diffsettings", "--all"],
        ["collectstatic", "--noinput"],
        ["compilemessages"],
        ["makemessages", "--locale", "de"],
        ["help"],
        ["sqlmigrate", "--help"],
        ["version"],
    ],
    ids=lambda command: command[0],
)
def test_commands_that_need_no_secret_fetch_none(project, command):
    """A command that only runs and ends works with the provider down, and does not ask it."""
    if command[0] in ("compilemessages", "makemessages"):
        needs_gettext()
        (project.where / "locale" / "de" / "LC_MESSAGES").mkdir(parents=True)
    done = project.manage(*command, VAULT="down")
    assert "fetched" not in done.stdout


def needs_gettext() -> None:
    if shutil.which("msgfmt") is None:
        pytest.skip("needs msgfmt: install gettext")


def test_diffsettings_shows_references(project):
    """``diffsettings`` shows where secrets are, in settings and within containers."""
    for output in ("hash", "unified"):
        lines = project.manage("diffsettings", "--output", output).stdout
        assert "STRIPE_KEY = secret('vault://stripe')" in lines
        assert "BROKER = secret('vault://broker').map(...)" in lines
        assert "SECRET_KEY_FALLBACKS = [secret('vault://old')]" in lines
        assert "'PASSWORD': secret('vault://db')" in lines
        assert "shown?" not in lines


@pytest.fixture
def shop(tmp_path):
    """The shop, every credential of which is a secret, in a directory that may be written to."""
    where = tmp_path / "shop"
    shutil.copytree(SHOP, where, ignore=shutil.ignore_patterns("__pycache__"))

    def manage(*arguments: str, **options: str) -> subprocess.CompletedProcess[str]:
        environment = {
            "DJANGO_SETTINGS_MODULE": "shop_settings",
            "SECRET_REGISTRY_OFFLINE": "1",
            "VAULT": "down",
        }
        return run("-m", "django", *arguments, where=where, **{**environment, **options})

    return manage


@pytest.mark.parametrize(
    "command",
    [
        ["check"],
        ["check", "--deploy", "--fail-level", "WARNING"],
        ["collectstatic", "--noinput"],
        ["compilemessages"],
        ["diffsettings"],
        ["shell", "-c", "pass"],
    ],
    ids=" ".join,
)
def test_offline_commands_need_no_provider(shop, command):
    """Offline, the commands that build an image succeed with every provider down."""
    if command[0] == "compilemessages":
        needs_gettext()
    assert "fetched" not in shop(*command).stdout


def test_offline_makemigrations_only_warns(shop):
    """Offline, ``makemigrations --check`` says that it reached no database, and passes."""
    done = shop("makemigrations", "--check", "--dry-run", warnings="default")
    assert "No changes detected" in done.stdout
    assert "consistent migration history" in done.stderr
    assert "fetched" not in done.stdout


def test_offline_urls_of_the_environment_need_no_provider(tmp_path):
    """Offline, databases, caches and mail that ``Env`` takes from secret URLs pass all checks."""
    project = Project(tmp_path).write(
        """
        from django_secret_registry.environ import Env
        env = Env()
        INSTALLED_APPS += ["django.contrib.contenttypes"]
        DATABASES = {
            name: env.db(engine=f"django.db.backends.{engine}")
            for name, engine in {"default": "postgresql", "other": "sqlite3"}.items()
        }
        CACHES = {
            name: env.cache(backend=f"django.core.cache.backends.{backend}")
            for name, backend in {
                "default": "redis.RedisCache", "db": "db.DatabaseCache"
            }.items()
        }
        vars().update(env.email())
        """
    )
    offline = {
        "SECRET_REGISTRY_OFFLINE": "1",
        "DATABASE_URL": "ref+vault://db",
        "CACHE_URL": "ref+vault://cache",
        "EMAIL_URL": "ref+vault://mail",
    }
    # Django 6.1 warns of the settings for mail, wherever they come from.
    check = ["check", "--database", "default", "--deploy"]
    project.manage(*check, warnings="default", **offline)
    done = project.manage("makemigrations", "--check", warnings="default", **offline)
    assert "No changes detected" in done.stdout
    assert "fetched" not in done.stdout


READ = """
from django.conf import settings
from django.core import signing
from django_secret_registry import ProviderUnavailable, SecretStr, registry

def stands_for(value, reference):
    return value.startswith("offline-placeholder-") and value.endswith(f"-:{reference}")

assert stands_for(settings.STRIPE_KEY, "stripe") and type(settings.STRIPE_KEY) is SecretStr
assert stands_for(settings.SMTP["user"], "vault://smtp#user")
assert stands_for(settings.SMTP["password"], "vault://smtp#password")
assert stands_for(settings.SIGNING_KEY.decode(), "vault://signing?as=base64")
assert stands_for(settings.SERVICE_ACCOUNT, "absent://account")
assert stands_for(settings.DATABASES["default"]["NAME"], "vault://db#name")
assert settings.CACHES["default"]["LOCATION"].startswith("redis://:offline-placeholder-")
assert len(settings.SECRET_KEY) == 50 and len(settings.SECRET_KEY_FALLBACKS) == 2
assert settings.SECRET_KEY_FALLBACKS[0] == (
    "offline-placeholder:vault://django?stage=previous#secret_key"
)
assert signing.loads(signing.dumps("x")) == "x"
try:
    registry.get("vault://db#password")
except ProviderUnavailable as error:
    assert "offline" in str(error)
else:
    raise AssertionError
"""


def test_offline_settings_are_placeholders(shop):
    """Offline, a live setting is text, bytes or a dict that names its reference; get raises."""
    assert shop("shell", "--verbosity", "0", "-c", READ).stdout == ""


def test_without_offline_mode_the_shop_says_what_to_do(shop):
    """The same shop, not offline and with its provider down, ends in one line."""
    done = shop("check", SECRET_REGISTRY_OFFLINE="", code=1)
    (line,) = done.stderr.splitlines()
    assert "ProviderUnavailable: settings.STRIPE_KEY cannot be read at start-up" in line
    assert "models.py:6 does" in line
