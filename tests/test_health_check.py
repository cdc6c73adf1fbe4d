"""The check for django-health-check, asked through its own view."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

import pytest
from django.urls import path

from django_secret_registry import registry, secret
from django_secret_registry.providers.memory import MemoryStore
from tests.canary import canary

pytest.importorskip(
    "health_check", reason="needs django-health-check: pip install django-health-check"
)

from health_check.views import HealthCheckView

CHECK = "django_secret_registry.health.Secrets"
STALE = (CHECK, {"stale_after": timedelta(minutes=5)})

urlpatterns = [
    path("ready/", HealthCheckView.as_view(checks=[CHECK])),
    path("fresh/", HealthCheckView.as_view(checks=[STALE])),
]


@pytest.fixture
def store(settings) -> MemoryStore:
    store = MemoryStore({"one": canary("one")})
    settings.ROOT_URLCONF = __name__
    settings.SECRET_REGISTRY = {
        "PROVIDERS": {
            "memory": {
                "BACKEND": "django_secret_registry.providers.memory.MemoryProvider",
                "OPTIONS": {"secrets": store},
            }
        }
    }
    settings.ONE = secret("memory://one")
    return store


def ask(client, where: str = "/ready/") -> tuple[int, dict[str, str]]:
    response = client.get(where, {"format": "json"})
    return response.status_code, response.json()


@pytest.mark.usefixtures("store")
class TestReady:
    def test_cold(self, client):
        """A worker that lacks a secret is unavailable; the page tells how many, and not which."""
        code, answers = ask(client)
        assert (code, answers) == (500, {"Secrets()": "Unavailable: 1 secrets are not held"})

    def test_warm(self, client, settings):
        """It is well once all is held; the probe itself has nothing fetched."""
        told: list[Any] = []
        unsubscribe = registry.events.subscribe(told.append)
        assert ask(client)[0] == 500
        assert told == []
        unsubscribe()
        registry.warm()
        assert ask(client) == (200, {"Secrets()": "OK"})
        settings.TWO = secret("memory://two", default=None)
        assert ask(client)[0] == 500
        registry.warm()
        assert ask(client)[0] == 200, "it is known not to exist, and has a default"

    def test_metrics(self, client):
        """The page for Prometheus has no label for a secret."""
        text = client.get("/ready/", {"format": "openmetrics"}).content.decode()
        # Before 4.8 the label is the check's repr.
        assert re.search(r'django_health_check_status\{check="Secrets(\(\))?"\} 0', text)
        assert "memory://" not in text

    def test_fleet(self, client, settings):
        """A worker that has not found its place in the fleet's log is unavailable."""
        settings.SECRET_REGISTRY = {
            **settings.SECRET_REGISTRY,
            "FLEET": {
                "BACKEND": "django_secret_registry.fleet.cache.CacheBus",
                "OPTIONS": {"cache": "shared"},
            },
        }
        registry.warm()
        assert ask(client) == (500, {"Secrets()": "Unavailable: the fleet is not joined"})


class TestStale:
    def test_stale(self, client, store, settings, monkeypatch):
        """With ``stale_after`` a value whose refresh fails for so long is a warning."""
        clock = registry.clock
        now = [clock()]
        monkeypatch.setattr(registry, "clock", lambda: now[0])
        settings.SECRET_REGISTRY = dict(settings.SECRET_REGISTRY)
        registry.warm()
        assert ask(client, "/fresh/")[0] == 200
        now[0] += 300 * 1.1 + 1
        assert ask(client, "/fresh/")[0] == 200, "stale, and not for long"
        now[0] += 300
        code, answers = ask(client, "/fresh/")
        assert code == 500
        assert answers == {"Secrets()": "Warning: 1 secrets are stale for more than 300 s"}
        assert ask(client)[0] == 200, "by itself it is no reason to take a worker out of service"
