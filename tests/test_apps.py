"""The app in a process that is set up: what ``override_settings`` does to the registry."""

from __future__ import annotations

from typing import Any

import pytest
from django.apps import apps
from django.core import checks
from django.test import override_settings
from django.utils import translation
from django.utils.functional import Promise

from django_secret_registry import (
    InvalidProvider,
    InvalidReference,
    ProviderDoesNotExist,
    ProviderUnavailable,
    SecretNotFound,
    SecretStr,
    registry,
    secret,
)
from django_secret_registry.checks import check_configuration
from django_secret_registry.signals import secret_evicted
from tests.canary import canary

MEMORY = "django_secret_registry.providers.memory.MemoryProvider"


def project(**aliases: Any) -> dict[str, Any]:
    """Return a setting with these aliases, each a dict of secrets in memory."""
    return {
        "PROVIDERS": {
            alias: {"BACKEND": MEMORY, "OPTIONS": {"secrets": secrets}}
            for alias, secrets in aliases.items()
        }
    }


def test_an_override_rebuilds_the_registry_and_restores_it() -> None:
    """``override_settings(SECRET_REGISTRY=...)`` counts at once, and no value outlives it."""
    with override_settings(SECRET_REGISTRY=project(memory={"a": canary("outer")})):
        assert registry.get("memory://a") == canary("outer")
        outer = registry.config
        with override_settings(SECRET_REGISTRY=project(memory={"a": canary("inner")}, two={})):
            assert registry.get("memory://a") == canary("inner")
            assert list(registry.config.providers) == ["memory", "two"]
        assert registry.config == outer
        assert registry.get("memory://a") == canary("outer")
    with pytest.raises(SecretNotFound):
        registry.get("memory://a")


def test_the_settings_fixture_rebuilds_the_registry(settings: Any) -> None:
    """pytest-django's fixture works as ``override_settings`` does."""
    settings.SECRET_REGISTRY = project(memory={"a": canary()})
    assert registry.get("memory://a") == canary()
    settings.SECRET_REGISTRY = {}
    with pytest.raises(ProviderDoesNotExist):
        registry.get("memory://a")


def test_another_setting_leaves_the_registry_alone() -> None:
    """Overriding any other setting keeps providers and values."""
    with override_settings(SECRET_REGISTRY=project(memory={"a": canary()})):
        provider, value = registry.get_provider("memory"), registry.get("memory://a")
        with override_settings(USE_TZ=False):
            assert registry.get_provider("memory") is provider
            assert registry.get("memory://a") is value


def test_a_secret_in_options_is_read_when_its_provider_is_built() -> None:
    """A marker in OPTIONS waits for the build, and the provider gets a ``str``."""
    setting = project(one={"token": canary("token")}, two={"a": secret("one://token")})
    with override_settings(SECRET_REGISTRY=setting):
        assert not any(row.builds for row in registry.snapshot().providers)
        assert registry.get("two://a") == canary("token")
        assert [row.builds for row in registry.snapshot().providers] == [1, 1]


def test_a_live_setting_follows_an_override() -> None:
    """A setting that is a secret reads as what the overriding configuration holds."""
    from django.conf import settings

    with override_settings(
        SECRET_REGISTRY=project(memory={"a": canary("live")}), STRIPE_KEY=secret("memory://a")
    ):
        assert canary("live") == settings.STRIPE_KEY
        assert type(settings.STRIPE_KEY) is SecretStr
        assert "settings.STRIPE_KEY" in registry.references()


def test_a_mistake_is_raised_at_the_first_use_of_its_alias_only() -> None:
    """With mistakes in it the process starts; a broken alias or entry raises when it is used."""
    setting = project(good={"a": canary()}, bad={})
    setting["PROVIDERS"]["bad"]["TTL"] = -1
    setting["PROVIDERS"]["gone"] = {"BACKEND": "no.such.Provider"}
    setting["PROVIDERS"]["odd"] = {"BACKEND": MEMORY, "OPTIONS": {"sekrets": {}}}
    setting["PROVIDERS"]["fails"] = {"BACKEND": "tests.broken_backend.Provider"}
    setting["SECRETS"] = {
        "ok": "good://a",
        "wrong": {"REF": "good://a", "TTL": -1},
        "uses": "bad://a",
    }
    with override_settings(SECRET_REGISTRY=setting):
        assert registry.get("ok") == registry.get("good://a") == canary()
        for alias in ("bad", "gone", "odd", "fails"):
            with pytest.raises(InvalidProvider, match=f"provider '{alias}'"):
                registry.get(f"{alias}://a")
        with pytest.raises(InvalidProvider, match="provider 'bad'"):
            registry.get("uses")
        with pytest.raises(InvalidReference, match="'wrong'"):
            registry.get("wrong")


def test_offline_mode_fetches_nothing() -> None:
    """``"OFFLINE": True`` makes every read an outage."""
    with (
        override_settings(SECRET_REGISTRY={**project(memory={"a": canary()}), "OFFLINE": True}),
        pytest.raises(ProviderUnavailable, match="offline"),
    ):
        registry.get("memory://a")


def test_ready_may_run_again() -> None:
    """A second ``ready()``, as ``override_settings(INSTALLED_APPS=...)`` does, doubles nothing."""
    seen: list[str] = []

    def listen(**fields: Any) -> None:
        seen.append(fields["reference"])

    secret_evicted.connect(listen)
    try:
        with override_settings(SECRET_REGISTRY=project(memory={"a": canary()})):
            config = registry.config
            apps.get_app_config("django_secret_registry").ready()
            assert registry.config is config
            registry.get("memory://a")
            registry.evict("memory://a")
    finally:
        secret_evicted.disconnect(listen)
    assert seen == ["memory://a"]
    assert checks.registry.registry.get_checks().count(check_configuration) == 1


def test_the_app_introduces_itself() -> None:
    """The admin's heading is translated when it is shown, and the app needs no project default."""
    config = apps.get_app_config("django_secret_registry")
    assert isinstance(config.verbose_name, Promise)
    with translation.override("en"):
        assert str(config.verbose_name) == "Secret registry"
    assert config.default_auto_field == "django.db.models.BigAutoField"
