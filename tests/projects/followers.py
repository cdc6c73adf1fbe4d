"""A project full of stock packages that use one secret, which rotates.

Prints JSON: for each name in ``tests.followers.FOLLOWERS``, what it used before the rotation and
after it: ``old``, ``new``, or something else. With the argument ``helped`` the project has all that
the table says; without it, nothing of this package rebinds.
"""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable
from typing import Any

import django
from django.conf import settings
from django.core.management import call_command

from django_secret_registry import registry, secret
from django_secret_registry.cache import RedisCredentials
from django_secret_registry.providers.memory import MemoryStore
from django_secret_registry.signals import secret_rotated
from tests.canary import canary

OLD, NEW = canary("old-" + "x" * 50), canary("new-" + "y" * 50)
HELPED = sys.argv[1:] == ["helped"]

store = MemoryStore({"value": OLD})


def value() -> Any:
    return secret("vault://value")


def redis_url(password: str) -> str:
    return f"redis://:{password}@127.0.0.1:1/0"


def reset_celery(**kwargs: Any) -> None:
    """Have Celery connect anew for results and for sending tasks; it has no function for that."""
    celery._backend_cache, celery._local = None, threading.local()
    celery._pool = celery.amqp._producer_pool = None


ENGINE = (
    "django_secret_registry.db.backends.postgresql" if HELPED else "django.db.backends.postgresql"
)
POSTGRES = {
    "ENGINE": ENGINE, "NAME": "app", "USER": "app", "HOST": "127.0.0.1", "PASSWORD": value(),
}  # fmt: skip
REDIS = "django.core.cache.backends.redis.RedisCache"
S3 = "storages.backends.s3.S3Storage"

settings.configure(
    INSTALLED_APPS=[
        "django_secret_registry",
        "django.contrib.auth",
        "django.contrib.contenttypes",
        "django.contrib.sessions",
        "django.contrib.sites",
        "allauth",
        "allauth.account",
        "allauth.socialaccount",
        "allauth.socialaccount.providers.google",
        "anymail",
        "channels",
        "djstripe",
        "oauth2_provider",
        "social_django",
    ],
    MIDDLEWARE=["allauth.account.middleware.AccountMiddleware"],
    ROOT_URLCONF="tests.urls",
    SITE_ID=1,
    USE_TZ=True,
    DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
    SECRET_REGISTRY={
        "PROVIDERS": {
            "vault": {
                "BACKEND": "django_secret_registry.providers.memory.MemoryProvider",
                "OPTIONS": {"secrets": store},
            }
        },
        "REBIND": ["SIMPLE_JWT", "OAUTH2_PROVIDER", "CHANNEL_LAYERS", reset_celery]
        if HELPED
        else [],
    },
    SECRET_KEY=value(),
    EMAIL_HOST_PASSWORD=value(),
    AUTHENTICATION_BACKENDS=["social_core.backends.google.GoogleOAuth2"],
    ANYMAIL={"MAILGUN_API_KEY": value()},
    SOCIALACCOUNT_PROVIDERS={"google": {"APP": {"client_id": "id", "secret": value()}}},
    SOCIAL_AUTH_GOOGLE_OAUTH2_KEY="id",
    SOCIAL_AUTH_GOOGLE_OAUTH2_SECRET=value(),
    DATABASES={
        "default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"},
        "plain": {**POSTGRES, "ENGINE": "django.db.backends.postgresql"},
        "pooled": {**POSTGRES, "OPTIONS": {"pool": True}},
    },
    CACHES={
        "default": {
            "BACKEND": REDIS, "LOCATION": "redis://127.0.0.1:1", "OPTIONS": {"password": value()},
        },
        "credentials": {
            "BACKEND": REDIS,
            "LOCATION": "redis://127.0.0.1:1",
            "OPTIONS": {"credential_provider": RedisCredentials("vault://value")},
        },
        "memory": {
            "BACKEND": "django.core.cache.backends.locmem.LocMemCache", "KEY_PREFIX": value(),
        },
        "django-redis": {
            "BACKEND": "django_redis.cache.RedisCache",
            "LOCATION": "redis://127.0.0.1:1",
            "OPTIONS": {"PASSWORD": value()},
        },
    },
    STORAGES={
        "default": {
            "BACKEND": S3,
            "OPTIONS": {"access_key": "id", "secret_key": value(), "bucket_name": "b"},
        },
        "by settings": {"BACKEND": S3, "OPTIONS": {"bucket_name": "b"}},
        "staticfiles": {"BACKEND": "django.core.files.storage.InMemoryStorage"},
    },
    AWS_ACCESS_KEY_ID="id",
    AWS_SECRET_ACCESS_KEY=value(),
    SIMPLE_JWT={"SIGNING_KEY": value()},
    OAUTH2_PROVIDER={"OIDC_RSA_PRIVATE_KEY": value()},
    CHANNEL_LAYERS={
        "default": {
            "BACKEND": "channels_redis.core.RedisChannelLayer",
            "CONFIG": {"hosts": [value().map(redis_url)]},
        }
    },
    CELERY_BROKER_URL=value().map(redis_url),
    CELERY_RESULT_BACKEND=value().map(redis_url),
    STRIPE_KEY=value(),
    STRIPE_LIVE_SECRET_KEY=value(),
    STRIPE_LIVE_MODE=True,
    DJSTRIPE_FOREIGN_KEY_TO_FIELD="id",
)  # fmt: skip
django.setup()

