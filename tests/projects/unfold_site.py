"""A project whose admin is django-unfold's: ``python -m tests.projects.unfold_site FILE PORT``.

It makes its database in that file, holds a few secrets, and serves until it is stopped.
"""

from __future__ import annotations

import os
import sys

SECRET_KEY = "not-a-secret-of-the-package"
DEBUG = True
INSTALLED_APPS = [
    "django_secret_registry",
    "unfold",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.messages",
    "django.contrib.sessions",
    "django.contrib.staticfiles",
]
MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
]
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    }
]
ROOT_URLCONF = "tests.projects.unfold_urls"
STATIC_URL = "/static/"
USE_TZ = True
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": os.environ.get("UNFOLD_DATABASE", ":memory:"),
    }
}
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
SECRET_REGISTRY = {
    "PROVIDERS": {
        "memory": {
            "BACKEND": "django_secret_registry.providers.memory.MemoryProvider",
            "OPTIONS": {"secrets": {"db": "a value", "stripe": "another"}},
        },
    },
    "SECRETS": {"db": "memory://db", "stripe": "memory://stripe", "gone": "memory://gone"},
}


def main(database: str, port: str) -> None:
    os.environ["DJANGO_SETTINGS_MODULE"] = "tests.projects.unfold_site"
    os.environ["UNFOLD_DATABASE"] = database
    import django

    django.setup()
    from django.contrib.auth.models import User
    from django.core.management import call_command

    from django_secret_registry import registry

    call_command("migrate", verbosity=0)
    User.objects.create_superuser("root", password="root")
    registry.warm()
    call_command("runserver", f"127.0.0.1:{port}", "--noreload")


if __name__ == "__main__":
    main(*sys.argv[1:])
