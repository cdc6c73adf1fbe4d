"""Rebinding after a rotation: Django's caches and storages, settings, functions."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from django.core.cache import cache, caches
from django.core.files.base import ContentFile
from django.core.files.storage import default_storage, storages
from django.core.signals import setting_changed

from django_secret_registry import SecretRef, registry
from django_secret_registry.live import secret
from django_secret_registry.signals import secret_rotated
from tests.canary import canary
from tests.rotating import Vault
from tests.scripted import PATIENCE, running
from tests.servers.redis import redis, redis_session

__all__ = ["redis", "redis_session"]

OLD, NEW = canary("old"), canary("new")
REDIS = "django.core.cache.backends.redis.RedisCache"


@pytest.fixture
def vault(settings) -> Vault:
    vault = Vault()
    vault.put("value", OLD)
    vault.put("other", canary("other"))
    settings.SECRET_REGISTRY = vault.settings()
    return vault


def rotate(vault: Vault, value: str = NEW, name: str = "value") -> None:
    """Rotate, have this process notice, as it would within the TTL, and wait until all is told."""
    told = threading.Event()

    def receiver(**kwargs: Any) -> None:
        told.set()

    vault.put(name, value)
    secret_rotated.connect(receiver)
    try:
        registry.refresh(f"vault://{name}")
        assert told.wait(PATIENCE)
    finally:
        secret_rotated.disconnect(receiver)


# -- caches --------------------------------------------------------------------------------------


@pytest.fixture
def cached(redis, settings, vault) -> Any:
    """A cache in Redis, whose password is a secret."""
    redis.set_password(OLD)
    settings.CACHES = {
        "default": {
            "BACKEND": REDIS,
            "LOCATION": f"redis://127.0.0.1:{redis.port}/0",
            "OPTIONS": {"password": secret("vault://value")},
        }
    }
    cache.set("k", 1)
    return redis


def test_cache(cached, vault):
    """After a rotation the cache logs in with the new password."""
    cached.set_password(NEW)
    before = caches["default"]
    rotate(vault)
    assert caches["default"] is not before
    with cached.client() as client:
        client.client_kill_filter(_type="normal", skipme=True)
    assert cache.get("k") == 1
    cache.set("k", 2)


def test_requests_in_flight(cached, vault):
    """A thread that holds a connection finishes with it; its next cache is a new one."""
    go_on, holds = threading.Event(), threading.Event()

    def request() -> tuple[object, bool]:
        mine = caches["default"]
        mine.get("k")
        holds.set()
        assert go_on.wait(PATIENCE)
        return mine.get("k"), caches["default"] is not mine

    with running(request) as outcome:
        assert holds.wait(PATIENCE)
        cached.set_password(NEW)
        rotate(vault)
        go_on.set()
    assert outcome == [(1, True)]


def test_other_secret(cached, vault):
    """Caches stay as they are when a secret rotates that is not in them."""
    registry.get("vault://other")
    before = caches["default"]
    rotate(vault, name="other")
    assert caches["default"] is before


def test_same_version(cached, vault):
    """Caches stay as they are when a refresh brings what was known."""
    before = caches["default"]
    registry.refresh("vault://value")
    assert caches["default"] is before


# -- storages ------------------------------------------------------------------------------------


@pytest.fixture
def stored(settings, vault, tmp_path) -> Any:
    """A storage whose location and URL are secrets."""
    vault.put("location", str(tmp_path / "old"))
    settings.STORAGES = {
        "default": {
            "BACKEND": "django.core.files.storage.FileSystemStorage",
            "OPTIONS": {"location": secret("vault://location")},
        },
        "staticfiles": {"BACKEND": "django.core.files.storage.InMemoryStorage"},
    }
    default_storage.save("f", ContentFile(b"x"))
    return tmp_path


def test_storage(stored, vault):
    """After a rotation everybody who asks Django for a storage gets a new one."""
    before, other = storages["default"], storages["staticfiles"]
    rotate(vault, str(stored / "new"), "location")
    assert storages["default"] is not before
    assert storages["staticfiles"] is other
    default_storage.save("f", ContentFile(b"y"))
    assert (stored / "new" / "f").read_bytes() == b"y"
    assert before.exists("f"), "who holds the old one goes on with it"


def test_storage_that_nobody_has_used(settings, stored, vault):
    """A storage that was not made yet is not made by a rotation."""
    storages._storages.clear()
    rotate(vault, str(stored / "new"), "location")
    assert storages._storages == {}


def test_storage_that_cannot_be_made(stored, vault, caplog):
    """A storage that cannot be made is logged, and made when it is asked for next."""
    before = storages["default"]
    storages.backends["default"]["OPTIONS"]["nonsense"] = 1  # type: ignore[index]
    rotate(vault, str(stored / "new"), "location")
    assert "Rebinding the storage 'default' failed with TypeError" in caplog.text
    assert "default" not in storages._storages
    assert default_storage.location == before.location


# -- REBIND --------------------------------------------------------------------------------------


def test_setting(settings, vault):
    """A setting that REBIND names is announced as changed when a secret in it rotates."""
    told: list[Any] = []

    def receiver(*, setting: str, value: Any, enter: bool, **kwargs: Any) -> None:
        told.append((setting, enter, value["KEY"]))

    settings.SECRET_REGISTRY = vault.settings(REBIND=["LIBRARY", "UNRELATED"])
    settings.LIBRARY = {"KEY": secret("vault://value")}
    settings.UNRELATED = {"KEY": "literal"}
    registry.get("vault://value")
    setting_changed.connect(receiver)
    try:
        rotate(vault)
    finally:
        setting_changed.disconnect(receiver)
    assert told == [("LIBRARY", True, NEW)]


def test_failing_receiver(settings, vault, caplog):
    """A receiver that fails is logged without its error, which may hold a value; others go on."""

    def failing(*, setting: str, value: Any, **kwargs: Any) -> None:
        if setting == "LIBRARY":
            raise RuntimeError(f"cannot use {value}")

    settings.SECRET_REGISTRY = vault.settings(REBIND=["LIBRARY", on_rotation])
    settings.LIBRARY = secret("vault://value")
    registry.get("vault://value")
    called.clear()
    setting_changed.connect(failing)
    try:
        rotate(vault)
    finally:
        setting_changed.disconnect(failing)
    assert "Rebinding settings.LIBRARY failed with RuntimeError" in caplog.text
    assert len(called) == 1


called: list[dict[str, Any]] = []


def on_rotation(**kwargs: Any) -> None:
    called.append(kwargs)


@pytest.mark.parametrize("target", [on_rotation, "tests.test_rebinding.on_rotation"])
def test_function(settings, vault, target):
    """A function in REBIND, or its path, is called after each rotation, with no value."""
    called.clear()
    settings.SECRET_REGISTRY = vault.settings(REBIND=[target])
    registry.get("vault://value")
    rotate(vault)
    assert called == [
        {
            "provider": "vault",
            "region": "",
            "reference": "vault://value",
            "old_version": "1",
            "new_version": "2",
        }
    ]


def test_failing_function(settings, vault, caplog):
    """A function that fails is logged by its name; the rotation goes on."""

    def failing(**kwargs: Any) -> None:
        raise RuntimeError(str(registry.get("vault://value")))

    settings.SECRET_REGISTRY = vault.settings(REBIND=[failing, on_rotation])
    registry.get("vault://value")
    called.clear()
    rotate(vault)
    assert "failed with RuntimeError" in caplog.text
    assert len(called) == 1


def test_order(settings, cached, vault):
    """Receivers of secret_rotated find caches that are rebound already, and the new value."""
    seen: list[Any] = []
    before = caches["default"]

    def receiver(*, reference: str, **kwargs: Any) -> None:
        seen.append((caches["default"] is before, registry.get(reference)))

    secret_rotated.connect(receiver)
    try:
        rotate(vault)
    finally:
        secret_rotated.disconnect(receiver)
    assert seen == [(False, NEW)]


def test_reading_of_a_rotated_secret(settings, vault):
    """What is made of a rotated secret is known by every spelling of it, and by entries."""
    from django_secret_registry.events import Rotated

    settings.SECRET_REGISTRY = vault.settings(
        SECRETS={"entry": "vault://value#key", "map": {"MAP": {"a": "vault://value"}}}
    )
    rotated = Rotated("vault", "", "vault://value", "1", "2")
    for text in ("vault://value", "vault://value#x", "entry", "map", SecretRef.parse("entry")):
        assert registry.reads(text, rotated)
    for text in ("vault://other", "vault://value?stage=previous", "missing://value"):
        assert not registry.reads(text, rotated)
