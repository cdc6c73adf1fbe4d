"""The PostgreSQL engine against a real server, with a password that rotates."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

import pytest
from django.db.utils import ConnectionHandler, OperationalError
from django.test import override_settings

from django_secret_registry import SecretNotFound, registry
from django_secret_registry.db.mixin import _read
from django_secret_registry.live import secret
from django_secret_registry.references import SecretRef
from django_secret_registry.test import override_secrets
from tests.canary import canary
from tests.rotating import (
    NEW,
    OLD,
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
from tests.scripted import LeasingProvider, Script, until
from tests.servers.postgres import PostgresServer

__all__ = ["databases", "db", "postgres", "vault", "waits"]


def test_rotation_of_both(db, vault, waits):
    """After a rotation the next connect is refused once, fetches once, and succeeds."""
    vault.put("db", {"user": USER, "password": NEW})
    db.set_password(USER, NEW)
    assert query() == USER
    assert vault.fetches == 1
    assert waits.seconds == []


def test_database_ahead(db, vault, waits):
    """While the database is ahead of the vault, a connect waits and fetches step by step."""
    db.set_password(USER, NEW)
    waits.plans = [
        lambda: None,
        lambda: vault.put("db", {"user": USER, "password": NEW}),
    ]
    assert query() == USER
    assert len(waits.seconds) == 2
    assert vault.fetches == 3


def test_vault_ahead(db, vault, waits):
    """While the vault is ahead of the database, a connect waits until that accepts the password."""
    vault.put("db", {"user": USER, "password": NEW})
    registry.refresh("vault://db")
    assert vault.fetches == 1
    waits.plans = [lambda: None, lambda: db.set_password(USER, NEW)]
    assert query() == USER
    assert len(waits.seconds) == 2
    assert vault.fetches == 3


def test_secret_shows_as_the_window_closes(db, vault, waits):
    """The last attempt is made when the window closes, with what the vault then has."""
    db.set_password(USER, NEW)

    def show() -> None:
        if waits.clock() < closes:
            waits.plans.append(show)
        else:
            vault.put("db", {"user": USER, "password": NEW})

    closes = waits.clock() + 15
    waits.plans = [show]
    assert query() == USER
    assert waits.clock() == closes


def test_wrong_password(db, vault, waits):
    """A plainly wrong password fails after one window, and then at once, fetching nothing."""
    vault.put("db", {"user": USER, "password": WRONG})
    registry.refresh("vault://db")
    assert vault.fetches == 1
    began = waits.clock()
    with pytest.raises(OperationalError, match="authentication failed"):
        query()
    assert waits.clock() - began == 15
    vault.expect(1 + len(waits.seconds) + 1)  # the last one in the background
    waits.seconds.clear()
    for _ in range(3):
        with pytest.raises(OperationalError, match="authentication failed"):
            query()
    assert waits.seconds == []
    assert vault.fetches == 0


def test_new_version_after_the_window(db, vault, waits):
    """After the window a new version is found without waiting for the TTL."""
    db.set_password(USER, NEW)
    vault.put("db", {"user": USER, "password": WRONG})
    with pytest.raises(OperationalError, match="authentication failed"):
        query()
    vault.expect(3 + len(waits.seconds))  # of each version, and one in the background
    vault.put("db", {"user": USER, "password": NEW})
    with pytest.raises(OperationalError, match="authentication failed"):
        query()
    assert vault.fetches == 0
    waits.clock.forward(16)
    with pytest.raises(OperationalError, match="authentication failed"):
        query()
    vault.expect(1)
    until(lambda: registry.get("vault://db#password") == NEW)
    assert query() == USER


@pytest.mark.usefixtures("databases")
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"NAME": "missing"}, 'database "missing" does not exist'),
        ({"PORT": 1}, "refused"),
        ({"HOST": "name.invalid"}, "name.invalid"),
    ],
)
def test_other_failures(postgres, vault, waits, changes, message):
    """What is no refused login neither waits nor fetches: a server that is down, no database."""
    postgres.set_password(USER, WRONG)
    vault.put("db", {"user": USER, "password": WRONG})
    with (
        override_settings(DATABASES={"default": database(postgres, **changes)}),
        pytest.raises(OperationalError, match=message),
    ):
        query()
    assert waits.seconds == []
    assert vault.fetches == 1


def test_rejected_host(db, vault, waits):
    """A connection that pg_hba.conf rejects neither waits nor fetches."""
    db.set_password("rejected", OLD)
    db.reject("rejected")
    vault.put("db", {"user": "rejected", "password": WRONG})
    registry.refresh("vault://db")
    assert vault.fetches == 1

    def message() -> str:
        with pytest.raises(OperationalError) as caught:
            query()
        return str(caught.value)

    until(lambda: "pg_hba.conf rejects" in message())  # the server reads its file when it will
    waits.seconds.clear()
    vault.store.asked = 0
    message()
    assert waits.seconds == []
    assert vault.fetches == 0


def test_wrong_user(postgres, databases, vault, waits):
    """A user that does not exist fails like a wrong password: after one window."""
    vault.put("db", {"user": "nobody_of_that_name", "password": WRONG})
    with (
        override_settings(DATABASES={"default": database(postgres)}),
        pytest.raises(OperationalError, match="nobody_of_that_name"),
    ):
        query()
    assert sum(waits.seconds) == pytest.approx(15)


def test_literal_password(postgres, databases, vault, waits):
    """Settings without a secret connect as with Django's own engine: one attempt."""
    postgres.set_password(USER, OLD)
    literal = database(postgres, USER=USER, PASSWORD=OLD)
    with override_settings(DATABASES={"default": literal}):
        assert query() == USER
    with (
        override_settings(DATABASES={"default": {**literal, "PASSWORD": WRONG}}),
        pytest.raises(OperationalError),
    ):
        query()
    assert waits.seconds == []
    assert vault.fetches == 0


