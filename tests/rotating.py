"""A database and a secret that rotate together, or one after the other, as a test says."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import threading
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.db.utils import ConnectionHandler
from django.test import override_settings

from django_secret_registry import registry
from django_secret_registry.db import mixin
from django_secret_registry.live import secret
from django_secret_registry.providers.memory import MemoryStore
from django_secret_registry.rotation import RotationWindows
from tests.canary import canary
from tests.scripted import PATIENCE, HandClock, until
from tests.servers.postgres import PostgresServer, postgres

__all__ = ["postgres"]

USER = "rotating"
OLD, NEW = canary("old-password"), canary("new-password")
#: Without the mark: psycopg keeps the password of a failed login in its error.
WRONG = "what the database never accepts"


@dataclasses.dataclass
class Waits:
    """Stands for time in a rotation window: a wait moves the clock and does what is planned."""

    clock: HandClock = dataclasses.field(default_factory=HandClock)
    seconds: list[float] = dataclasses.field(default_factory=list)
    #: What happens in the first wait, the second, …
    plans: list[Callable[[], object]] = dataclasses.field(default_factory=list)

    def __call__(self, condition: threading.Condition, seconds: float | None) -> None:
        if seconds is None:  # another thread fetches
            assert condition.wait(PATIENCE)
            return
        self.seconds.append(seconds)
        self.clock.forward(seconds)
        if self.plans:
            self.plans.pop(0)()

    @contextlib.contextmanager
    def installed(self, *aliases: str) -> Iterator[Waits]:
        """Use this time for the databases of these aliases."""
        mixin._windows.clear()
        for alias in aliases:
            mixin._windows[os.getpid(), alias] = RotationWindows(
                lambda: registry.config.rotation_window, clock=self.clock, wait=self
            )
        yield self
        mixin._windows.clear()


class CountedStore(MemoryStore):
    """Counts how often a provider has asked it."""

    asked = 0

    def versions(self, name: str) -> Any:
        self.asked += 1
        return super().versions(name)


class Vault:
    """The secret manager of a test: secrets with versions, and how often it was asked."""

    def __init__(self) -> None:
        self.store = CountedStore()

    def settings(self, **more: Any) -> dict[str, Any]:
        return {
            "PROVIDERS": {
                "vault": {
                    "BACKEND": "django_secret_registry.providers.memory.MemoryProvider",
                    "OPTIONS": {"secrets": self.store},
                }
            },
            **more,
        }

    def put(self, name: str, value: Any) -> None:
        self.store.put(name, value)

    @property
    def fetches(self) -> int:
        """How often it was asked since the last look."""
        asked, self.store.asked = self.store.asked, 0
        return asked

    def expect(self, fetches: int) -> None:
        """Wait until it was asked so often since the last look, and look."""
        until(lambda: self.store.asked >= fetches)
        assert self.fetches == fetches


def query(text: str = "SELECT current_user", alias: str = "default") -> Any:
    """Connect as a thread does that has just started, and return what the query gives."""
    connections = ConnectionHandler()
    try:
        with connections[alias].cursor() as cursor:
            cursor.execute(text)
            return cursor.fetchone()[0]
    finally:
        connections.close_all()


@pytest.fixture
def vault(settings) -> Vault:
    vault = Vault()
    vault.put("db", {"user": USER, "password": OLD})
    settings.SECRET_REGISTRY = vault.settings()
    return vault


@pytest.fixture
def waits() -> Iterator[Waits]:
    with Waits().installed("default") as waits:
        yield waits


def database(server: PostgresServer, **more: Any) -> dict[str, Any]:
    return {
        "ENGINE": "django_secret_registry.db.backends.postgresql",
        "NAME": server.database,
        "HOST": server.host,
        "PORT": server.port,
        "USER": secret("vault://db#user"),
        "PASSWORD": secret("vault://db#password"),
        **more,
    }


@pytest.fixture
def databases(django_db_blocker: Any) -> Iterator[None]:
    """Allow tests to connect to databases of their own."""
    # Django warns of every override of DATABASES.
    with django_db_blocker.unblock(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Overriding setting DATABASES")
        yield


@pytest.fixture
def db(postgres, databases, vault, waits) -> Iterator[PostgresServer]:
    """A database to which everybody has connected once, so that the secret is held."""
    postgres.set_password(USER, OLD)
    with override_settings(DATABASES={"default": database(postgres)}):
        assert query() == USER
        assert vault.fetches == 1
        yield postgres
