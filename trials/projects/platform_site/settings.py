"""A shop's platform: queue, error reports, tokens, media and e-mail, each with a credential."""

import os
from pathlib import Path
from urllib.parse import quote

from django_secret_registry import secret

DEBUG = False
ALLOWED_HOSTS = ["localhost"]
ROOT_URLCONF = "platform_site.urls"
WSGI_APPLICATION = "platform_site.wsgi.application"
USE_TZ = True
STATIC_URL = "static/"
STATIC_ROOT = Path(__file__).parents[1] / "static"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

INSTALLED_APPS = [
    "django_secret_registry",
    "platform_site.apps.PlatformConfig",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "anymail",
    "rest_framework",
]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
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

SECRET_REGISTRY = {
    "REGION": "eu-central-1",
    "PROVIDERS": {
        "aws": {"BACKEND": "django_secret_registry.providers.aws.SecretsManagerProvider"},
    },
    # A worker has no page on which somebody could press a button: it follows within seconds.
    "CACHE": {"TTL": 2},
    "REBIND": ["SIMPLE_JWT", "platform_site.celery.reset"],
}

SECRET_KEY = secret("aws://prod/django#secret_key")
SECRET_KEY_FALLBACKS = [secret("aws://prod/django?stage=previous#secret_key", default=None)]

DATABASES = {
    "default": {
        "ENGINE": "django_secret_registry.db.backends.postgresql",
        "NAME": "platform",
        "HOST": "127.0.0.1",
        "PORT": os.environ.get("PGPORT"),
        "USER": secret("aws://prod/db#user"),
        "PASSWORD": secret("aws://prod/db#password"),
        "CONN_HEALTH_CHECKS": True,
        "OPTIONS": {"pool": True},
    }
}

REDIS = f"127.0.0.1:{os.environ.get('REDIS_PORT')}"


def redis_url(database):
    """Return the URL of a database of Redis, for whoever asks then."""
    return secret("aws://prod/redis#password").map(
        lambda password: f"redis://:{quote(password, safe='')}@{REDIS}/{database}"
    )


CACHES = {"default": {"BACKEND": "django_redis.cache.RedisCache", "LOCATION": redis_url(0)}}
CELERY_BROKER_URL = redis_url(1)
CELERY_RESULT_BACKEND = redis_url(2)

STORAGES = {
    "default": {"BACKEND": "storages.backends.s3.S3Storage"},
    "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"},
}
AWS_ACCESS_KEY_ID = secret("aws://prod/media#id")
AWS_SECRET_ACCESS_KEY = secret("aws://prod/media#key")
AWS_STORAGE_BUCKET_NAME = "media"
AWS_S3_REGION_NAME = "eu-central-1"
AWS_S3_ENDPOINT_URL = os.environ.get("MEDIA_URL")

EMAIL_BACKEND = "anymail.backends.mailgun.EmailBackend"
ANYMAIL = {
    "MAILGUN_API_KEY": secret("aws://prod/mailgun#key"),
    "MAILGUN_API_URL": f"http://{os.environ.get('MAILGUN')}/v3",
    "MAILGUN_SENDER_DOMAIN": "example.com",
}
DEFAULT_FROM_EMAIL = "platform@example.com"

SENTRY_DSN = secret("aws://prod/sentry#dsn")

REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": [
        "rest_framework_simplejwt.authentication.JWTAuthentication",
    ],
}
SIMPLE_JWT = {"SIGNING_KEY": secret("aws://prod/jwt#key")}

#: What the payment service gave; a view uses it.
PAYMENT_KEY = secret("aws://prod/payment#api_key")

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "handlers": {"console": {"class": "logging.StreamHandler"}},
    "root": {"handlers": ["console"], "level": "INFO"},
}
