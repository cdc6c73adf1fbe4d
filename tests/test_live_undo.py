"""Live settings that a test changes for a while: they are live again when it is undone."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, contextmanager
from typing import Any
from unittest import mock

import pytest
from django.conf import settings as django_settings
from django.test import override_settings

from django_secret_registry import SecretStr, registry
from django_secret_registry.live import raw_setting, secret
from tests.canary import canary
from tests.live_support import Script, configured

KEY = canary("key")
live: Any = django_settings


@pytest.fixture(autouse=True)
def vault(settings: Any) -> Script:
    script = configured(settings, {"key": KEY, "number": "5432", "other": canary("other")})
    settings.LIVE = secret("vault://key")
    settings.NUMBER = secret("vault://number").map(int)
    settings.MISSING = secret("vault://missing", default="stand-in")
    settings.SECRET_KEY = secret("vault://key")
    settings.DEEP = {"password": secret("vault://key"), "user": "app"}
    return script


def marker_of(name: str) -> Any:
    """Return what stands in settings once somebody has read it."""
    getattr(live, name)
    return raw_setting(name)


@contextmanager
def by_an_old_monkeypatch(name: str) -> Any:
    """What pytest does before 9.2: read, assign, assign what was read."""
    before = getattr(live, name)
    setattr(live, name, "patched")
    yield
    setattr(live, name, before)


@contextmanager
def by_deleting(name: str) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.delattr(live, name)
        patch.setattr(live, name, "patched", raising=False)
        yield


@contextmanager
def by_monkeypatch(name: str) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(live, name, "patched")
        yield


def by_mock(name: str) -> Any:
    return mock.patch.object(live, name, "patched")


WAYS = [by_monkeypatch, by_an_old_monkeypatch, by_deleting, by_mock]


@pytest.mark.parametrize("name", ["LIVE", "NUMBER", "MISSING", "SECRET_KEY"])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("read", [False, True])
def test_a_patched_setting_is_live_again(
    way: Callable[[str], AbstractContextManager[None]], name: str, *, read: bool
) -> None:
    """Whichever tool changes a setting, and whether it was read before, the marker comes back."""
    marker = raw_setting(name)
    if read:
        getattr(live, name)
    with way(name):
        assert getattr(live, name) == "patched"
    assert marker_of(name) is marker


def test_a_rotation_meanwhile_is_followed(vault: Script) -> None:
    """What a secret became while a test had patched it is what readers get afterwards."""
    with by_an_old_monkeypatch("LIVE"):
        assert live.LIVE == "patched"
        vault.rotate("key", canary("new"))
    assert canary("new") == live.LIVE
    vault.rotate("key", canary("newer"))
    assert canary("newer") == live.LIVE


def test_the_value_itself_written_back_stays_live() -> None:
    """A setting that is assigned what it reads as is not frozen; an equal literal is one."""
    marker = raw_setting("LIVE")
    live.LIVE = live.LIVE
    assert marker_of("LIVE") is marker
    live.LIVE = "literal"
    live.LIVE = SecretStr(KEY)
    assert type(raw_setting("LIVE")) is SecretStr


def test_patches_in_an_override_belong_to_it() -> None:
    """What is patched inside of ``override_settings`` leaves what lies below alone."""
    marker, other = raw_setting("LIVE"), secret("vault://other")
    with override_settings(LIVE=other):
        with by_an_old_monkeypatch("LIVE"):
            assert live.LIVE == "patched"
        assert marker_of("LIVE") is other
    assert marker_of("LIVE") is marker


def test_a_patch_fetches_nothing(vault: Script) -> None:
    """To assign to a live setting that nobody has read needs no provider."""
    live.LIVE = "literal"
    live.DEEP["password"] = "literal"
    assert (live.LIVE, live.DEEP["password"], vault.fetched) == ("literal", "literal", [])


def test_a_patched_item_is_live_again(vault: Script) -> None:
    """``monkeypatch.setitem``, ``delitem`` and ``patch.dict`` of a live dict leave it live."""
    deep = live.DEEP
    for _ in range(2):
        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(deep, "password", "patched")
            assert deep["password"] == "patched"
        with pytest.MonkeyPatch.context() as patch:
            patch.delitem(deep, "password")
            assert "password" not in deep
        with mock.patch.dict(deep, password="patched"):
            assert deep["password"] == "patched"
        vault.rotate("key", canary("new"))
        assert deep["password"] == canary("new")
    deep["user"] = deep["password"]
    registry.evict("vault://key")
    vault.values["key"] = canary("newer")
    assert deep["user"] == canary("new")
