"""Stock readers of settings: each gets a secret as it gets the same setting given as a literal."""

from __future__ import annotations

import base64
import csv
import hashlib
import hmac
import http.client
import http.server
import io
import json
import os
import re
import sqlite3
import subprocess
import sys
import threading
import urllib.parse
import urllib.request
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import django
import pytest
from django.conf import settings as django_settings
from django.contrib.auth.models import User
from django.contrib.auth.tokens import PasswordResetTokenGenerator
from django.contrib.sessions.backends.signed_cookies import SessionStore
from django.core import mail, signing
from django.core.cache import caches
from django.core.files.base import ContentFile
from django.core.files.storage import storages
from django.db.utils import ConnectionHandler, OperationalError
from django.test import Client, override_settings

from django_secret_registry import SecretStr
from django_secret_registry.live import secret
from tests.canary import canary
from tests.live_support import Project, Script, configured
from tests.servers.postgres import postgres
from tests.servers.redis import redis, redis_session
from tests.servers.smtp import smtp

__all__ = ["postgres", "redis", "redis_session", "smtp"]

VALUE = canary("0123456789-abcdefghij-0123456789-abcdefghij-0123456789")
OLD = canary("9876543210-abcdefghij-0123456789-abcdefghij-0123456789")


@pytest.fixture(autouse=True)
def vault(settings) -> Script:
    return configured(settings, {"value": VALUE, "old": OLD})


def from_secret(name: str = "value") -> Any:
    return secret(f"vault://{name}")


def same(read: Callable[[], Any], *, literal: dict[str, Any], live: dict[str, Any]) -> Any:
    """Return what ``read`` gives with the live settings, which is what it gives with literals."""
    with override_settings(**literal):
        expected = read()
    with override_settings(**live):
        got = read()
    assert got == expected
    return got


# -- Django's own --------------------------------------------------------------------------------


def test_signing(settings):
    """Signatures by a SECRET_KEY that is a secret are those by the same text."""
    signed = same(
        lambda: (signing.Signer().sign("x"), signing.get_cookie_signer().sign("x")),
        literal={"SECRET_KEY": VALUE},
        live={"SECRET_KEY": from_secret()},
    )
    settings.SECRET_KEY = from_secret()
    assert signing.Signer().unsign(signed[0]) == "x"
    assert signing.loads(signing.dumps({"a": 1})) == {"a": 1}


def test_signing_with_fallbacks(settings, vault):
    """What was signed by the previous key is accepted by a fallback that is a secret."""
    with override_settings(SECRET_KEY=OLD):
        old = signing.dumps("x")
    settings.SECRET_KEY = from_secret()
    settings.SECRET_KEY_FALLBACKS = [secret("vault://missing", default=None)]
    assert signing.loads(signing.dumps("y")) == "y"
    with pytest.raises(signing.BadSignature):
        signing.loads(old)
    settings.SECRET_KEY_FALLBACKS = [secret("vault://missing", default=None), from_secret("old")]
    assert signing.loads(old) == "x"
    assert signing.get_cookie_signer().unsign(signing.get_cookie_signer().sign("z")) == "z"


def test_sessions_and_tokens():
    """Session data, session hashes and password reset tokens are those of the literal."""

    def read() -> object:
        user = User(pk=1, password="x")
        store = SessionStore()
        store["a"] = 1
        store.create()
        tokens = PasswordResetTokenGenerator()
        token = tokens._make_token_with_timestamp(user, 1, tokens.secret)
        return SessionStore(store.session_key).load(), user.get_session_auth_hash(), token

    same(read, literal={"SECRET_KEY": VALUE}, live={"SECRET_KEY": from_secret()})


def test_session_outlives_a_rotation(settings, vault):
    """A session of the old key is valid while the old key is a fallback."""
    user = User(pk=1, password="x")
    settings.SECRET_KEY = from_secret()
    before = user.get_session_auth_hash()
    settings.SECRET_KEY_FALLBACKS = [from_secret("old")]
    vault.rotate("old", VALUE)
    vault.rotate("value", canary("brand-new"))
    assert user.get_session_auth_hash() != before
    assert before in list(user.get_session_auth_fallback_hash())


