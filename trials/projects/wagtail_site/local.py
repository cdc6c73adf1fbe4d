"""``mysite/settings/local.py``, which the settings of Wagtail's template import at their end."""

import os

from django_secret_registry import secret
from django_secret_registry.database import database_config

from .base import INSTALLED_APPS, STORAGES

INSTALLED_APPS = ["django_secret_registry", *INSTALLED_APPS]

SECRET_REGISTRY = {
    "REGION": "eu-central-1",
    "PROVIDERS": {
        "aws": {"BACKEND": "django_secret_registry.providers.aws.SecretsManagerProvider"},
    },
}

SECRET_KEY = secret("aws://prod/django#secret_key")
SECRET_KEY_FALLBACKS = [
    secret("aws://prod/django?stage=pending#secret_key", default=None),
    secret("aws://prod/django?stage=previous#secret_key", default=None),
]
ALLOWED_HOSTS = ["localhost"]

# As RDS keeps it: user, password, host, port and name of the database are one secret.
DATABASES = {
    "default": database_config(
        "aws://prod/rds", engine="postgres", CONN_MAX_AGE=60, CONN_HEALTH_CHECKS=True
    )
}

CACHES = {
    "default": {
        "BACKEND": "django.core.cache.backends.redis.RedisCache",
        "LOCATION": secret("aws://prod/redis#url"),
    },
    "renditions": {
        "BACKEND": "django.core.cache.backends.redis.RedisCache",
        "LOCATION": secret("aws://prod/redis#url"),
        "KEY_PREFIX": "renditions",
    },
}
SESSION_ENGINE = "django.contrib.sessions.backends.cached_db"

STORAGES = {
    **STORAGES,
    "default": {
        "BACKEND": "storages.backends.s3.S3Storage",
        "OPTIONS": {
            "bucket_name": "media",
            "region_name": "eu-central-1",
            "endpoint_url": os.environ.get("MEDIA_URL"),
            "access_key": secret("aws://prod/media#id"),
            "secret_key": secret("aws://prod/media#key"),
        },
    },
}

EMAIL_BACKEND = "django.core.mail.backends.smtp.EmailBackend"
EMAIL_HOST = "127.0.0.1"
EMAIL_PORT = int(os.environ.get("SMTP_PORT", "25"))
EMAIL_HOST_USER = "site"
EMAIL_HOST_PASSWORD = secret("aws://prod/smtp#password")

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "handlers": {"console": {"class": "logging.StreamHandler"}},
    "root": {"handlers": ["console"], "level": "INFO"},
}
