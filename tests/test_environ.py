"""``environ.Env``: a variable that holds a literal in development and a reference in production."""

from __future__ import annotations

import copy
import json
import logging
import pickle
import subprocess
import sys
import warnings
from pathlib import Path
from urllib.parse import quote

import environ
import pytest
from django.conf import settings as live_settings
from django.core.exceptions import ImproperlyConfigured
from hypothesis import given
from hypothesis import strategies as st

from django_secret_registry import (
    InvalidReference,
    ProviderError,
    SecretNotFound,
    SecretStr,
    registry,
)
from django_secret_registry.environ import Env
from django_secret_registry.lazy import LazySecret
from django_secret_registry.providers.memory import MemoryStore
from tests.canary import canary

POSTGRES = "django_secret_registry.db.backends.postgresql"
REDIS = "django.core.cache.backends.redis.RedisCache"


@pytest.fixture
def store(settings) -> MemoryStore:
    store = MemoryStore({"key": canary(), "json": {"key": canary("of json")}})
    settings.SECRET_REGISTRY = {
        "PROVIDERS": {
            "memory": {
                "BACKEND": "django_secret_registry.providers.memory.MemoryProvider",
                "OPTIONS": {"secrets": store},
            }
        }
    }
    return store


def env(_scheme=None, **variables: str) -> Env:
    """Return an ``Env`` that sees only these variables."""

    class Local(Env):
        ENVIRON = dict(variables)

    return Local(**(_scheme or {}))


def live(settings, value):
    """Return ``value`` as a reader of settings gets it."""
    settings.FROM_ENV = value
    return live_settings.FROM_ENV