import stripe  # noqa: E402
from allauth.socialaccount.adapter import get_adapter  # noqa: E402
from anymail.backends.mailgun import EmailBackend as Mailgun  # noqa: E402
from celery import Celery  # noqa: E402
from channels.layers import channel_layers  # noqa: E402
from django.contrib.auth import tokens  # noqa: E402
from django.contrib.auth.models import User  # noqa: E402
from django.core import mail, signing  # noqa: E402
from django.core.cache import caches  # noqa: E402
from django.core.files.storage import storages  # noqa: E402
from django.db import connections  # noqa: E402
from django.test import RequestFactory  # noqa: E402
from djstripe.settings import djstripe_settings  # noqa: E402
from oauth2_provider.settings import oauth2_settings  # noqa: E402
from rest_framework_simplejwt.tokens import AccessToken  # noqa: E402
from social_django.utils import load_backend, load_strategy  # noqa: E402

call_command("migrate", "sites", verbosity=0)
call_command("migrate", "socialaccount", verbosity=0)

celery = Celery("followers")
celery.config_from_object("django.conf:settings", namespace="CELERY")
kept = signing.Signer()
stripe.api_key = settings.STRIPE_KEY
user = User(pk=1, password="x")


def of_session_hash() -> str:
    now = user.get_session_auth_hash()
    (found,) = (key for key in (OLD, NEW) if user._get_session_auth_hash(secret=key) == now)
    return found


def of_reset_token() -> str:
    now = tokens.default_token_generator.make_token(user)
    accepted = []
    for key in (OLD, NEW):
        generator = tokens.PasswordResetTokenGenerator()
        generator.secret = key
        accepted += [key] if generator.check_token(user, now) else []
    (found,) = accepted
    return found


def of_token() -> str:
    import jwt

    token = AccessToken()
    token["a"] = 1
    accepted = []
    for key in (OLD, NEW):
        try:
            jwt.decode(str(token), key, algorithms=["HS256"])
        except jwt.InvalidSignatureError:
            continue
        accepted.append(key)
    (found,) = accepted
    return found


def of_pool(alias: str) -> Any:
    """Return the password with which the pool would connect next."""
    pool = connections[alias].pool
    used: list[Any] = []

    def connect(conninfo: str = "", **kwargs: Any) -> Any:
        used.append(kwargs["password"])
        raise ConnectionError

    import psycopg

    original, psycopg.Connection.connect = psycopg.Connection.connect, connect
    try:
        pool.connection_class.connect(**pool.kwargs)
    except ConnectionError:
        pass
    finally:
        psycopg.Connection.connect = original
    return used[0]


def of_redis(alias: str) -> Any:
    kwargs = caches[alias]._cache.get_client().connection_pool.connection_kwargs
    if "credential_provider" in kwargs:
        return kwargs["credential_provider"].get_credentials()[0]
    return kwargs["password"]


def of_django_redis() -> Any:
    pool = caches["django-redis"].client.get_client().connection_pool
    return pool.connection_kwargs["password"]


def of_google() -> Any:
    strategy = load_strategy()
    return load_backend(strategy, "google-oauth2", None).get_key_and_secret()[1]


READERS: dict[str, Callable[[], Any]] = {
    "a live setting": lambda: settings.STRIPE_KEY,
    "signing: sessions, cookies": lambda: signing.get_cookie_signer().key.split(b"cookies")[-1],
    "password reset tokens": of_reset_token,
    "session hashes": of_session_hash,
    "a `Signer` that is kept": lambda: kept.key,
    "e-mail": lambda: mail.get_connection("django.core.mail.backends.smtp.EmailBackend").password,
    "anymail": lambda: Mailgun().api_key,
    "allauth": lambda: get_adapter().get_app(RequestFactory().get("/"), "google").secret,
    "social-auth": of_google,
    "Django's engines, without a pool": lambda: connections["plain"].get_connection_params()[
        "password"
    ],
    "Django's engines, with a pool": lambda: of_pool("pooled"),
    "Django's Redis cache": lambda: of_redis("default"),
    "Django's Redis cache with `RedisCredentials`": lambda: of_redis("credentials"),
    "Django's locmem cache": lambda: caches["memory"].key_prefix,
    "django-redis": of_django_redis,
    "django-storages: S3, by OPTIONS": lambda: storages["default"].secret_key,
    "django-storages: S3, by settings": lambda: storages["by settings"].secret_key,
    "simplejwt": of_token,
    "django-oauth-toolkit": lambda: oauth2_settings.OIDC_RSA_PRIVATE_KEY,
    "channels-redis": lambda: channel_layers["default"].hosts[0]["address"],
    "Celery's broker: a worker that connects": lambda: celery.connection_for_read().password,
    "Celery's broker: tasks that are sent": lambda: (
        celery.amqp.producer_pool.connections.connection.password
    ),
    "Celery's result backend": lambda: celery.backend.connparams["password"],
    "`StripeClient`": lambda: stripe.StripeClient(settings.STRIPE_KEY)._requestor.api_key,
    "`stripe.api_key`": lambda: stripe.api_key,
    "dj-stripe": lambda: djstripe_settings.STRIPE_SECRET_KEY,
}


def look() -> dict[str, str]:
    found = {}
    for name, read in READERS.items():
        text = str(read())
        found[name] = "old" if OLD in text else "new" if NEW in text else "neither"
    return found


def on_rotation(**kwargs: Any) -> None:
    if HELPED:
        stripe.api_key = settings.STRIPE_KEY
    told.set()


if not HELPED:
    from django_secret_registry import rebinding

    rebinding.rebind = lambda event: None

before = look()
told = threading.Event()
secret_rotated.connect(on_rotation)
store.put("value", NEW)
registry.refresh("vault://value")
told.wait(20)
sys.stdout.write(json.dumps({"before": before, "after": look()}) + "\n")
