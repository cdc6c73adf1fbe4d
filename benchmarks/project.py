"""The Django project that is measured: settings by secret beside the same given as literals."""

from __future__ import annotations

import os

from django_secret_registry import secret

SECRET_KEY = "not a secret: nothing is signed here" * 2
INSTALLED_APPS = ["django_secret_registry", "django_prometheus"]
DATABASES: dict[str, object] = {}
TEMPLATES = [{"BACKEND": "django.template.backends.django.DjangoTemplates"}]
USE_TZ = True

PLAIN_KEY = "a plain setting"
LIVE_KEY = secret("aws://prod/db#password")

AWS = {
    "session": {"aws_access_key_id": "none", "aws_secret_access_key": "none"},
    "client": {"endpoint_url": os.environ.get("BENCH_UPSTREAM", "http://127.0.0.1:9")},
    "config": {"max_pool_connections": 32},
}
SECRET_REGISTRY = {
    "PROVIDERS": {
        "aws": {
            "BACKEND": "django_secret_registry.providers.aws.SecretsManagerProvider",
            "REGION": "eu-central-1",
            "OPTIONS": AWS,
        },
        "gcp": {
            "BACKEND": "django_secret_registry.providers.gcp.SecretManagerProvider",
            "OPTIONS": {"project": "acme-prod"},
        },
    },
    "SECRETS": {"maps_key": {"REF": "aws://prod/maps#password", "TEMPLATES": True}},
}
