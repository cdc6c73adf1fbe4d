"""The engine for MySQL and MariaDB against a real MariaDB, with a password that rotates."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from django.db.utils import ConnectionHandler, OperationalError
from django.test import override_settings

from django_secret_registry import registry
from tests.canary import canary
from tests.live_support import Project
from tests.rotating import NEW, OLD, USER, WRONG, database, databases, query, vault, waits
from tests.scripted import at_once
from tests.servers.mariadb import MariaDBServer, mariadb

__all__ = ["databases", "mariadb", "vault", "waits"]

ENGINE = "django_secret_registry.db.backends.mysql"
ME = f"{USER}@%"


@pytest.fixture
def db(mariadb, databases, vault, waits) -> Iterator[MariaDBServer]:
    """A database to which everybody has connected once, so that the secret is held."""
    mariadb.set_password(USER, OLD)
    with override_settings(DATABASES={"default": database(mariadb, ENGINE=ENGINE)}):
        assert query("SELECT current_user()") == ME
        assert vault.fetches == 1
        yield mariadb


def test_rotation_of_both(db, vault, waits):
    """After a rotation many threads that connect are refused once, and share one fetch."""
    vault.put("db", {"user": USER, "password": NEW})
    db.set_password(USER, NEW)
    assert at_once(lambda: query("SELECT current_user()"), 8) == [ME] * 8
    assert vault.fetches == 1
    assert waits.seconds == []


def test_database_ahead(db, vault, waits):
    """While the database is ahead of the vault, a connect waits and fetches step by step."""
    db.set_password(USER, NEW)
    waits.plans = [lambda: vault.put("db", {"user": USER, "password": NEW})]
    assert query("SELECT current_user()") == ME
    assert vault.fetches == 2


def test_vault_ahead(db, vault, waits):
    """While the vault is ahead of the database, a connect waits until that accepts the password."""
    vault.put("db", {"user": USER, "password": NEW})
    registry.refresh("vault://db")
    waits.plans = [lambda: None, lambda: db.set_password(USER, NEW)]
    assert query("SELECT current_user()") == ME
    assert len(waits.seconds) == 2


def test_wrong_password(db, vault, waits):
    """A plainly wrong password fails after one window, and then at once."""
    vault.put("db", {"user": USER, "password": WRONG})
    registry.refresh("vault://db")
    with pytest.raises(OperationalError, match="Access denied"):
        query()
    assert sum(waits.seconds) == pytest.approx(15)
    waits.seconds.clear()
    with pytest.raises(OperationalError, match="Access denied"):
        query()
    assert waits.seconds == []


@pytest.mark.parametrize("changes", [{"NAME": "missing"}, {"PORT": 1}])
def test_other_failures(db, vault, waits, changes):
    """What is no refused login neither waits nor fetches."""
    wrong = database(db, ENGINE=ENGINE, **changes)
    with (
        override_settings(DATABASES={"default": wrong}),
        pytest.raises(OperationalError),
    ):
        query()
    assert waits.seconds == []
    assert vault.fetches == 0


def test_persistent_connections(db, vault, waits):
    """With CONN_MAX_AGE and CONN_HEALTH_CHECKS a connection that was cut is made anew."""
    persistent = database(db, ENGINE=ENGINE, CONN_MAX_AGE=None, CONN_HEALTH_CHECKS=True)
    with override_settings(DATABASES={"default": persistent}):
        connections: Any = ConnectionHandler()
        connection = connections["default"]
        with connection.cursor() as cursor:
            cursor.execute("SELECT connection_id()")
            (number,) = cursor.fetchone()
        vault.put("db", {"user": USER, "password": NEW})
        db.set_password(USER, NEW)
        db.disconnect(number)
        connection.close_if_unusable_or_obsolete()  # as each request begins
        with connection.cursor() as cursor:
            cursor.execute("SELECT current_user()")
            assert cursor.fetchone() == (ME,)
        connections.close_all()
    assert vault.fetches == 1


MYSQL = """#!/bin/sh
echo "arguments: $*"
[ "$MYSQL_PWD" = "$EXPECTED" ] && echo "the password is in the environment"
"""


def test_dbshell(tmp_path):
    """``dbshell`` gives the password to the client's environment, and to no command line."""
    (tmp_path / "mysql").write_text(MYSQL)
    (tmp_path / "mysql").chmod(0o755)
    project = Project(tmp_path).write(
        f"""
        from tests.mysql_driver import use_driver

        use_driver()
        DATABASES = {{
            "default": {{
                "ENGINE": "{ENGINE}", "NAME": "app", "USER": "u", "PASSWORD": secret("vault://db")
            }}
        }}
        """
    )
    done = project.manage("dbshell", PATH=f"{tmp_path}:/usr/bin:/bin", EXPECTED=canary("db"))
    assert "arguments: --user=u app" in done.stdout
    assert "the password is in the environment" in done.stdout
