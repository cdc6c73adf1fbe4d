"""The shop with its secrets in Kubernetes, read from its API.

In a pod the provider finds all by itself. SHOP_STORE_OPTIONS, in JSON, adds to OPTIONS: the demo
runs in no pod, and has a server of its own.

Kubernetes keeps no earlier values: whoever rotates ``shop-django`` writes what it held into
``shop-django-previous`` first, as with files.
"""

from __future__ import annotations

from config.settings import *  # noqa: F403
from config.settings import SECRET_REGISTRY as WITH_FILES
from config.settings import env

SECRET_REGISTRY = {
    **WITH_FILES,
    "PROVIDERS": {
        "store": {
            "BACKEND": "django_secret_registry.providers.kubernetes.SecretProvider",
            "OPTIONS": env.json("SHOP_STORE_OPTIONS", default={}),
        },
    },
}
