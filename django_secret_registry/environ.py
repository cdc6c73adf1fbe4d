"""django-environ's ``Env``, for which a variable may hold a reference instead of a value.

::

    STRIPE_KEY=sk_test_1                                   in development
    STRIPE_KEY=ref+aws://prod/stripe#api_key               in production

    from django_secret_registry.environ import Env

    env = Env()
    STRIPE_KEY = env.secret("STRIPE_KEY")
    DATABASES = {"default": env.db(engine="django_secret_registry.db.backends.postgresql")}
    CACHES = {"default": env.cache(backend="django.core.cache.backends.redis.RedisCache")}
    vars().update(env.email())
"""

from __future__ import annotations

import abc
import contextlib
import copy
import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, SupportsIndex, TypeVar, overload
from urllib.parse import urlsplit

import environ  # type: ignore[import-untyped]
from django.core.exceptions import ImproperlyConfigured

from .exceptions import InvalidReference, ProviderError
from .lazy import LazySecret, SecretSetting
from .references import MARK, SecretRef
from .values import SecretStr

T = TypeVar("T")

_NOTSET = environ.Env.NOTSET


class LiteralSecret(SecretStr):
    """A secret that the environment holds in clear text: a ``SecretStr`` that has ``map``.

    With it one line of settings serves a literal and a reference. Unlike other secrets it can be
    pickled: ``test --parallel`` hands ``DATABASES`` to the processes that it spawns, and the
    environment in which the text stands goes to them anyway.
    """

    __slots__ = ()

    def map(self, function: Callable[[str], T]) -> T:
        """Return ``function(self)``, at once; the counterpart of ``LazySecret.map``."""
        return function(self)

    def __reduce_ex__(self, protocol: SupportsIndex) -> tuple[Any, ...]:  # type: ignore[override]
        return LiteralSecret, (str(self),)


class Env(environ.Env):  # type: ignore[misc]
    """``environ.Env`` with :meth:`secret`; ``db``, ``cache`` and ``email`` follow references too.

    A variable is a reference when its whole value begins with ``ref+``; it then becomes live
    markers, and nothing is fetched while settings load. Every other value gives exactly what
    django-environ gives.
    """

    @overload
    def secret(self, var: str) -> SecretSetting: ...
    @overload
    def secret(self, var: str, default: str) -> SecretSetting: ...
    @overload
    def secret(self, var: str, default: T) -> SecretSetting | T: ...
    def secret(self, var: str, default: Any = _NOTSET) -> Any:
        """Return the secret of a variable: a marker for a reference, a ``str`` for a literal.

        ``default`` is used when the variable is not set. It never stands in for a secret that a
        reference does not find: a key meant for development must not sign in production. ``None``
        can sign nothing, so it does: in a list such as ``SECRET_KEY_FALLBACKS`` the secret of a
        version that does not exist (yet) drops out.
        """
        value = self._text(var, default)
        reference = self._reference(var, value)
        if reference is not None:
            return LazySecret(reference, default=None) if default is None else LazySecret(reference)
        return LiteralSecret(value) if isinstance(value, str) else value

    def db_url(
        self,
        var: str = environ.Env.DEFAULT_DATABASE_ENV,
        default: Any = _NOTSET,
        engine: str | None = None,
    ) -> dict[str, Any]:
        """Return a ``DATABASES`` entry; with a reference to a database URL its fields are live.

        ``engine`` must be given then, since Django reads ``ENGINE`` in every command, also where
        no secret can be had. ``CONN_MAX_AGE`` and its like cannot come from the secret either.
        """
        reference = self._reference(var, self._peek(var, default))
        if reference is None:
            config: dict[str, Any] = super().db_url(var, default=default, engine=engine)
            return config
        if not engine:
            raise self._needs(var, "db", 'engine="django.db.backends.postgresql"')
        engine = self.DB_SCHEMES.get(engine, engine)
        return {"ENGINE": engine, **self._fields(reference, _DatabaseField(type(self), engine))}

    db = db_url

    def cache_url(
        self,
        var: str = environ.Env.DEFAULT_CACHE_ENV,
        default: Any = _NOTSET,
        backend: str | None = None,
    ) -> dict[str, Any]:
        """Return a ``CACHES`` entry; with a reference to a cache URL its fields are live.

        ``backend`` must be given then; ``TIMEOUT`` and its like cannot come from the secret.
        """
        reference = self._reference(var, self._peek(var, default))
        if reference is None:
            config: dict[str, Any] = super().cache_url(var, default=default, backend=backend)
            return config
        if not backend:
            raise self._needs(var, "cache", 'backend="django.core.cache.backends.redis.RedisCache"')
        return {"BACKEND": backend, **self._fields(reference, _CacheField(type(self), backend))}

    cache = cache_url

    def email_url(
        self,
        var: str = environ.Env.DEFAULT_EMAIL_ENV,
        default: Any = _NOTSET,
        backend: str | None = None,
    ) -> dict[str, Any]:
        """Return the ``EMAIL_*`` settings; with a reference to an e-mail URL they are live.

        ``backend`` is then Django's SMTP backend unless it is given. The values serve as OPTIONS of
        ``MAILERS`` as well, which replaces these settings from Django 6.1 on.
        """
        reference = self._reference(var, self._peek(var, default))
        if reference is None:
            config: dict[str, Any] = super().email_url(var, default=default, backend=backend)
            return config
        return {
            "EMAIL_BACKEND": backend or self.EMAIL_SCHEMES["smtp"],
            **self._fields(reference, _EmailField(type(self))),
        }

    email = email_url

    def _text(self, var: str, default: Any) -> Any:
        """Return what the variable holds, or ``default``; ImproperlyConfigured without either.

        django-environ takes ``$...`` for the name of another variable and shows it in its errors
        and its log: here it may be a password that begins with a dollar sign.
        """
        name = f"{self.prefix}{var}"
        held = self.ENVIRON.get(name)
        seen = {name}
        while isinstance(held, str) and held.startswith("$"):
            target = f"{self.prefix}{held.lstrip('$')}"
            if target in seen or target not in self.ENVIRON:
                raise ImproperlyConfigured(
                    f"The environment variable {name} begins with '$' and so names another one,"
                    r" which is not set. A text that begins with '$' is written as '\$', with"
                    " env.escape_proxy = True."
                )
            seen.add(target)
            held = self.ENVIRON[target]
        return self.get_value(var, cast=str, default=default)

    def _peek(self, var: str, default: Any) -> Any:
        """Return what the variable holds, if anything, without a warning that it is not set."""
        quiet = copy.copy(self)
        quiet.warn_on_default = False
        try:
            return quiet.get_value(var, cast=str, default=default)
        except ImproperlyConfigured:
            return None

    def _reference(self, var: str, value: object) -> str | None:
        """Return the reference that ``value`` is, or None when it is a literal."""
        if not isinstance(value, str) or not value.startswith(MARK):
            return None
        problem = ""
        try:
            ref = SecretRef.parse(value.strip())
        except InvalidReference as error:
            problem = f"{error.message}."
        if not problem and ref.is_entry:
            problem = "it lacks '://'."
        if problem:
            raise InvalidReference(
                f"the environment variable {self.prefix}{var} begins with 'ref+' and holds no"
                f" reference: {problem}",
                hint="Write ref+alias://name#key.",
            )
        return str(ref)

    def _fields(self, reference: str, field: _Field) -> dict[str, LazySecret]:
        """Return a marker for each setting that the secret URL stands for."""
        marker = LazySecret(reference)
        return {name: marker.map(dataclasses.replace(field, name=name)) for name in field.names}

    def _needs(self, var: str, method: str, argument: str) -> ImproperlyConfigured:
        return ImproperlyConfigured(
            f"The environment variable {self.prefix}{var} holds a reference, and nothing is fetched"
            f" while settings load. Name the class as well: env.{method}({var!r}, {argument})"
        )


