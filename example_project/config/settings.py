"""A shop whose secrets are files in ``secrets/``: it runs without an account anywhere.

``settings_aws``, ``settings_gcp`` and so on are the same shop with its secrets elsewhere; only the
provider behind the alias ``store`` differs, and where the version before the last rotation is. The
names of the secrets are such as every secret manager takes.
"""

from __future__ import annotations

from pathlib import Path

from django_secret_registry import secret
from django_secret_registry.environ import Env

BASE_DIR = Path(__file__).resolve().parent.parent

env = Env()
DEBUG = env.bool("SHOP_DEBUG", default=True)

SECRET_REGISTRY = {
    "PROVIDERS": {
        "store": {
            "BACKEND": "django_secret_registry.providers.file.FileProvider",
            "OPTIONS": {"path": env.str("SHOP_SECRETS", default=str(BASE_DIR / "secrets"))},
        },
    },
    "SECRETS": {
        "maps_key": {"REF": "store://shop-maps#browser_key", "TEMPLATES": True},
        "stripe": "store://shop-stripe#api_key",
    },
    "CACHE": {"TTL": env.float("SHOP_SECRET_TTL", default=300.0)},
}

if env.bool("SHOP_FLEET", default=False):
    # The shop has a database anyway: it joins the workers. On SQLite it is polled.
    SECRET_REGISTRY["FLEET"] = {"BACKEND": "django_secret_registry.fleet.database.DatabaseBus"}

SECRET_KEY = secret("store://shop-django#secret_key")
SECRET_KEY_FALLBACKS = [secret("store://shop-django-previous#secret_key", default=None)]
STRIPE_KEY = secret("stripe")
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": env.str("SHOP_DATABASE", default=str(BASE_DIR / "db.sqlite3")),
        # SQLite ignores these two; any other engine reads them at each connect.
        "USER": "shop",
        "PASSWORD": secret("store://shop-db#password"),
    }
}

INSTALLED_APPS = [
    "django_secret_registry",
    "shop",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.messages",
    "django.contrib.sessions",
    "django.contrib.staticfiles",
]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    }
]
ROOT_URLCONF = "config.urls"
WSGI_APPLICATION = "config.wsgi.application"
ALLOWED_HOSTS = ["127.0.0.1", "localhost"]
# The basket lies in a cookie that SECRET_KEY signs, and outlives a rotation of that key.
SESSION_ENGINE = "django.contrib.sessions.backends.signed_cookies"
STATIC_URL = "static/"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
USE_TZ = True
