"""``database_config`` and ``env.db``: whole databases from one secret."""

from __future__ import annotations

import pickle

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.db.utils import OperationalError
from django.test import override_settings

from django_secret_registry import registry
from django_secret_registry.database import ENGINES, database_config
from django_secret_registry.environ import Env
from django_secret_registry.live import LiveDict
from tests.canary import canary
from tests.rotating import NEW, OLD, USER, databases, postgres, query, vault, waits
from tests.servers.mariadb import mariadb

__all__ = ["databases", "mariadb", "postgres", "vault", "waits"]


def rds(server, password: str, **more: object) -> dict[str, object]:
    """Return what RDS keeps."""
    return {
        "username": USER,
        "password": password,
        "engine": "postgres",
        "host": server.host,
        "port": server.port,
        "dbname": server.database,
        "dbInstanceIdentifier": "db-1",
        **more,
    }


@pytest.mark.parametrize(
    ("server_of", "engine", "expected"),
    [("postgres", "postgres", USER), ("mariadb", "mariadb", f"{USER}@%")],
)
@pytest.mark.usefixtures("databases", "waits")
def test_each_engine(server_of, engine, expected, request, vault):
    """The JSON of RDS and the engine are all that a connect needs; its rotation is followed."""
    server = request.getfixturevalue(server_of)
    server.set_password(USER, OLD)
    vault.put("rds", rds(server, OLD))
    text = "SELECT current_user" + "()" * (engine == "mariadb")
    with override_settings(DATABASES={"default": database_config("vault://rds", engine=engine)}):
        assert query(text) == expected
        server.set_password(USER, NEW)
        vault.put("rds", rds(server, NEW))
        assert query(text) == expected
    assert vault.fetches == 2


@pytest.mark.usefixtures("databases", "waits")
def test_secret_that_rds_manages(postgres, vault):
    """A secret with user and password only is completed by overrides."""
    postgres.set_password(USER, OLD)
    vault.put("rds", {"username": USER, "password": OLD})
    config = database_config(
        "vault://rds", engine="postgres", HOST=postgres.host, PORT=postgres.port, NAME="app"
    )
    with override_settings(DATABASES={"default": config}):
        assert query() == USER


@pytest.mark.usefixtures("databases", "waits")
def test_missing_field(postgres, vault):
    """A field that neither the secret nor an override has is named, with what to write."""
    vault.put("rds", {"username": USER, "password": OLD})
    config = database_config("vault://rds", engine="postgres", HOST=postgres.host)
    with (
        override_settings(DATABASES={"default": config}),
        pytest.raises(OperationalError, match=r"'dbname' does not exist.*NAME=\.\.\."),
    ):
        query()


@pytest.mark.usefixtures("databases")
def test_no_json(vault):
    """A secret that is no JSON is an error that does not show it."""
    vault.put("rds", canary("no-json"))
    config = LiveDict(database_config("vault://rds", engine="postgres"))
    with (
        override_settings(DATABASES={"default": config}),
        pytest.raises(OperationalError, match="no JSON"),
    ):
        query()


def test_reading(vault, settings):
    """Fields are live; a port that is missing is empty; an override wins over the secret."""
    vault.put("rds", {"username": "a", "host": "h", "dbname": "n", "password": canary("x")})
    settings.X = database_config("vault://rds", engine="mysql", HOST="other", CONN_MAX_AGE=60)
    expected = {
        "ENGINE": ENGINES["mysql"],
        "USER": "a",
        "PASSWORD": canary("x"),
        "HOST": "other",
        "PORT": "",
        "NAME": "n",
        "CONN_MAX_AGE": 60,
    }
    assert dict(settings.X) == expected
    vault.put("rds", {"username": "b", "port": 5432})
    registry.refresh("vault://rds")
    assert settings.X["USER"] == "b"
    assert settings.X["PORT"] == "5432"
    copy = pickle.loads(pickle.dumps(settings.X))
    assert copy["USER"] == "b"


def test_entry_with_a_map(vault, settings):
    """An entry with a MAP of the fields serves as well."""
    vault.put("a", canary("password"))
    settings.SECRET_REGISTRY = vault.settings(
        SECRETS={"db": {"MAP": {"password": "vault://a", "username": "vault://a"}}}
    )
    settings.X = database_config("db", engine="mysql", NAME="n")
    assert settings.X["PASSWORD"] == canary("password")
    with pytest.raises(Exception, match="has no 'host'"):
        settings.X["HOST"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "needs the engine"),
        ({"engine": "oracle-ee"}, "needs the engine"),
        ({"engine": "mysql", "host": "x"}, "'host'"),
    ],
)
def test_wrong_arguments(arguments, message):
    """What is missing or unknown is said while settings load."""
    with pytest.raises(ImproperlyConfigured, match=message):
        database_config("vault://rds", **arguments)


def test_own_engine():
    """ENGINE may be any engine's path."""
    assert database_config("vault://rds", ENGINE="my.engine")["ENGINE"] == "my.engine"


@pytest.mark.usefixtures("databases", "waits")
def test_env_db(postgres, vault):
    """``env.db`` with a reference to a URL follows a rotation of the whole URL."""

    class Reader(Env):
        ENVIRON = {"DATABASE_URL": "ref+vault://url"}

    def url(password: str) -> str:
        return f"postgres://{USER}:{password}@{postgres.host}:{postgres.port}/app"

    postgres.set_password(USER, OLD)
    vault.put("url", url(OLD))
    config = Reader().db(engine=ENGINES["postgres"])
    with override_settings(DATABASES={"default": config}):
        assert query() == USER
        postgres.set_password(USER, NEW)
        vault.put("url", url(NEW))
        assert query() == USER
    assert vault.fetches == 2