def test_alternating_users(db, vault, waits):
    """A rotation to another user takes user and password from one version."""
    db.set_password("rotating_clone", NEW)
    vault.put("db", {"user": "rotating_clone", "password": NEW})
    registry.refresh("vault://db")
    assert query() == "rotating_clone"
    db.set_password(USER, canary("third"))
    vault.put("db", {"user": USER, "password": canary("third")})
    db.set_password("rotating_clone", canary("no longer"))
    assert query() == USER


def test_secret_that_cannot_be_read(postgres, databases, vault, waits):
    """A secret that cannot be read is an OperationalError, which names it."""
    missing = database(postgres, PASSWORD=secret("vault://missing"))
    with (
        override_settings(DATABASES={"default": missing}),
        pytest.raises(OperationalError, match="vault://missing"),
    ):
        query()


def test_default_of_a_secret(postgres, databases, vault):
    """A secret that is not found is replaced by its default."""
    postgres.set_password(USER, OLD)
    user = secret("vault://missing", default=USER)
    with override_settings(DATABASES={"default": database(postgres, USER=user)}):
        assert query() == USER


def test_lists_in_the_settings(postgres, databases, vault):
    """A list in the settings is handed on as it is read: what is missing is no item."""
    postgres.set_password(USER, OLD)
    vault.put("other", "replica")
    names = [secret("vault://other"), secret("vault://missing", default=None), "literal"]
    with override_settings(DATABASES={"default": database(postgres, TEST={"DEPENDENCIES": names})}):
        connection = ConnectionHandler()["default"]
        plain, _ = _read(connection.settings_dict)
    assert plain["TEST"]["DEPENDENCIES"] == ["replica", "literal"]
    assert plain["PASSWORD"] == OLD