@pytest.mark.usefixtures("store")
class TestSecret:
    def test_literal(self):
        """A literal is a real ``str`` that does not show itself."""
        value = env(KEY=canary()).secret("KEY")
        assert value == canary()
        assert isinstance(value, SecretStr)
        assert canary() not in repr(value)

    def test_reference(self, settings):
        """A reference becomes a marker, and the setting reads as the current value."""
        marker = env(KEY="ref+memory://json#key").secret("KEY")
        assert type(marker) is LazySecret
        assert live(settings, marker) == canary("of json")

    def test_reads_nothing_while_settings_load(self):
        """Making the marker fetches nothing."""
        env(KEY="ref+memory://key").secret("KEY")
        assert registry.snapshot().secrets == ()

    def test_map_works_for_both(self, settings):
        """One line of settings with ``.map`` serves the literal and the reference."""
        values = [
            live(settings, env(KEY=text).secret("KEY").map("<{}>".format))
            for text in (canary(), "ref+memory://key")
        ]
        assert values == [f"<{canary()}>"] * 2

    def test_literal_is_pickled(self):
        """A literal goes to a spawned process, as ``test --parallel`` sends ``DATABASES`` there."""
        value = env(KEY=canary()).secret("KEY")
        again = pickle.loads(pickle.dumps(value))
        assert (again, type(again)) == (value, type(value))
        assert copy.deepcopy(value) is value

    @pytest.mark.parametrize("default", [None, "", "development", b"bytes"])
    def test_default_stands_in_for_a_variable_that_is_not_set(self, default):
        """Without the variable the default is given; text is masked, everything else is itself."""
        assert env().secret("KEY", default=default) == default
        assert env({"KEY": (str, default)}).secret("KEY") == default

    def test_default_may_be_a_reference(self, settings):
        """A default that is a reference is one."""
        assert live(settings, env().secret("KEY", default="ref+memory://key")) == canary()

    def test_default_does_not_stand_in_for_a_missing_secret(self, settings):
        """A reference that finds nothing is an error: a development key must not sign instead."""
        marker = env(KEY="ref+memory://missing").secret("KEY", default="development")
        with pytest.raises(SecretNotFound):
            live(settings, marker)

    def test_none_does(self, settings):
        """The default None signs nothing: with it a reference that finds nothing is optional."""
        old = env(KEY="ref+memory://missing").secret("KEY", default=None)
        assert live(settings, old) is None
        key = env(KEY="ref+memory://key").secret("KEY", default=None)
        assert live(settings, key) == canary()

    def test_not_set(self):
        """Without variable and default the error is django-environ's."""
        with pytest.raises(ImproperlyConfigured, match=r"^Set the KEY environment variable$"):
            env().secret("KEY")

    def test_empty(self):
        """An empty variable is an empty literal, and with the default ``None`` it is ``None``."""
        assert env(KEY="").secret("KEY") == ""
        assert env(KEY="").secret("KEY", default=None) is None

    def test_prefix_and_proxy(self, settings):
        """A prefix and a variable that names another one work as in django-environ."""
        prefixed = env(APP_KEY="$OTHER", APP_OTHER="ref+memory://key")
        prefixed.prefix = "APP_"
        assert live(settings, prefixed.secret("KEY")) == canary()

    def test_escaped_dollar(self):
        """With ``escape_proxy`` a text may begin with a dollar sign."""
        escaping = env(KEY=r"\$x")
        escaping.escape_proxy = True
        assert escaping.secret("KEY") == "$x"

    @pytest.mark.parametrize(
        "variables",
        [
            {"KEY": f"${canary()}"},
            {"KEY": "$KEY"},
            {"KEY": "$OTHER", "OTHER": f"$${canary()}"},
        ],
    )
    @pytest.mark.parametrize("arguments", [{}, {"default": "x"}])
    def test_password_with_a_dollar_is_not_shown(self, variables, arguments, caplog):
        """A text that begins with ``$`` and names no variable is an error that does not show it."""
        caplog.set_level(logging.DEBUG)
        with pytest.raises(ImproperlyConfigured, match="begins with") as caught:
            env(**variables).secret("KEY", **arguments)
        assert caught.value.__context__ is None

    @pytest.mark.parametrize(
        "text",
        [
            "ref+",
            f"ref+{canary()}",
            f"ref+memory:/{canary()}",
            f"ref+memory://{canary()} x",
            f"ref+memory://x?key={canary()}",
            f"ref+no good://{canary()}",
        ],
    )
    @pytest.mark.parametrize("method", ["secret", "db", "cache", "email"])
    def test_malformed_reference_is_not_shown(self, text, method):
        """What begins with ``ref+`` and is no reference is an error that names the variable."""
        with pytest.raises(InvalidReference, match="environment variable KEY") as caught:
            getattr(env(KEY=text), method)("KEY")
        assert caught.value.__context__ is None

    def test_spaces_around_a_reference(self, settings):
        """A line end, as a file has one, does not belong to a reference."""
        assert live(settings, env(KEY="ref+memory://key\n").secret("KEY")) == canary()


DATABASE_URLS = [
    "postgres://user:p%40ss%2Fword@db.example:5432/app",
    "postgresql://user:pw@db/app?sslmode=require&connect_timeout=5",
    "postgres://user:pw@a:1,b:2/app",
    "postgres://user:pw@%2Fvar%2Frun%2Fpostgresql/app",
    "postgis://user:pw@db/app",
    "mysql://user:pw@db:3306/app?charset=utf8mb4",
    "oracle://user:pw@db:1521/sid",
    "oracle://user:pw@sid",
    "sqlite:///relative.db",
    "sqlite:////tmp/absolute.db",
    "sqlite://:memory:",
    "sqlite://",
    "postgres://user:[pw@db/app",
    "unknown://user:pw@db/app",
]
CACHE_URLS = [
    "redis://:pw@redis:6379/0",
    "rediss://user:p%40ss@a:1,b:2/1?max_connections=5",
    "redis:///run/redis.sock",
    "memcache://127.0.0.1:11211",
    "pymemcache://a:1,b:2",
    "filecache:///var/cache",
    "locmemcache://name",
    "dbcache://table",
]
EMAIL_URLS = [
    "smtp://user:p%40ss@mail.example:25",
    "smtp+tls://user:pw@mail:587",
    "smtp+ssl://user:pw@mail:465",
    "smtps://user:pw@mail:465",
    "smtp://mail",
    "smtp://user:pw@mail/?EMAIL_USE_TLS=1",
]


