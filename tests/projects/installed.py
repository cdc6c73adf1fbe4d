"""A project in an environment that holds the wheel with one extra, and nothing else.

``python -I installed.py EXTRA`` uses what the extra is for, as far as no network is needed, and
prints JSON. Without an extra (``none``) it uses every backend, whose libraries are not there.
"""

from __future__ import annotations

import importlib.metadata
import io
import json
import os
import sys
from typing import Any

import django
from django.conf import settings
from django.core.management import call_command, get_commands
from django.core.management.base import SystemCheckError
from django.utils.module_loading import import_string

import django_secret_registry
from django_secret_registry import registry, secret
from django_secret_registry.exceptions import SecretError

PROVIDERS = "django_secret_registry.providers"
LOOPBACK = {"client_options": {"api_endpoint": "127.0.0.1:9"}}
#: By extra: aliases whose clients are built without a network, and further classes to import.
BACKENDS: dict[str, dict[str, Any]] = {
    "aws": {
        "aws": {
            "BACKEND": f"{PROVIDERS}.aws.SecretsManagerProvider",
            "OPTIONS": {"session": {"aws_access_key_id": "id", "aws_secret_access_key": "x"}},
            "REGION": "eu-central-1",
        },
        "ssm": {
            "BACKEND": f"{PROVIDERS}.aws.ParameterStoreProvider",
            "OPTIONS": {"session": {"aws_access_key_id": "id", "aws_secret_access_key": "x"}},
            "REGION": "eu-central-1",
        },
    },
    "gcp": {
        "gcp": {
            "BACKEND": f"{PROVIDERS}.gcp.SecretManagerProvider",
            "OPTIONS": {"project": "acme-prod", "insecure": True, "client": LOOPBACK},
        },
    },
    "azure": {
        "azure": {
            "BACKEND": f"{PROVIDERS}.azure.KeyVaultProvider",
            "OPTIONS": {"vault": "acme-prod", "credential": {"kind": "managed_identity"}},
        },
    },
    "vault": {
        "vault": {
            "BACKEND": f"{PROVIDERS}.vault.VaultProvider",
            "OPTIONS": {
                "url": "http://127.0.0.1:9",
                "auth": {"method": "token", "token": "x"},
            },
        },
    },
    "kubernetes": {
        "k8s": {
            "BACKEND": f"{PROVIDERS}.kubernetes.SecretProvider",
            "OPTIONS": {"url": "https://127.0.0.1:9", "namespace": "shop"},
        },
    },
}
CLASSES = {
    "postgres": [
        "django_secret_registry.db.backends.postgresql.base.DatabaseWrapper",
        "psycopg.Connection",
    ],
    "prometheus": ["django_prometheus.exports.ExportToDjangoView"],
    "redis": ["django_secret_registry.fleet.redis.RedisBus", "redis.Redis"],
}


def main(extra: str) -> None:
    wanted = [*BACKENDS] if extra in ("all", "none") else [extra]
    aliases = {alias: one for name in wanted for alias, one in BACKENDS.get(name, {}).items()}
    os.environ["INSTALLED_KEY"] = "of the environment"
    settings.configure(
        INSTALLED_APPS=[
            "django_secret_registry",
            *(["django_prometheus"] if extra in ("all", "prometheus") else []),
        ],
        SECRET_REGISTRY={
            "PROVIDERS": {"env": {"BACKEND": f"{PROVIDERS}.env.EnvProvider"}, **aliases}
        },
        KEY=secret("env://INSTALLED_KEY"),
        USE_TZ=True,
    )
    django.setup()
    found: dict[str, Any] = {"warnings": 0, "classes": []}
    try:
        call_command("check", fail_level="WARNING", stderr=io.StringIO())
    except SystemCheckError as error:
        found["warnings"] = str(error).count("secret_registry.W005")
    found["value"] = str(settings.KEY)
    found["clients"] = {alias: build(alias) for alias in aliases}
    for name in CLASSES if extra == "all" else [extra]:
        found["classes"] += [import_string(path).__name__ for path in CLASSES.get(name, ())]
    if extra in ("all", "prometheus"):
        from prometheus_client import generate_latest

        registry.start()
        found["metrics"] = b"secret_registry_resolve_total" in generate_latest()
    found["file"] = django_secret_registry.__file__
    found["version"] = importlib.metadata.version("django-secret-registry")
    found["commands"] = sorted(
        name for name, app in get_commands().items() if app == "django_secret_registry"
    )
    found["distributions"] = sorted(
        one.name.lower().replace("_", "-") for one in importlib.metadata.distributions()
    )
    points = importlib.metadata.entry_points(group="pytest11")
    found["entry_points"] = {point.name: point.value for point in points}
    sys.stdout.write(json.dumps(found) + "\n")


def build(alias: str) -> str:
    """Build the alias' client; return the name of the provider's class, or what to install."""
    try:
        return type(registry.get_provider(alias)).__name__
    except SecretError as error:
        return error.hint


if __name__ == "__main__":
    main(sys.argv[1])
