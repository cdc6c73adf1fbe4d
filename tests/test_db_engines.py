"""The PostgreSQL engine with a pool, in threads, in commands, and combined with other engines."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from asgiref.sync import sync_to_async
from django.core.exceptions import ImproperlyConfigured
from django.db.utils import ConnectionHandler, OperationalError
from django.test import override_settings

from django_secret_registry import registry
from django_secret_registry.db.backends.postgresql.base import DatabaseWrapper
from django_secret_registry.db.mixin import RotatingCredentials
from tests.canary import canary
from tests.live_support import Project
from tests.rotating import (
    NEW,
    USER,
    WRONG,
    database,
    databases,
    db,
    postgres,
    query,
    vault,
    waits,
)
from tests.scripted import at_once, until

__all__ = ["databases", "db", "postgres", "vault", "waits"]


def rotate(db: Any, vault: Any, password: str = NEW) -> None:
    vault.put("db", {"user": USER, "password": password})
    db.set_password(USER, password)


# -- threads -------------------------------------------------------------------------------------


def test_threads_share_one_fetch(db, vault, waits):
    """Many threads that meet a rotation at once are served by one fetch."""
    rotate(db, vault)
    assert at_once(query, 16) == [USER] * 16
    assert vault.fetches == 1
    assert waits.seconds == []


def test_async_view(db, vault):
    """Code that asks the database from an event loop follows a rotation as well."""

    async def view() -> list[str]:
        ask = sync_to_async(query, thread_sensitive=False)
        return list(await asyncio.gather(*(ask() for _ in range(4))))

    rotate(db, vault)
    assert asyncio.run(view()) == [USER] * 4
    assert vault.fetches == 1


# -- Django's pool -------------------------------------------------------------------------------


class Pooled:
    """A project that uses Django's pool."""

    def __init__(self) -> None:
        self.connections = ConnectionHandler()

    def query(self) -> str:
        """Ask in a connection of the pool, which gets it back."""
        connection = self.connections["default"]
        try:
            with connection.cursor() as cursor:
                cursor.execute("SELECT current_user")
                return str(cursor.fetchone()[0])
        finally:
            connection.close()


@pytest.fixture
def pooled(db) -> Iterator[Any]:
    handlers = []

    def make(**options: Any) -> Pooled:
        pool = {"min_size": 0, "max_size": 2, "timeout": 10.0, **options}
        override = override_settings(
            DATABASES={"default": database(db, OPTIONS={"pool": pool}, CONN_HEALTH_CHECKS=True)}
        )
        override.enable()
        handlers.append((Pooled(), override))
        return handlers[-1][0]

    yield make
    for project, override in handlers:
        project.connections["default"].close_pool()
        override.disable()


def test_pool(db, vault, pooled, waits):
    """The connections that a pool makes after a rotation have the new password."""
    project = pooled()
    assert project.query() == USER
    rotate(db, vault)
    db.disconnect(USER)
    assert project.query() == USER
    assert vault.fetches == 1
    assert waits.seconds == []


def test_pool_by_default_options(db, vault):
    """``"pool": True`` makes a pool of psycopg's default size that follows rotations."""
    with override_settings(DATABASES={"default": database(db, OPTIONS={"pool": True})}):
        project = Pooled()
        assert project.query() == USER
        assert project.connections["default"].pool.min_size == 4
        project.connections["default"].close_pool()


def test_pool_while_the_database_is_ahead(db, vault, pooled, waits):
    """A client of the pool waits while the database is ahead of the vault."""
    project = pooled()
    db.set_password(USER, NEW)
    waits.plans = [
        lambda: None,
        lambda: vault.put("db", {"user": USER, "password": NEW}),
    ]
    assert project.query() == USER
    assert vault.fetches == 3


def test_pool_with_a_wrong_password(db, vault, pooled, waits, caplog):
    """With a plainly wrong password clients of the pool fail at once, and recover at once."""
    vault.put("db", {"user": USER, "password": WRONG})
    registry.refresh("vault://db")
    project = pooled(timeout=1.0)
    with pytest.raises(OperationalError):
        project.query()
    caplog.clear()

    def refused() -> bool:
        """Whether the window is over; on a busy machine the pool may still be in it."""
        with pytest.raises(OperationalError) as caught:
            project.query()
        return "refuses the credentials" in str(caught.value)

    until(refused)
    waits.clock.forward(16)
    rotate(db, vault)

    def accepted() -> bool:
        """Whether a client gets in: the first hasten the new password and may be too early."""
        with contextlib.suppress(OperationalError):
            return project.query() == USER
        return False

    until(accepted)
    assert registry.get("vault://db#password") == NEW


