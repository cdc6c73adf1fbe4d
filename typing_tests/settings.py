"""Settings of a project, as a type checker sees them; ``project.py`` reads them."""

from __future__ import annotations

from typing import assert_type
from urllib.parse import quote

from django_secret_registry import secret
from django_secret_registry.database import database_config
from django_secret_registry.environ import Env
from django_secret_registry.lazy import SecretSetting

env = Env()

INSTALLED_APPS = ["django_secret_registry"]
USE_TZ = True
SECRET_REGISTRY = {
    "PROVIDERS": {"memory": {"BACKEND": "django_secret_registry.providers.memory.MemoryProvider"}},
    "SECRETS": {"smtp": {"MAP": {"user": "memory://smtp#user"}}},
}


def redis_url(password: str) -> str:
    return f"redis://:{quote(password, safe='')}@redis:6379/0"


def as_port(text: str) -> int:
    return int(text)


SECRET_KEY = secret("memory://django#secret_key")
SECRET_KEY_FALLBACKS = [secret("memory://django?stage=previous#secret_key", default="")]
STRIPE_KEY = secret("memory://stripe")
ANNOTATED_KEY: str = secret("memory://annotated")
OPTIONAL_KEY = secret("memory://optional", default=None)
BROKER_URL = secret("memory://redis").map(redis_url)
DOUBLED_URL = BROKER_URL.map(lambda url: f"{url}?ssl=true")
PORT = secret("memory://port").map(as_port)
SMTP = secret("smtp").map(dict)
SIGNING_KEY = secret("memory://signing?as=bytes").map(bytes)
CACHES = {"default": {"BACKEND": "django.core.cache.backends.redis.RedisCache", "KEY": BROKER_URL}}
DATABASES = {"default": database_config("memory://rds", ENGINE="django.db.backends.sqlite3")}
ENVIRONMENT_KEY = env.secret("STRIPE_KEY", default="sk_test").map(redis_url)

assert_type(secret("memory://x"), SecretSetting)
assert_type(secret("memory://x", default="y"), SecretSetting)
assert_type(secret("memory://x", default=None), SecretSetting | None)
assert_type(secret("memory://x", default=0), SecretSetting | int)
assert_type(secret("memory://x").map(redis_url), SecretSetting)
assert_type(secret("memory://x").map(redis_url).map(as_port), int)
