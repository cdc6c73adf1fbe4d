"""A project whose every credential is a secret."""

import json
from pathlib import Path

from django_secret_registry import secret

HERE = Path(__file__).parent

SECRET_REGISTRY = {
    "PROVIDERS": {
        "vault": {
            "BACKEND": "tests.live_support.EnvironmentProvider",
        },
        # The library of this backend is not there, as in the stage that builds an image.
        "absent": {"BACKEND": "goods.backends.AbsentProvider"},
    },
    "SECRETS": {
        "stripe": "vault://stripe#key",
        "smtp": {"MAP": {"user": "vault://smtp#user", "password": "vault://smtp#password"}},
    },
}

ALLOWED_HOSTS = ["shop.example"]
INSTALLED_APPS = [
    "django_secret_registry",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.messages",
    "django.contrib.sessions",
    "django.contrib.staticfiles",
    "goods",
]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
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
SECURE_HSTS_SECONDS = 3600
SECURE_HSTS_INCLUDE_SUBDOMAINS = SECURE_HSTS_PRELOAD = SECURE_SSL_REDIRECT = True
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = True
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
USE_TZ = True
STATIC_URL = "/static/"
STATIC_ROOT = HERE / "collected"
LOCALE_PATHS = [HERE / "goods" / "locale"]

SECRET_KEY = secret("vault://django#secret_key")
SECRET_KEY_FALLBACKS = [
    secret("vault://django?stage=previous#secret_key", default=None),
    secret("vault://old-key"),
]
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": secret("vault://db#name"),
        "USER": secret("vault://db#user"),
        "PASSWORD": secret("vault://db#password"),
        "HOST": "127.0.0.1",
        "PORT": 1,  # nobody listens there
        "OPTIONS": {"sslpassword": secret("vault://db#sslpassword"), "connect_timeout": 2},
    },
    "reports": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": secret("absent://path").map(Path),
        "PASSWORD": secret("vault://reports"),
    },
}
CACHES = {
    "default": {
        "BACKEND": "django.core.cache.backends.redis.RedisCache",
        "LOCATION": secret("vault://redis").map(lambda value: f"redis://:{value}@127.0.0.1:1/0"),
        "OPTIONS": {"password": secret("vault://redis")},
    },
    "files": {
        "BACKEND": "django.core.cache.backends.filebased.FileBasedCache",
        "LOCATION": secret("vault://files").map(lambda value: f"/var/tmp/{value}"),
    },
}
STORAGES = {
    "default": {
        "BACKEND": "django.core.files.storage.FileSystemStorage",
        "OPTIONS": {"base_url": secret("vault://cdn")},
    },
    "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.ManifestStaticFilesStorage"},
}
STRIPE_KEY = secret("stripe")
SMTP = secret("smtp")
SERVICE_ACCOUNT = secret("absent://account").map(json.loads)
SIGNING_KEY = secret("vault://signing?as=base64")