@pytest.mark.filterwarnings("ignore:SQLite URL contains host")
class TestUrls:
    @pytest.mark.parametrize("url", DATABASE_URLS)
    def test_database(self, url, store, settings):
        """Every field that a literal database URL has reads the same from a reference to it."""
        store.put("url", url)
        literal = env(URL=url).db("URL", engine=POSTGRES)
        entry = live(settings, env(URL="ref+memory://url").db("URL", engine=POSTGRES))
        literal["ENGINE"] = POSTGRES  # of sqlite://:memory: django-environ ignores it
        assert {name: entry[name] for name in literal} == literal
        empty = {name: value for name, value in entry.items() if name not in literal}
        assert not any(empty.values())

    @pytest.mark.parametrize("url", CACHE_URLS)
    @pytest.mark.parametrize("backend", [REDIS, "django_redis.cache.RedisCache"])
    def test_cache(self, url, backend, store, settings):
        """Every field that a literal cache URL has reads the same from a reference to it."""
        store.put("url", url)
        literal = env(URL=url).cache("URL", backend=backend)
        entry = live(settings, env(URL="ref+memory://url").cache("URL", backend=backend))
        assert dict(entry) == {"OPTIONS": {}, **literal}

    @pytest.mark.parametrize("url", EMAIL_URLS)
    def test_email(self, url, store, settings):
        """Every setting that a literal e-mail URL gives reads the same from a reference to it."""
        store.put("url", url)
        literal = {"EMAIL_USE_TLS": False, "EMAIL_USE_SSL": False, **env(URL=url).email("URL")}
        literal.pop("OPTIONS", None)
        entry = env(URL="ref+memory://url").email("URL")
        assert {name: live(settings, value) for name, value in entry.items()} == literal

    @given(
        user=st.text(min_size=1),
        password=st.text(min_size=1),
        name=st.from_regex(r"[a-z]+", fullmatch=True),
    )
    def test_quoted_credentials_arrive(self, user, password, name):
        """Whatever is in user and password arrives unchanged when the URL quotes it."""
        from django_secret_registry.environ import _DatabaseField

        url = f"postgres://{quote(user, safe='')}:{quote(password, safe='')}@db:5432/{name}"
        fields = {f: _DatabaseField(Env, POSTGRES, f)(url) for f in ("USER", "PASSWORD", "NAME")}
        assert fields == {"USER": user, "PASSWORD": password, "NAME": name}

    @pytest.mark.parametrize("method", ["db", "db_url", "cache", "cache_url", "email", "email_url"])
    @pytest.mark.parametrize(
        "arguments", [{}, {"default": None}, {"default": "smtp://x"}, {"default": "redis://x"}]
    )
    @pytest.mark.parametrize(
        "variables",
        [{}, {"URL": ""}, {"URL": "redis://:pw@x/1"}, {"URL": "$OTHER", "OTHER": "smtp://u:p@x"}],
    )
    def test_literals_are_django_environs(self, method, arguments, variables):
        """For literals and defaults the result is django-environ's: value, error and warnings."""

        class Theirs(environ.Env):
            ENVIRON = dict(variables)

        def outcome(kind):
            reader = kind()
            reader.warn_on_default = True
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                try:
                    result = getattr(reader, method)("URL", **arguments)
                except Exception as error:
                    result = type(error), str(error)
            return result, [str(warning.message) for warning in caught]

        assert outcome(type(env(**variables))) == outcome(Theirs)

    def test_short_and_long_names(self, store, settings):
        """``db_url``, ``cache_url`` and ``email_url`` follow references like their short names."""
        store.put("url", "redis://:pw@redis/0")
        reader = env(CACHE_URL="ref+memory://url")
        assert live(settings, reader.cache_url(backend=REDIS))["LOCATION"] == "redis://:pw@redis/0"

    @pytest.mark.parametrize("scheme", [{}, {"URL": (str, "ref+memory://url")}])
    def test_default_may_be_a_reference(self, scheme, store, settings):
        """With the variable unset, a default that is a reference is followed as well."""
        store.put("url", "postgres://user:pw@db/app")
        default = {} if scheme else {"default": "ref+memory://url"}
        entry = env(scheme).db("URL", engine=POSTGRES, **default)
        assert live(settings, entry)["PASSWORD"] == "pw"

    def test_engine_is_a_literal(self, store):
        """``ENGINE`` and ``BACKEND`` are known without a fetch; schemes work as names."""
        reader = env(URL="ref+memory://missing")
        assert reader.db("URL", engine="postgres")["ENGINE"] == "django.db.backends.postgresql"
        assert reader.db("URL", engine=POSTGRES)["ENGINE"] == POSTGRES
        assert reader.cache("URL", backend=REDIS)["BACKEND"] == REDIS
        smtp = "django.core.mail.backends.smtp.EmailBackend"
        assert reader.email("URL")["EMAIL_BACKEND"] == smtp
        assert reader.email("URL", backend="x.Y")["EMAIL_BACKEND"] == "x.Y"

    @pytest.mark.parametrize("method", ["db", "cache"])
    def test_engine_is_needed(self, method):
        """A reference without the class is an error that shows the line to write."""
        with pytest.raises(ImproperlyConfigured, match=rf"env\.{method}\('URL', \w+=\"django\."):
            getattr(env(URL="ref+memory://url"), method)("URL")

    def test_follows_a_rotation(self, store, settings):
        """After a rotation the fields are those of the new URL."""
        store.put("url", "postgres://user:1@db/app")
        entry = live(settings, env(URL="ref+memory://url").db("URL", engine=POSTGRES))
        assert entry["PASSWORD"] == "1"
        store.put("url", "postgres://user:2@db/app")
        registry.refresh("memory://url")
        assert entry["PASSWORD"] == "2"

    def test_fields_are_masked(self, store, settings):
        """Texts out of a secret URL do not show themselves, also within lists and dicts."""
        store.put("url", f"redis://:{canary('a')}@a,:{canary('b')}@b/1?password={canary('c')}")
        entry = live(settings, env(URL="ref+memory://url").cache("URL", backend=REDIS))
        assert canary("a") in entry["LOCATION"][0]
        assert list(entry["OPTIONS"].values()) == [canary("c")]
        assert canary() not in repr(dict(entry))

    def test_is_pickled_as_references(self, store):
        """An entry is pickled with its references and without values, for spawned test workers."""
        store.put("url", f"postgres://user:{canary()}@db/app")
        entry = Env.db_url(_Picklable(), "URL", engine=POSTGRES)
        data = pickle.dumps(entry)
        assert canary().encode() not in data
        assert str(pickle.loads(data)["PASSWORD"]) == canary()

    @pytest.mark.parametrize(
        ("method", "url"),
        [
            ("db", canary()),
            ("db", ""),
            ("db", f"postgres://user:{canary()}/x@db/app"),
            ("db", f"postgres://user:{canary()}:{canary()}@db:x/app"),
            ("db", f"postgres://user@db/app?²={canary()}&x=²"),
            ("cache", f"{canary()}://x"),
            ("cache", canary()),
            ("email", canary()),
            ("email", f"{canary()}://x"),
            ("email", f"smtp://user:{canary()}/x@mail"),
        ],
    )
    def test_secret_that_is_no_url_is_not_shown(self, method, url, store, settings):
        """A secret that is no URL of its kind is an error with the reference and nothing of it."""
        store.put("url", url)
        arguments = {"db": {"engine": POSTGRES}, "cache": {"backend": REDIS}, "email": {}}[method]
        entry = getattr(env(URL="ref+memory://url"), method)("URL", **arguments)
        name = {"db": "PORT", "cache": "LOCATION", "email": "EMAIL_PORT"}[method]
        with pytest.raises(ProviderError, match="URL") as caught:
            live(settings, entry[name])
        assert (caught.value.__cause__, caught.value.__context__) == (None, None)
        assert "memory://url" in str(caught.value)

    @pytest.mark.parametrize(
        ("method", "query", "named"),
        [
            ("db", "conn_max_age=5&atomic_requests=1", "ATOMIC_REQUESTS, CONN_MAX_AGE"),
            ("cache", "timeout=5&version=2", "TIMEOUT, VERSION"),
            ("email", "x=1", "OPTIONS"),
        ],
    )
    def test_what_django_reads_without_connecting(self, method, query, named, store, settings):
        """Options of Django's own in a secret URL are refused by name rather than ignored."""
        scheme = {"db": "postgres", "cache": "redis", "email": "smtp"}[method]
        store.put("url", f"{scheme}://user:{canary()}@host:1/x?{query}")
        arguments = {"db": {"engine": POSTGRES}, "cache": {"backend": REDIS}, "email": {}}[method]
        entry = getattr(env(URL="ref+memory://url"), method)("URL", **arguments)
        with pytest.raises(ProviderError, match=named):
            live(settings, list(entry.values())[1])

    def test_sqlite_with_a_host_does_not_warn(self, store, settings):
        """django-environ's warning about a host in an SQLite URL would show it; there is none."""
        store.put("url", f"sqlite://{canary()}@host/x.db")
        entry = env(URL="ref+memory://url").db("URL", engine="sqlite")
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert live(settings, entry["NAME"]) == "x.db"