def test_csrf_and_messages():
    """A request through Django's middleware works with a SECRET_KEY that is a secret."""
    status = same(
        lambda: Client(enforce_csrf_checks=True).get("/admin/login/").status_code,
        literal={"SECRET_KEY": VALUE},
        live={"SECRET_KEY": from_secret()},
    )
    assert status == 200


def database(server: Any, password: object, **more: object) -> dict[str, object]:
    return {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": server.database,
        "USER": "stock_reader",
        "HOST": server.host,
        "PORT": server.port,
        "PASSWORD": password,
        **more,
    }


def query(text: str = "SELECT current_user") -> Any:
    """Connect as a process does that has just started, and return what the query gives."""
    connections = ConnectionHandler()
    try:
        with connections["default"].cursor() as cursor:
            cursor.execute(text)
            return cursor.fetchone()[0]
    finally:
        connections.close_all()


@pytest.fixture
def databases(django_db_blocker: Any) -> Iterator[None]:
    """Allow tests to connect to databases of their own."""
    # Django warns of every override of DATABASES.
    with django_db_blocker.unblock(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Overriding setting DATABASES")
        yield


@pytest.mark.usefixtures("databases")
def test_database(postgres, vault):
    """psycopg 3 logs in to PostgreSQL with a password that is a secret; a wrong one is refused."""
    vault.values["wrong"] = "psycopg keeps it in its error"  # hence without the mark
    postgres.set_password("stock_reader", VALUE)
    user = same(
        query,
        literal={"DATABASES": {"default": database(postgres, VALUE)}},
        live={"DATABASES": {"default": database(postgres, from_secret())}},
    )
    assert user == "stock_reader"
    with (
        override_settings(DATABASES={"default": database(postgres, from_secret("wrong"))}),
        pytest.raises(OperationalError, match="authentication failed"),
    ):
        query()


@pytest.mark.usefixtures("databases")
def test_database_whose_every_field_is_a_secret(postgres, vault):
    """USER, HOST, PORT, NAME and OPTIONS may be secrets as the password may."""
    postgres.set_password("stock_reader", VALUE)
    literals = database(postgres, VALUE, OPTIONS={"application_name": "named"})
    vault.values |= {"user": "stock_reader", "host": "127.0.0.1", "port": str(postgres.port)}
    vault.values |= {"name": "app", "application": "named"}
    live = database(
        postgres,
        from_secret(),
        USER=from_secret("user"),
        HOST=from_secret("host"),
        PORT=from_secret("port"),
        NAME=from_secret("name"),
        OPTIONS={"application_name": from_secret("application")},
    )
    got = same(
        lambda: query("SHOW application_name"),
        literal={"DATABASES": {"default": literals}},
        live={"DATABASES": {"default": live}},
    )
    assert got == "named"


@pytest.mark.usefixtures("databases")
def test_database_takes_a_secret_as_a_parameter(postgres, settings):
    """psycopg and sqlite3 take a live setting as a parameter of a query."""
    postgres.set_password("stock_reader", VALUE)
    settings.X = from_secret()
    with override_settings(DATABASES={"default": database(postgres, VALUE)}):
        connections = ConnectionHandler()
        with connections["default"].cursor() as cursor:
            cursor.execute("SELECT %s", [django_settings.X])
            assert cursor.fetchone() == (VALUE,)
        connections.close_all()
    connection = sqlite3.connect(":memory:")
    assert connection.execute("SELECT ?", [django_settings.X]).fetchone() == (VALUE,)
    connection.close()


def test_database_of_a_process(postgres, tmp_path):
    """``migrate`` runs against PostgreSQL with a password that is a secret."""
    postgres.set_password("migrator", canary("db"))
    project = Project(tmp_path).write(
        f"""
        INSTALLED_APPS += ["django.contrib.contenttypes", "django.contrib.auth"]
        DATABASES = {{
            "default": {{
                "ENGINE": "django.db.backends.postgresql",
                "NAME": "app",
                "USER": "migrator",
                "HOST": "127.0.0.1",
                "PORT": {postgres.port},
                "PASSWORD": secret("vault://db"),
            }}
        }}
        """
    )
    assert "Applying auth.0001_initial" in project.manage("migrate").stdout
    assert "[X] 0001_initial" in project.manage("showmigrations").stdout


REDIS = "django.core.cache.backends.redis.RedisCache"


@pytest.fixture
def password(redis) -> None:
    """Let Redis ask for a password."""
    redis.set_password(VALUE)


@pytest.mark.usefixtures("password")
@pytest.mark.parametrize("several", [False, True])
def test_cache_location(redis, several):
    """A cache connects to a LOCATION that is made of a secret, as text or in a list."""

    def location(value: Any) -> Any:
        return [value, value] if several else value

    def url(text: str) -> str:
        return f"redis://:{text}@127.0.0.1:{redis.port}/0"

    def read() -> object:
        caches["default"].set("k", {"a": 1})
        return caches["default"].get("k")

    got = same(
        read,
        literal={"CACHES": {"default": {"BACKEND": REDIS, "LOCATION": location(url(VALUE))}}},
        live={
            "CACHES": {"default": {"BACKEND": REDIS, "LOCATION": location(from_secret().map(url))}}
        },
    )
    assert got == {"a": 1}


@pytest.mark.usefixtures("password")
def test_cache_options(redis):
    """A cache logs in with a password in OPTIONS that is a secret."""

    def caches_with(value: Any) -> dict[str, Any]:
        config = {"BACKEND": REDIS, "LOCATION": f"redis://127.0.0.1:{redis.port}/1"}
        return {"CACHES": {"default": {**config, "OPTIONS": {"password": value}}}}

    def read() -> object:
        caches["default"].set("k", 3)
        return caches["default"].incr("k")

    assert same(read, literal=caches_with(VALUE), live=caches_with(from_secret())) == 4
    import redis as client

    with (
        override_settings(**caches_with(from_secret("old"))),
        pytest.raises(client.AuthenticationError),
    ):
        read()


def mail_settings(server: Any, password: object) -> dict[str, Any]:
    """Return settings for e-mail in the way of this version of Django."""
    if django.VERSION >= (6, 1):
        options = {"host": server.host, "port": server.port, "username": "app"}
        options["password"] = password
        backend = "django.core.mail.backends.smtp.EmailBackend"
        return {"MAILERS": {"default": {"BACKEND": backend, "OPTIONS": options}}}
    return {
        "EMAIL_BACKEND": "django.core.mail.backends.smtp.EmailBackend",
        "EMAIL_HOST": server.host,
        "EMAIL_PORT": server.port,
        "EMAIL_HOST_USER": "app",
        "EMAIL_HOST_PASSWORD": password,
    }


def test_email(smtp):
    """Mail is sent through a server that is logged in to with a secret."""
    smtp.login = ("app", VALUE)

    def read() -> object:
        sent = mail.send_mail("Subject", "Hello", "a@example.com", ["b@example.com"])
        return sent, smtp.messages.pop().splitlines()[-1]

    got = same(
        read,
        literal=mail_settings(smtp, VALUE),
        live=mail_settings(smtp, from_secret()),
    )
    assert got == (1, "Hello")


def test_storage_options(tmp_path, vault):
    """A storage is built from OPTIONS that are secrets."""
    vault.values |= {"location": str(tmp_path), "url": "https://cdn.example/x/"}

    def storages_with(location: Any, url: Any) -> dict[str, Any]:
        backend = "django.core.files.storage.FileSystemStorage"
        options = {"location": location, "base_url": url}
        unused = {"staticfiles": {"BACKEND": "django.core.files.storage.InMemoryStorage"}}
        return {"STORAGES": {"default": {"BACKEND": backend, "OPTIONS": options}, **unused}}

    def read() -> object:
        name = storages["default"].save("f.txt", ContentFile(b"x"))
        path = Path(storages["default"].path(name))
        path.unlink()
        return name, path, storages["default"].url(name), storages["default"].base_location

    same(
        read,
        literal=storages_with(str(tmp_path), "https://cdn.example/x/"),
        live=storages_with(from_secret("location"), from_secret("url")),
    )


# -- everybody's ---------------------------------------------------------------------------------


class Echo(http.server.BaseHTTPRequestHandler):
    """Answers with the headers that tell who asks."""

    def do_GET(self) -> None:
        body = json.dumps([self.headers["Authorization"], self.headers["X-Key"]]).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        """Keep quiet."""


@pytest.fixture
def echo() -> Iterator[http.server.ThreadingHTTPServer]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Echo) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_http_headers(echo, settings):
    """http.client and urllib send a live setting as a header."""

    def read() -> object:
        headers = {"Authorization": django_settings.X, "X-Key": f"Bearer {django_settings.X}"}
        connection = http.client.HTTPConnection("127.0.0.1", echo.server_port)
        connection.request("GET", "/", headers=headers)
        first = json.load(connection.getresponse())
        connection.close()
        url = f"http://127.0.0.1:{echo.server_port}/"
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers)) as response:
            return first, json.load(response)

    got = same(read, literal={"X": VALUE}, live={"X": from_secret()})
    assert got[0] == got[1] == [VALUE, f"Bearer {VALUE}"]