def test_connection_class_of_the_project(db, pooled):
    """A pool whose connections are of the project's class makes them of that class."""

    class Own(psycopg.Connection[Any]):
        pass

    project = pooled(connection_class=Own)
    assert project.query() == USER
    connection = project.connections["default"]
    with connection.cursor() as cursor:
        assert isinstance(cursor.connection, Own)
    connection.close()


def test_pool_with_persistent_connections(db):
    """What Django refuses of a pool is refused here too."""
    wrong = database(db, OPTIONS={"pool": True}, CONN_MAX_AGE=60)
    with (
        override_settings(DATABASES={"default": wrong}),
        pytest.raises(ImproperlyConfigured, match="persistent"),
    ):
        query()
    assert "default" not in DatabaseWrapper._connection_pools


# -- other engines -------------------------------------------------------------------------------


def test_django_prometheus(db, vault, waits):
    """The mixin before django-prometheus' engine: rotations are followed, attempts counted."""
    pytest.importorskip("django_prometheus", reason="needs Django < 6.1: django-prometheus")
    from django_prometheus.db import connection_errors_total, connections_total

    labels = "default", "postgresql"
    counters = [counter.labels(*labels) for counter in (connections_total, connection_errors_total)]
    before = [counter._value.get() for counter in counters]
    engine = database(db, ENGINE="tests.engines.prometheus")
    with override_settings(DATABASES={"default": engine}):
        rotate(db, vault)
        assert query() == USER
    assert [counter._value.get() for counter in counters] == [before[0] + 2, before[1] + 1]
    assert vault.fetches == 1


def test_postgis(db, vault, waits):
    """The mixin before PostGIS' engine: rotations are followed."""
    try:
        from tests.engines.postgis.base import DatabaseWrapper as PostGIS
    except ImproperlyConfigured:
        pytest.skip("needs GDAL: apt-get install gdal-bin")
    assert PostGIS.get_connection_params is RotatingCredentials.get_connection_params
    with override_settings(DATABASES={"default": database(db, ENGINE="tests.engines.postgis")}):
        rotate(db, vault)
        assert query() == USER
    assert vault.fetches == 1


# -- commands ------------------------------------------------------------------------------------


def project(tmp_path: Any, server: Any, **more: str) -> Project:
    return Project(tmp_path).write(
        f"""
        INSTALLED_APPS += ["django.contrib.contenttypes"]
        DATABASES = {{
            "default": {{
                "ENGINE": "django_secret_registry.db.backends.postgresql",
                "NAME": "app",
                "USER": "commander",
                "HOST": "127.0.0.1",
                "PORT": {server.port},
                "PASSWORD": secret("vault://db"),
            }}
        }}
        """,
        **more,
    )


TESTS = """
from django.contrib.contenttypes.models import ContentType
from django.db import connection
from django.test import TestCase

class First(TestCase):
    def test_first(self):
        ContentType.objects.create(app_label="a", model="b")
        assert connection.settings_dict["NAME"].startswith("test_app")

class Second(TestCase):
    def test_second(self):
        assert not ContentType.objects.filter(app_label="a").exists()
"""


@pytest.mark.full
@pytest.mark.parametrize("parallel", [(), ("--parallel", "2")], ids=["one", "parallel"])
def test_test_databases(postgres, tmp_path, parallel):
    """``manage.py test`` creates its databases, also in parallel, with a secret password."""
    postgres.set_password("commander", canary("db"))
    with postgres.admin() as connection:
        connection.execute("ALTER ROLE commander CREATEDB")
    done = project(tmp_path, postgres, test_all=TESTS).manage("test", *parallel)
    assert "Ran 2 tests" in done.stderr
    assert "OK" in done.stderr


PSQL = """#!/bin/sh
echo "arguments: $*"
[ "$PGPASSWORD" = "$EXPECTED" ] && echo "the password is in the environment"
"""


def test_dbshell(postgres, tmp_path):
    """``dbshell`` gives the password to the client's environment, and to no command line."""
    (tmp_path / "psql").write_text(PSQL)
    (tmp_path / "psql").chmod(0o755)
    done = project(tmp_path, postgres).manage(
        "dbshell", PATH=f"{tmp_path}:/usr/bin:/bin", EXPECTED=canary("db")
    )
    assert "arguments: -U commander -h 127.0.0.1" in done.stdout
    assert "the password is in the environment" in done.stdout


def test_makemigrations_without_a_vault(postgres, tmp_path):
    """``makemigrations --check`` warns and passes while the secret cannot be read."""
    done = project(tmp_path, postgres).manage(
        "makemigrations", "--check", VAULT="down", warnings="default"
    )
    assert "No changes detected" in done.stdout
    assert "the vault is down" in done.stderr


def test_queries_without_a_database(db):
    """Queries without a database name connect with the same credentials."""
    connection = ConnectionHandler()["default"]
    with connection._nodb_cursor() as cursor:
        cursor.execute("SELECT current_database()")
        assert cursor.fetchone() == ("postgres",)
