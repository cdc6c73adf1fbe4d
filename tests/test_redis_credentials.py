"""``RedisCredentials``: a Redis cache that logs in with the current password, each time."""

from __future__ import annotations

import asyncio

import pytest
from django.core.cache import cache, caches

from django_secret_registry import SecretNotFound, registry
from django_secret_registry.cache import RedisCredentials
from tests.canary import canary
from tests.rotating import Vault
from tests.servers.redis import redis, redis_session

__all__ = ["redis", "redis_session"]

OLD, NEW = canary("old"), canary("new")


@pytest.fixture
def vault(settings) -> Vault:
    vault = Vault()
    vault.put("redis", {"user": "default", "password": OLD})
    settings.SECRET_REGISTRY = vault.settings()
    return vault


@pytest.mark.parametrize("username", ["", "vault://redis#user"])
def test_cache(redis, settings, vault, username):
    """Connections made after a rotation log in with the new password; the cache stays."""
    redis.set_password(OLD)
    settings.CACHES = {
        "default": {
            "BACKEND": "django.core.cache.backends.redis.RedisCache",
            "LOCATION": f"redis://127.0.0.1:{redis.port}/0",
            "OPTIONS": {
                "credential_provider": RedisCredentials("vault://redis#password", username=username)
            },
        }
    }
    assert vault.fetches == 0
    cache.set("k", 1)
    before = caches["default"]
    redis.set_password(NEW)
    vault.put("redis", {"user": "default", "password": NEW})
    registry.refresh("vault://redis")
    with redis.client() as client:
        client.client_kill_filter(_type="normal", skipme=True)
    assert cache.get("k") == 1
    assert caches["default"] is before


def test_in_a_loop(vault):
    """An asynchronous client gets the same, and what is missing is an error."""
    both = RedisCredentials("vault://redis#password", username="vault://redis#user")
    assert asyncio.run(both.get_credentials_async()) == both.get_credentials() == ("default", OLD)
    alone = RedisCredentials("vault://redis#password")
    assert asyncio.run(alone.get_credentials_async()) == (OLD,)
    missing = RedisCredentials("vault://redis#none")
    with pytest.raises(SecretNotFound, match="none"):
        missing.get_credentials()
    with pytest.raises(SecretNotFound, match="none"):
        asyncio.run(missing.get_credentials_async())