class _Picklable(Env):
    ENVIRON = {"URL": "ref+memory://url"}


SETTINGS = """
from pathlib import Path
import django
from django_secret_registry.environ import Env

env = Env()
env.read_env(Path(__file__).parent / ".env")
INSTALLED_APPS = ["django_secret_registry", "django.contrib.contenttypes"]
SECRET_REGISTRY = {
    "PROVIDERS": {
        "file": {
            "BACKEND": "django_secret_registry.providers.file.FileProvider",
            "OPTIONS": {"path": str(Path(__file__).parent / "secrets")},
        }
    }
}
SECRET_KEY = env.secret("SECRET_KEY")
DATABASES = {"default": env.db(engine="sqlite")}
CACHES = {"default": env.cache(backend="django.core.cache.backends.filebased.FileBasedCache")}
mail = env.email()
if django.VERSION < (6, 1):
    vars().update(mail)
else:
    names = {"host": "HOST", "port": "PORT", "password": "HOST_PASSWORD", "use_tls": "USE_TLS"}
    options = {option: mail[f"EMAIL_{name}"] for option, name in names.items()}
    MAILERS = {"default": {"BACKEND": mail["EMAIL_BACKEND"], "OPTIONS": options}}
USE_TZ = True
"""
PROGRAM = """
import json, django
django.setup()
from django.conf import settings
from django.core import mail
from django.core.cache import cache
from django.core.signing import dumps, loads
from django.db import connection

with connection.cursor() as cursor:
    cursor.execute("select 1 + 1")
    assert cursor.fetchone() == (2,)
cache.set("a", "b")
assert cache.get("a") == "b"
assert loads(dumps("x")) == "x"
smtp = mail.get_connection() if django.VERSION < (6, 1) else mail.mailers.default
print(json.dumps([connection.settings_dict["NAME"], smtp.host, smtp.port, smtp.use_tls]))
"""


def test_project_with_references_only(tmp_path):
    """A project whose key, database, cache and mail are references in ``.env`` works in Django."""
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    (secrets / "key").write_text(canary("key"))
    (secrets / "db").write_text(f"sqlite:///{tmp_path}/app.db")
    (secrets / "cache").write_text(f"filecache://{tmp_path}/cache")
    (secrets / "mail").write_text(f"smtp+tls://user:{canary('mail')}@mail.example:587")
    (tmp_path / "settings.py").write_text(SETTINGS)
    (tmp_path / ".env").write_text(
        "SECRET_KEY=ref+file://key\n"
        "DATABASE_URL=ref+file://db\n"
        "CACHE_URL=ref+file://cache\n"
        'EMAIL_URL="ref+file://mail"\n'
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", PROGRAM],
        cwd=tmp_path,
        env={
            "DJANGO_SETTINGS_MODULE": "settings",
            "PYTHONPATH": f"{tmp_path}:{Path(__file__).parents[1]}",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [f"{tmp_path}/app.db", "mail.example", 587, True]
    assert (tmp_path / "app.db").exists()
    assert list((tmp_path / "cache").iterdir())
