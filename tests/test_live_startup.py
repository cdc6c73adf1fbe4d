"""A secret that cannot be read while a process starts: one line, which says what to do."""

from __future__ import annotations

import re

import pytest

from tests.live_support import Project

HINT = "Set SECRET_REGISTRY_OFFLINE=1 where secrets are out of reach, as in an image build."


@pytest.fixture
def project(tmp_path) -> Project:
    return Project(tmp_path)


def reading_at_import(project: Project, expression: str) -> Project:
    """Add an app that evaluates ``expression`` in line 2 of its models."""
    project.write(
        """
        INSTALLED_APPS += ["shop"]
        KEY = secret("vault://key")
        GONE = secret("vault://missing")
        TYPO = secret("vualt://key")
        MAPPED = secret("vault://key").map(int)
        BOX = {"default": {"NAME": "x", "PASSWORD": secret("vault://key")}, "l": [secret("vault://b")]}
        """
    )
    (project.where / "shop").mkdir()
    (project.where / "shop" / "__init__.py").write_text("")
    (project.where / "shop" / "models.py").write_text(
        f"from django.conf import settings\nVALUE = {expression}\n"
    )
    return project


@pytest.mark.parametrize(
    ("expression", "error", "where", "reference"),
    [
        ("settings.KEY", "ProviderUnavailable", "settings.KEY", "vault://key"),
        ("getattr(settings, 'KEY', 1)", "ProviderUnavailable", "settings.KEY", "vault://key"),
        (
            "settings.BOX['default'].get('PASSWORD')",
            "ProviderUnavailable",
            "settings.BOX['default']['PASSWORD']",
            "vault://key",
        ),
        ("[*settings.BOX['l']]", "ProviderUnavailable", "settings.BOX['l'][0]", "vault://b"),
    ],
)
def test_one_line_names_setting_reader_and_offline_mode(
    project, expression, error, where, reference
):
    """A management command ends with one line on stderr, without a traceback, and exit code 1."""
    reading_at_import(project, expression)
    done = project.manage("check", VAULT="down", code=1)
    (line,) = done.stderr.splitlines()
    reader = re.escape(str(project.where / "shop" / "models.py"))
    pattern = (
        rf"django_secret_registry\.exceptions\.{error}: {re.escape(where)} cannot be read at"
        rf" start-up, as {reader}:2 does: the vault is down"
        rf" \(reference '{re.escape(reference)}', provider 'vault'\)\. .*{re.escape(HINT)}"
    )
    assert re.fullmatch(pattern, line)


def test_app_behind_django_is_named(project):
    """Where Django reads a setting for an app, the line names both; a ``manage.py`` is no app."""
    locmem = "django.core.cache.backends.locmem.LocMemCache"
    reading_at_import(project, "__import__('django.core.cache').core.cache.caches['default']")
    project.write(
        f"""
        INSTALLED_APPS += ["shop"]
        CACHES = {{"default": {{"BACKEND": "{locmem}", "LOCATION": secret("vault://key")}}}}
        """
    )
    done = project.manage("check", VAULT="down", code=1)
    app = re.escape(str(project.where / "shop" / "models.py"))
    django = r"as \S+/django/core/c\S+\.py:\d+ does"
    assert re.search(rf"{django} for {app}:2: the vault is down", done.stderr)

    (project.where / "shop" / "models.py").write_text("")
    done = project.manage("check", VAULT="down", code=1)
    assert re.search(rf"{django}: the vault is down", done.stderr)


@pytest.mark.parametrize(
    ("expression", "start"),
    [
        ("settings.GONE", "SecretNotFound: settings.GONE cannot be read at start-up"),
        ("settings.TYPO", "ProviderDoesNotExist: settings.TYPO cannot be read at start-up"),
        ("settings.MAPPED", "ProviderError: settings.MAPPED cannot be read at start-up"),
    ],
)
def test_every_error_of_a_secret_is_told_in_one_line(project, expression, start):
    """That a secret is missing, its alias unknown or its function broken is told the same way."""
    done = reading_at_import(project, expression).manage("check", code=1)
    (line,) = done.stderr.splitlines()
    assert line.removeprefix("django_secret_registry.exceptions.").startswith(start)


def test_traceback_is_there_for_who_asks(project):
    """With Django's --traceback the line comes with its traceback."""
    done = reading_at_import(project, "settings.KEY").manage(
        "check", "--traceback", VAULT="down", code=1
    )
    assert "Traceback (most recent call last)" in done.stderr
    assert "settings.KEY cannot be read at start-up" in done.stderr


def test_offline_mode_is_the_way_out(project):
    """With SECRET_REGISTRY_OFFLINE=1 the same process starts."""
    reading_at_import(project, "settings.KEY").manage(
        "shell", "-c", "pass", VAULT="down", SECRET_REGISTRY_OFFLINE="1"
    )


