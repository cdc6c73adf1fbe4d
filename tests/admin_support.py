"""What the tests of the admin pages share: a populated registry on a clock, and people."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any, Self
from urllib.parse import urlencode

import pytest
from django.contrib.admin.utils import quote
from django.contrib.auth.models import Permission, User

from django_secret_registry import AccessDenied, ProviderUnavailable, registry
from django_secret_registry.exceptions import SecretError
from tests.canary import canary
from tests.scripted import HandClock, Script

APP = "django_secret_registry"
PASSWORD = "not-a-secret-of-the-registry"
SECRETS, PROVIDERS = "cachedsecret", "cachedprovider"


class Shown:
    """The registry that the pages show, on a clock that the test moves. ``script`` answers.

    A context manager: at its end the registry has its own clocks again, and empty caches.
    """

    def __init__(self, settings: Any) -> None:
        self.clock = HandClock(time.time())
        self.script = Script()
        self._settings = settings

    def __enter__(self) -> Self:
        # As in production the one registry is shown; a test holds its clocks still.
        self._clocks = registry.clock, registry._wall, registry._started
        registry.clock = registry._wall = self.clock
        registry._started = self.clock() - 5400
        self.configure()
        return self

    def __exit__(self, *exc_info: object) -> None:
        registry.clock, registry._wall, registry._started = self._clocks
        self.configure()

    def configure(self, **more: Any) -> None:
        """Start with empty caches; ``more`` stands in ``SECRET_REGISTRY`` beside the aliases."""
        backend = {
            "BACKEND": "tests.scripted.ScriptedProvider",
            "OPTIONS": {"script": self.script},
        }
        self._settings.SECRET_REGISTRY = {
            "PROVIDERS": {"aws": {**backend, "REGION": "eu-central-1"}, "gcp": backend},
            "CACHE": {"TTL": 300, "JITTER": 0, **more.pop("CACHE", {})},
            **more,
        }

    def hold(self, *references: str) -> None:
        """Have the registry fetch these."""
        for reference in references:
            name = reference.partition("://")[2].partition("?")[0]
            self.script.answers.setdefault(name, canary(name))
            registry.get(reference)

    def fail(self, reference: str, error: SecretError) -> None:
        """Have a read of ``reference`` fail with ``error``."""
        name = reference.partition("://")[2].partition("?")[0]
        self.script.answers[name] = error
        with pytest.raises(SecretError):
            registry.get(reference)

    def populate(self) -> None:
        """Hold secrets in every state that stands still."""
        self.configure(
            REGION="eu-central-1",
            SECRETS={
                "stripe": "aws://prod/stripe#api_key",
                "sentry": "gcp://sentry-dsn",
                "pagerduty": "gcp://pagerduty-token",
                "smtp": {"MAP": {"user": "aws://prod/smtp#user", "password": "aws://prod/smtp#password"}},
            },
        )  # fmt: skip
        self.clock.forward(-6000)
        self.hold("aws://legacy/ftp?region=eu-west-1")  # expired
        self.clock.forward(4700)
        self.hold("aws://prod/search")  # stale
        self.clock.forward(1040)
        self.hold("aws://prod/redis", "aws://prod/celery-broker")  # due
        self.clock.forward(200)
        self.hold("aws://prod/db", "aws://prod/django", "aws://prod/smtp", "gcp://maps-browser-key")
        self.fail(
            "gcp://pagerduty-token", AccessDenied("the permission secretmanager.access is missing")
        )
        self.script.answers["prod/django-previous"] = None
        registry.get("aws://prod/django-previous", None)  # refused
        self.clock.forward(60)
        for _ in range(128):
            registry.get("aws://prod/db")

    def fetches(self) -> int:
        """Return how often a provider was asked."""
        return len(self.script.fetched)


def state(reference: str) -> str:
    """Return the word for the state of ``reference``; empty: the registry knows nothing of it."""
    return next((i.state for i in registry.snapshot().secrets if i.reference == reference), "")


def user(name: str, *codenames: str, staff: bool = True) -> User:
    """Return a person with these permissions of the app; they log in by ``force_login``."""
    person = User.objects.create_user(name, is_staff=staff)
    found = Permission.objects.filter(content_type__app_label=APP, codename__in=codenames)
    assert len(found) == len(codenames)
    person.user_permissions.set(found)
    return person


def url(model: str, page: str = "", key: str = "", *, site: str = "/admin/", **query: str) -> str:
    """Return where a page is: of a list, or of the row ``key``; written out, as visitors do."""
    item = f"{quote(key)}/" if key else ""
    return f"{site}{APP}/{model}/{item}{page}{'?' if query else ''}{urlencode(query)}"


def selection(action: str, keys: Iterable[str], **more: str) -> dict[str, Any]:
    """Return the form of a list in which ``keys`` are selected."""
    return {"action": action, "_selected_action": [*keys], "index": "0", **more}


def down(reference: str = "") -> ProviderUnavailable:
    """Return the error of a provider that does not answer."""
    return ProviderUnavailable("the backend does not answer", reference=reference)
