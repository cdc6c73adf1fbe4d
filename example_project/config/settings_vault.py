"""The shop with its secrets in HashiCorp Vault or OpenBao, in KV v2 at ``secret/``.

Address and token are found as Vault's own programs find them: VAULT_ADDR and VAULT_TOKEN.
"""

from __future__ import annotations

from config.settings import *  # noqa: F403
from config.settings import SECRET_REGISTRY as WITH_FILES
from django_secret_registry import secret

SECRET_REGISTRY = {
    **WITH_FILES,
    "PROVIDERS": {
        "store": {"BACKEND": "django_secret_registry.providers.vault.VaultProvider"},
    },
}

# KV v2 keeps the value before the last rotation: what it signed stays valid.
SECRET_KEY_FALLBACKS = [secret("store://shop-django?stage=previous#secret_key", default=None)]
