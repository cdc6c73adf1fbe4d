"""The settings of the project that the paths are driven through: everything is switched on."""

from __future__ import annotations

import importlib.util
from urllib.parse import quote

import django

from django_secret_registry import secret

DEBUG = True
USE_TZ = True
ALLOWED_HOSTS = ["*"]
SECRET_KEY = secret("vault://text")
ROOT_URLCONF = "tests.leaks.site"
STATIC_URL = "/static/"
ADMINS = ["ada@example.org"] if django.VERSION >= (6, 0) else [("Ada", "ada@example.org")]
if django.VERSION >= (6, 1):
    MAILERS = {"default": {"BACKEND": "django.core.mail.backends.locmem.EmailBackend"}}
else:
    EMAIL_BACKEND = "django.core.mail.backends.locmem.EmailBackend"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

_PROMETHEUS = importlib.util.find_spec("django_prometheus") is not None
INSTALLED_APPS = [
    "django_secret_registry",
    *(["django_prometheus"] if _PROMETHEUS else []),
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.messages",
    "django.contrib.sessions",
    "django.contrib.staticfiles",
]
MIDDLEWARE = [
    *(["django_prometheus.middleware.PrometheusBeforeMiddleware"] if _PROMETHEUS else []),
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    *(["django_prometheus.middleware.PrometheusAfterMiddleware"] if _PROMETHEUS else []),
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
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}
MIGRATION_MODULES = dict.fromkeys(
    ("admin", "auth", "contenttypes", "sessions", "django_secret_registry")
)
CACHES = {"default": {"BACKEND": "tests.leaks.sinks.SharedCache"}}

SECRET_REGISTRY = {
    "PROVIDERS": {"vault": {"BACKEND": "tests.leaks.material.Vault"}},
    "SECRETS": {
        "shown": {"REF": "vault://text", "TEMPLATES": True},
        "hidden": "vault://url",
        "login": {"MAP": {"password": "vault://document#/login/password", "url": "vault://url"}},
    },
}
# Names at which Django's own filter does not look.
TEXT = secret("vault://text")
BINARY = secret("vault://binary?as=bytes")
DOCUMENT = secret("vault://document")
PHRASE = secret("vault://phrase")
ROTATING = secret("vault://rotating")
ABSENT = secret("vault://absent", default=None)
BROKER = secret("vault://text").map(lambda text: f"amqp://app:{quote(text, safe='')}@mq/")
BOX = {"url": secret("vault://url"), "list": [{"deep": secret("vault://document#/login/password")}]}

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "filters": {"secrets": {"()": "django_secret_registry.redaction.SecretFilter"}},
    "handlers": {
        # Made before any app is loaded, as that of Django's own LOGGING.
        "mails": {
            "class": "django.utils.log.AdminEmailHandler",
            "level": "ERROR",
            "include_html": True,
            "filters": ["secrets"],
        },
        "filtered": {"class": "tests.leaks.sinks.FilteredLog", "filters": ["secrets"]},
    },
    "root": {"level": "DEBUG", "handlers": ["filtered"]},
    "loggers": {"django": {"handlers": []}, "django.request": {"handlers": ["mails"]}},
}