def written(value: str) -> str:
    file = io.StringIO()
    csv.writer(file).writerow([value, value])
    return file.getvalue()


READERS: dict[str, Callable[[str], object]] = {
    "json.dumps": json.dumps,
    "json.dumps of a dict": lambda v: json.dumps({"k": [v], v: 1}, indent=2, sort_keys=True),
    "json.loads": lambda v: json.loads(json.dumps(v)),
    "re.match in it": lambda v: re.match(r"(\w+)-", v).groups(),  # type: ignore[union-attr]
    "re.match by it": lambda v: bool(re.match(v, v)),
    "re.sub": lambda v: re.sub("-", v, v),
    "join": lambda v: "".join(part for part in (v, v)),
    "join by it": lambda v: v.join("ab"),
    "replace": lambda v: "a-b".replace("-", v),
    "split": lambda v: v.split("-"),
    "encode": lambda v: v.encode(),
    "bytes": lambda v: bytes(v, "ascii"),
    "hmac": lambda v: hmac.new(v.encode(), b"x", hashlib.sha256).hexdigest(),
    "compare_digest": lambda v: hmac.compare_digest(v, VALUE),
    "base64": lambda v: base64.b64encode(v.encode("ascii")),
    "quote": lambda v: urllib.parse.quote(v, safe=""),
    "urlencode": lambda v: urllib.parse.urlencode({"k": v}),
    "csv": written,
    "dict key": lambda v: {VALUE: 1}[v],
    "set": lambda v: v in {VALUE, "x"},
    "hash": hash,
    "translate": lambda v: v.translate({ord("-"): "+"}),
    "%": lambda v: "%s %5.3s" % (v, v),  # noqa: UP031
    "f-string": lambda v: f"{v:>60}",
    "int": lambda v: int(v, 36) if v.isalnum() else [int(n) for n in re.findall(r"\d+", v)],
    "path": lambda v: os.fspath(Path("/run") / v),
    "intern": lambda v: sys.intern(str(v)),
    "compile": lambda v: eval(compile(repr(str(v)), "x", "eval")),
    "ord": lambda v: [ord(character) for character in v],
    "environment": lambda v: (
        subprocess.run(
            [sys.executable, "-c", "import os, sys; sys.exit(len(os.environ['K']))"],
            env={"K": v},
            check=False,
        ).returncode
    ),
}


@pytest.mark.parametrize("read", READERS.values(), ids=READERS)
def test_plain_python(read):
    """C code and the standard library take a live setting for the str that it is."""
    same(lambda: read(django_settings.X), literal={"X": VALUE}, live={"X": from_secret()})


def test_reader_gets_a_real_str(settings):
    """The setting is an instance of str, whose repr alone differs from the text's."""
    settings.X = from_secret()
    assert isinstance(django_settings.X, str)
    assert type(django_settings.X) is SecretStr
    assert VALUE not in repr([django_settings.X])
