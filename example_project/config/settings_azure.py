"""The shop with its secrets in Azure Key Vault.

The libraries of Azure find their credentials as they always do. SHOP_STORE_OPTIONS, in JSON, adds
to OPTIONS: the demo has a server of its own.
"""

from __future__ import annotations

from config.settings import *  # noqa: F403
from config.settings import SECRET_REGISTRY as WITH_FILES
from config.settings import env
from django_secret_registry import secret

SECRET_REGISTRY = {
    **WITH_FILES,
    "PROVIDERS": {
        "store": {
            "BACKEND": "django_secret_registry.providers.azure.KeyVaultProvider",
            "OPTIONS": {
                "vault": env.str("SHOP_VAULT", default="trail-and-tarn"),
                **env.json("SHOP_STORE_OPTIONS", default={}),
            },
        },
    },
}

# Key Vault keeps the value before the last rotation: what it signed stays valid.
SECRET_KEY_FALLBACKS = [secret("store://shop-django?stage=previous#secret_key", default=None)]
