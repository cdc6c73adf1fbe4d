"""The drivers of the bus, each against the real engine that carries its log."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import pytest
from django.core.cache import caches
from django.core.cache.backends.base import BaseCache
from django.db import connections
from django.test import override_settings

from django_secret_registry.fleet.cache import CacheBus
from django_secret_registry.fleet.database import DatabaseBus
from django_secret_registry.fleet.redis import RedisBus
from tests.fleet_conformance import BusConformance
from tests.servers import postgres as postgres_server
from tests.servers import redis as redis_server
from tests.servers.process import free_port

redis_session, redis = redis_server.redis_session, redis_server.redis
postgres = postgres_server.postgres


@pytest.fixture
def closing():
    """Register a bus, to be closed at the end of the test."""
    with contextlib.ExitStack() as stack:

        def register(bus: Any) -> Any:
            stack.callback(bus.close)
            return bus

        yield register


class TestRedisBus(BusConformance):
    @pytest.fixture
    def make(self, redis, closing):
        return lambda: closing(RedisBus(url=f"redis://127.0.0.1:{redis.port}"))

    @pytest.fixture
    def forget(self, redis):
        return redis.client().flushall

    @pytest.fixture
    def broken(self, closing):
        return closing(RedisBus(url=f"redis://127.0.0.1:{free_port()}"))


@contextlib.contextmanager
def database(**entry: Any) -> Any:
    """Have a database ``fleet`` with the tables of the bus."""
    connections.databases["fleet"] = connections.configure_settings(
        {**connections.databases, "fleet": entry}
    )["fleet"]
    try:
        yield
    finally:
        connections["fleet"].close()
        del connections["fleet"], connections.databases["fleet"]


def create_tables() -> None:
    from django_secret_registry.fleet.tables import FleetEvent, FleetLog, FleetReport

    with connections["fleet"].schema_editor() as editor:
        for table in (FleetEvent, FleetLog, FleetReport):
            if table._meta.db_table not in connections["fleet"].introspection.table_names():
                editor.create_model(table)


def empty_tables() -> None:
    with connections["fleet"].cursor() as cursor:
        for name in ("log", "event", "report"):
            cursor.execute(f"DELETE FROM django_secret_registry_fleet{name}")


class DatabaseConformance(BusConformance):
    @pytest.fixture
    def make(self, engine, closing, django_db_blocker):
        with django_db_blocker.unblock():
            create_tables()
            empty_tables()
            yield lambda: closing(DatabaseBus(using="fleet"))

    @pytest.fixture
    def forget(self, make):
        return empty_tables

    @pytest.fixture
    def broken(self, closing, django_db_blocker):
        entry = {
            "ENGINE": "django.db.backends.postgresql",
            "HOST": "127.0.0.1",
            "PORT": free_port(),
            "NAME": "app",
            "USER": "app",
            "PASSWORD": "x",
        }
        with database(**entry), django_db_blocker.unblock():
            yield closing(DatabaseBus(using="fleet"))


class TestDatabaseBusOnPostgreSQL(DatabaseConformance):
    @pytest.fixture
    def engine(self, postgres):
        entry = {
            "ENGINE": "django.db.backends.postgresql",
            "HOST": postgres.host,
            "PORT": postgres.port,
            "NAME": postgres.database,
            "USER": "postgres",
            "PASSWORD": postgres._password,
        }
        with database(**entry):
            yield


class TestDatabaseBusOnSQLite(DatabaseConformance):
    @pytest.fixture
    def engine(self, tmp_path: Path):
        with database(ENGINE="django.db.backends.sqlite3", NAME=str(tmp_path / "db.sqlite3")):
            yield


class TestCacheBus(BusConformance):
    # Its end may lag behind for a moment, and so cannot tell: see docs/fleet.md.
    test_a_place_after_the_end_is_a_gap = None  # type: ignore[assignment]

    @pytest.fixture
    def make(self, redis, closing, settings):
        settings.CACHES = _redis_cache(redis.port)
        return lambda: closing(CacheBus(cache="shared"))

    @pytest.fixture
    def forget(self, make):
        cache: BaseCache = caches["shared"]
        return cache.clear

    @pytest.fixture
    def broken(self, closing, settings):
        settings.CACHES = _redis_cache(free_port())
        return closing(CacheBus(cache="shared"))


def _redis_cache(port: int) -> dict[str, Any]:
    return {
        "default": {"BACKEND": "django.core.cache.backends.dummy.DummyCache"},
        "shared": {
            "BACKEND": "django.core.cache.backends.redis.RedisCache",
            "LOCATION": f"redis://127.0.0.1:{port}",
            "OPTIONS": {"socket_connect_timeout": 1, "socket_timeout": 1},
        },
    }


def test_a_cache_that_keeps_nothing_is_no_bus(settings):
    """The check refuses it, and so does the bus."""
    with override_settings(CACHES=_redis_cache(1)):
        (problem,) = CacheBus.check({})
    assert "keeps nothing" in problem.message
