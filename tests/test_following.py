"""Following: secrets that somebody keeps a copy of are fetched again, though nobody reads them."""

from __future__ import annotations

import threading

import pytest

from django_secret_registry import ProviderUnavailable, following
from django_secret_registry.events import Rotated
from django_secret_registry.following import LONGEST, SHORTEST, Follower
from django_secret_registry.rebinding import copied
from django_secret_registry.signals import secret_rotated
from tests.canary import canary
from tests.scripted import HandClock, Script, alias, entry, make, until

PLACES = {
    "settings.STORAGES['default']['OPTIONS']['key']": "a://storage#key",
    "settings.CACHES['default']['LOCATION']": "a://cache",
    "settings.TOKEN": "a://token",
}


@pytest.fixture
def script() -> Script:
    return Script({name: canary(name) for name in ("cache", "token", "entry")})


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def followed(script, clock):
    """A registry whose settings have a storage, a cache and a token, and what follows for it."""
    script.answers["storage"] = '{"key": "of the storage"}'
    specs = alias("a", script, "BatchProvider"), entry("entry", "a://entry")
    source = make(*specs, clock=clock)
    source.set_discovery(lambda: PLACES)
    return source, Follower(source, lambda setting: setting in ("STORAGES", "CACHES"))


def names(script: Script) -> list[str]:
    """Return what was fetched since the last look, in one line per call."""
    calls = [" ".join(sorted(ref.name for ref in batch)) for batch in script.batches]
    script.batches.clear()
    return calls


def read(source) -> None:
    for text in (*PLACES.values(), "entry"):
        source.get(text)


def test_what_is_copied_is_fetched_within_its_ttl(followed, script, clock):
    """Past the TTL what is copied is fetched, in one call; what is read by others is not."""
    source, follower = followed
    rotated = []
    source.events.subscribe(rotated.append)
    read(source)
    script.batches.clear()
    script.answers["cache"] = canary("new")
    clock.forward(300 * 0.89)  # by the jitter of 10 % nothing is stale before
    assert follower.follow() <= LONGEST
    assert names(script) == []
    clock.forward(300 * 0.22)
    assert follower.follow() == SHORTEST
    assert names(script) == ["cache storage"]
    until(lambda: any(isinstance(event, Rotated) for event in rotated))
    assert {e.reference for e in rotated if isinstance(e, Rotated)} == {"a://cache", "a://storage"}
    assert follower.follow() == LONGEST
    assert names(script) == []


def test_what_was_never_read_is_left_alone(followed, script, clock):
    """A process fetches nothing that it has no use for."""
    source, follower = followed
    source.get("a://token")
    clock.forward(1000)
    assert follower.follow() == LONGEST
    assert names(script) == []


def test_what_does_not_exist_is_left_alone(followed, script, clock):
    """Nobody asks again for a secret that a setting has a default for."""
    source, follower = followed
    del script.answers["cache"]
    assert source.get("a://cache", None) is None
    clock.forward(1000)
    assert follower.follow() == LONGEST
    assert names(script) == []


def test_outage(followed, script, clock):
    """While the backend is down it is asked as seldom as its backoff says; then it goes on."""
    source, follower = followed
    read(source)
    script.batches.clear()
    answer, script.answers["cache"] = script.answers["cache"], ProviderUnavailable("is down")
    script.answers["storage"] = ProviderUnavailable("is down")
    clock.forward(400)
    for _ in range(10):
        assert follower.follow() == SHORTEST
    assert len(names(script)) == 1
    script.answers["cache"] = script.answers["storage"] = answer
    clock.forward(100)
    until(lambda: follower.follow() == LONGEST)


def test_thread(followed, script, clock, monkeypatch):
    """A thread looks after it, outlives an error, and ends when there is nothing to be copied."""
    source, _ = followed
    monkeypatch.setattr(following, "SHORTEST", 0.001)
    monkeypatch.setattr(following, "LONGEST", 0.001)
    source.get("a://cache")
    clock.forward(400)
    script.answers["cache"] = canary("new")
    ended, looks = threading.Event(), []

    def is_copied(setting: str) -> bool:
        looks.append(setting)
        if len(looks) == 1:
            raise LookupError
        return not ended.is_set()

    Follower(source, is_copied).start()
    until(lambda: len(script.fetched) == 2)
    ended.set()
    until(lambda: "secret-registry-following" not in {one.name for one in threading.enumerate()})


@pytest.mark.parametrize("setting", ["CACHES", "STORAGES", "AWS_SECRET_ACCESS_KEY", "SIMPLE_JWT"])
def test_settings_that_are_rebound(settings, setting):
    """Copies are kept of what is rebound: Django's own, django-storages', and what REBIND names."""
    settings.SECRET_REGISTRY = {**settings.SECRET_REGISTRY, "REBIND": ["SIMPLE_JWT"]}
    assert copied(setting)
    assert not copied("EMAIL_HOST_PASSWORD")
    assert not copied("")


def test_who_is_told_of_every_rotation_may_keep_anything(settings):
    """With a function in REBIND, or a receiver of the signal, every secret may be copied."""
    settings.SECRET_REGISTRY = {**settings.SECRET_REGISTRY, "REBIND": [lambda **kwargs: None]}
    assert copied("EMAIL_HOST_PASSWORD")
    settings.SECRET_REGISTRY = {**settings.SECRET_REGISTRY, "REBIND": []}

    def receiver(**kwargs) -> None: ...

    secret_rotated.connect(receiver)
    try:
        assert copied("EMAIL_HOST_PASSWORD")
    finally:
        secret_rotated.disconnect(receiver)
    assert not copied("EMAIL_HOST_PASSWORD")