def test_overridden_secrets(postgres, databases, vault):
    """In a test with ``override_secrets`` the engine connects with what that gives."""
    postgres.set_password(USER, OLD)
    with override_settings(DATABASES={"default": database(postgres)}):
        with override_secrets({"vault://db": {"user": USER, "password": OLD}}):
            assert query() == USER
        with (
            override_secrets({"vault://db#user": SecretNotFound("none"), "vault://db": {}}),
            pytest.raises(OperationalError, match="cannot be read"),
        ):
            query()
    assert vault.fetches == 0


def test_offline(postgres, databases, vault, settings):
    """In offline mode a connect fails, and says why; nothing is fetched."""
    settings.SECRET_REGISTRY = vault.settings(OFFLINE=True)
    with (
        override_settings(DATABASES={"default": database(postgres)}),
        pytest.raises(OperationalError, match="offline mode is on"),
    ):
        query()
    assert vault.fetches == 0


def test_persistent_connections(db, vault, waits):
    """With CONN_MAX_AGE and CONN_HEALTH_CHECKS a connection that was cut is made anew."""
    persistent = database(db, CONN_MAX_AGE=None, CONN_HEALTH_CHECKS=True)
    with override_settings(DATABASES={"default": persistent}):
        connections = ConnectionHandler()
        connection = connections["default"]
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
        vault.put("db", {"user": USER, "password": NEW})
        db.set_password(USER, NEW)
        db.disconnect(USER)
        connection.close_if_unusable_or_obsolete()  # as each request begins
        with connection.cursor() as cursor:
            cursor.execute("SELECT current_user")
            assert cursor.fetchone() == (USER,)
        connections.close_all()
    assert vault.fetches == 1


# -- issued credentials ---------------------------------------------------------------------------


class Issuer:
    """Issues another user for each fetch, whom the database knows once it ``works``."""

    def __init__(self, server: PostgresServer) -> None:
        self.script = Script({"db": self.issue})
        self.works = False
        self._server = server

    def issue(self, ref: SecretRef) -> str:
        number = len(self.script.fetched)
        assert number < 100, "it is asked for ever more"
        credentials = {"user": f"issued_{number}", "password": NEW if self.works else WRONG}
        if self.works:
            self._server.set_password(**credentials)
        return json.dumps(credentials)


@pytest.fixture
def issuer(postgres, databases, settings) -> Iterator[Issuer]:
    issuer = Issuer(postgres)
    backend = f"{LeasingProvider.__module__}.{LeasingProvider.__name__}"
    options = {"script": issuer.script, "clock": time.time}
    settings.SECRET_REGISTRY = {"PROVIDERS": {"vault": {"BACKEND": backend, "OPTIONS": options}}}
    with override_settings(DATABASES={"default": database(postgres)}):
        yield issuer
    registry.evict(all=True)


def test_issued_credentials_that_never_work(issuer, waits):
    """Credentials are issued anew for the length of one window; then connects fail at once, until
    those work that are issued once per window."""
    began = waits.clock()
    with pytest.raises(OperationalError, match="authentication failed"):
        query()
    assert waits.clock() - began == 15
    issued = 1 + 1 + len(waits.seconds) + 1  # at first, at once, after each wait, in the background
    until(lambda: len(issuer.script.fetched) == issued)
    for _ in range(3):
        with pytest.raises(OperationalError, match="authentication failed"):
            query()
    assert len(issuer.script.fetched) == issued
    issuer.works = True
    waits.clock.forward(16)
    with pytest.raises(OperationalError, match="authentication failed"):
        query()
    name = f"issued_{issued + 1}"
    until(lambda: registry.get("vault://db#user") == name)
    assert query() == name


def test_issued_credentials_that_end(postgres, issuer, waits):
    """The first refusal of issued credentials has others issued, without renewal or delay, and
    leaves the lease of the old ones to the connections that still use it."""
    issuer.works = True
    assert query() == "issued_1"
    postgres.set_password("issued_1", OLD)
    assert query() == "issued_2"
    assert len(issuer.script.fetched) == 2
    assert waits.seconds == issuer.script.renewed == issuer.script.released == []