def test_other_errors_keep_their_traceback(project):
    """An error of the project's own is shown as Python shows it."""
    done = reading_at_import(project, "1 / 0").manage("check", code=1)
    assert "Traceback (most recent call last)" in done.stderr
    assert done.stderr.strip().endswith("ZeroDivisionError: division by zero")


def test_handled_error_names_setting_and_reader_too(project):
    """Who catches the error, as a server that logs it, finds the same in its text."""
    project.write("KEY = secret('vault://key')")
    done = project.python(
        """
        import django
        django.setup()
        from django.conf import settings
        try:
            settings.KEY
        except Exception as error:
            print(error)
        """,
        VAULT="down",
    )
    assert "settings.KEY cannot be read at start-up, as <string>:6 does" in done.stdout


def test_command_at_work_is_not_sent_offline(project):
    """A backend that fails after it gave secrets is no start-up: still one line, without OFFLINE.

    A consumer that an operator restarts in offline mode would work with placeholders.
    """
    project.write("KEY, LATER = secret('vault://key'), secret('vault://later')")
    done = project.python(
        """
        import os
        import django
        django.setup()
        from django.conf import settings
        settings.KEY
        os.environ["VAULT"] = "down"
        settings.LATER
        """,
        code=1,
    )
    (line,) = done.stderr.splitlines()
    assert "settings.LATER cannot be read, as <string>:8 does: the vault is down" in line
    assert "OFFLINE" not in line


def test_serving_process_tells_no_start_up(project):
    """Once background work or a request has begun, errors say what happened and no more."""
    project.write("KEY = secret('vault://key')\nROOT_URLCONF = 'urls'\nALLOWED_HOSTS = ['*']")
    project.write(
        "KEY = secret('vault://key')\nROOT_URLCONF = 'urls'\nALLOWED_HOSTS = ['*']",
        urls="""
        from django.conf import settings
        from django.http import HttpResponse
        from django.urls import path

        def view(request):
            try:
                return HttpResponse(settings.KEY)
            except Exception as error:
                return HttpResponse(str(error))

        urlpatterns = [path("", view)]
        """,
    )
    done = project.python(
        """
        import sys
        from django.core.wsgi import get_wsgi_application
        from wsgiref.util import setup_testing_defaults
        environ = {}
        setup_testing_defaults(environ)
        print(b"".join(get_wsgi_application()(environ, lambda *args: None)).decode())
        """,
        VAULT="down",
    )
    assert "the vault is down (reference 'vault://key', provider 'vault')" in done.stdout
    assert "start-up" not in done.stdout


def test_excepthook_that_was_there_is_called(project):
    """Other hooks of the interpreter go on working."""
    project.write("KEY = secret('vault://key')")
    done = project.python(
        """
        import sys
        sys.excepthook = lambda kind, error, traceback: print("hooked", kind.__name__)
        import django
        django.setup()
        raise LookupError("x")
        """,
        code=1,
    )
    assert done.stdout.strip() == "hooked LookupError"


def test_hook_of_an_error_reporter_gets_the_error(project):
    """A hook that was there before, as that of an error reporter, is told of a failed read too."""
    project.write("KEY = secret('vault://key')")
    done = project.python(
        """
        import sys
        sys.excepthook = lambda kind, error, traceback: print("reported", error, traceback)
        import django
        django.setup()
        from django.conf import settings
        settings.KEY
        """,
        VAULT="down",
        code=1,
    )
    assert re.search("reported settings.KEY cannot be read .* None$", done.stdout.strip())
    assert done.stderr == ""


def test_secret_of_a_provider_is_explained_by_the_setting_that_needs_it(project):
    """When a provider's own OPTIONS cannot be read, the error names the setting that was read."""
    project.write(
        """
        SECRET_REGISTRY["PROVIDERS"]["second"] = {
            "BACKEND": "tests.live_support.ScriptedProvider",
            "OPTIONS": {"script": secret("vault://script")},
        }
        KEY = secret("second://key")
        """
    )
    code = "from django.conf import settings; settings.KEY"
    done = project.manage("shell", "-c", code, VAULT="down", code=1)
    (line,) = done.stderr.splitlines()
    assert line.count("cannot be read at start-up") == 1
    assert "settings.KEY cannot be read" in line
    assert "the vault is down" in line


def test_setting_that_needs_another_one_is_explained_once(project):
    """When a .map function reads another setting, the error is about the one that failed."""
    project.write(
        """
        from django.conf import settings
        USER = secret("vault://missing-user")
        URL = secret("vault://password").map(lambda value: f"{settings.USER}:{value}")
        """
    )
    done = project.manage("shell", "-c", "from django.conf import settings; settings.URL", code=1)
    (line,) = done.stderr.splitlines()
    assert line.count("cannot be read") == 1
    assert "SecretNotFound: settings.USER cannot be read" in line
    assert "project_settings.py" in line