#: What stands in offline mode for settings that are no text; Django looks at them all the same.
_PLACEHOLDERS: Mapping[str, Any] = {
    "OPTIONS": {},
    "PORT": "",
    "EMAIL_PORT": 25,
    "EMAIL_USE_TLS": False,
    "EMAIL_USE_SSL": False,
    "EMAIL_FILE_PATH": None,
}


@dataclasses.dataclass(frozen=True)
class _Field(abc.ABC):
    """Picks one setting out of a secret URL, which ``env`` parses.

    Classes and not functions in functions, because ``test --parallel`` pickles settings with their
    markers. No error repeats anything of the URL: where a character of the password should have
    been percent-encoded, any part of the URL may be the password.
    """

    env: type[Env]
    backend: str = ""
    name: str = ""

    what: ClassVar[str]
    names: ClassVar[tuple[str, ...]]

    @abc.abstractmethod
    def parse(self, url: str) -> Mapping[str, Any]:
        """Return the settings; may raise what django-environ raises."""

    def __call__(self, url: str) -> Any:
        config: Mapping[str, Any] = {}
        if "://" in url:
            # What these say quotes the URL; hence nothing is raised in here.
            with contextlib.suppress(ImproperlyConfigured, ValueError):
                config = self.parse(str(url))
        if not config:
            raise ProviderError(
                f"the secret is no {self.what} URL",
                hint="It is scheme://user:password@host:port/name, its parts percent-encoded.",
            )
        own = {*self.names, "ENGINE", "BACKEND", "EMAIL_BACKEND"}
        extra = {name.upper() for name in config.keys() - own if config[name] != {}}
        if extra:
            raise ProviderError(
                f"the {self.what} URL in the secret sets {', '.join(sorted(extra))}",
                hint="Django reads that without connecting: write it into settings, and take it"
                " out of the secret's query.",
            )
        value = config.get(self.name, {} if self.name == "OPTIONS" else "")
        # The registry masks text and dicts; a list is what several cache servers come as.
        return [SecretStr(item) for item in value] if isinstance(value, list) else value

    def placeholder(self, text: str) -> Any:
        """Return what stands for the setting in offline mode: ``text``, if it may be text."""
        return copy.copy(_PLACEHOLDERS.get(self.name, text))


class _DatabaseField(_Field):
    what = "database"
    names = ("NAME", "USER", "PASSWORD", "HOST", "PORT", "OPTIONS")

    def parse(self, url: str) -> Mapping[str, Any]:
        if url.startswith("sqlite:"):  # of a host in it the parser would warn, and show it
            parts = urlsplit(url)
            url = f"sqlite://{parts.path}?{parts.query}"
        config: Mapping[str, Any] = self.env.db_url_config(url, engine=self.backend)
        return config


class _CacheField(_Field):
    what = "cache"
    names = ("LOCATION", "OPTIONS")

    def parse(self, url: str) -> Mapping[str, Any]:
        config: Mapping[str, Any] = self.env.cache_url_config(url, backend=self.backend)
        return config


class _EmailField(_Field):
    what = "e-mail"
    names = (
        "EMAIL_HOST",
        "EMAIL_PORT",
        "EMAIL_HOST_USER",
        "EMAIL_HOST_PASSWORD",
        "EMAIL_USE_TLS",
        "EMAIL_USE_SSL",
        "EMAIL_FILE_PATH",
    )

    def parse(self, url: str) -> Mapping[str, Any]:
        config: Mapping[str, Any] = self.env.email_url_config(url)
        return {"EMAIL_USE_TLS": False, "EMAIL_USE_SSL": False, **config}
