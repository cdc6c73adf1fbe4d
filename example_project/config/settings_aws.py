"""The shop with its secrets in AWS Secrets Manager.

boto3 finds region, credentials and endpoint as it always does, in the environment for example.
"""

from __future__ import annotations

from config.settings import *  # noqa: F403
from config.settings import SECRET_REGISTRY as WITH_FILES
from config.settings import env
from django_secret_registry import secret

SECRET_REGISTRY = {
    **WITH_FILES,
    "REGION": env.str("AWS_DEFAULT_REGION", default="eu-central-1"),
    "PROVIDERS": {
        "store": {"BACKEND": "django_secret_registry.providers.aws.SecretsManagerProvider"},
    },
}

# AWS keeps the value before the last rotation: what it signed stays valid.
SECRET_KEY_FALLBACKS = [secret("store://shop-django?stage=previous#secret_key", default=None)]
