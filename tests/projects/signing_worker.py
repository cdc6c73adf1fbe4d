"""A process that signs by SECRET_KEY and checks what others have signed.

It obeys lines of JSON on stdin, and answers each with a line on stdout: ``["sign"]``,
``["check", signed]``, ``["refresh", stage]``. ``SIGNING`` in the environment is JSON: the OPTIONS
of the alias ``aws``.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

import django
from django.conf import settings

from django_secret_registry import registry, secret

REFERENCE = "aws://django{stage}#secret_key"

settings.configure(
    INSTALLED_APPS=[
        "django_secret_registry",
        "django.contrib.auth",
        "django.contrib.contenttypes",
    ],
    USE_TZ=True,
    SECRET_KEY=secret("aws://django#secret_key"),
    SECRET_KEY_FALLBACKS=[
        secret("aws://django?stage=pending#secret_key", default=None),
        secret("aws://django?stage=previous#secret_key", default=None),
    ],
    SECRET_REGISTRY={
        "REGION": "eu-central-1",
        "PROVIDERS": {
            "aws": {
                "BACKEND": "django_secret_registry.providers.aws.SecretsManagerProvider",
                "OPTIONS": json.loads(os.environ["SIGNING"]),
            }
        },
        "CACHE": {"FETCH_TIMEOUT": 30},
    },
)
django.setup()

from django.contrib.auth.models import User  # noqa: E402
from django.contrib.auth.tokens import default_token_generator  # noqa: E402
from django.contrib.sessions.backends.signed_cookies import SessionStore  # noqa: E402
from django.core import signing  # noqa: E402

user = User(pk=1, password="x")


def sign() -> dict[str, str]:
    """Return a session, its login, a signed cookie and a password reset token."""
    session = SessionStore()
    session["a"] = 1
    session.save()
    return {
        "session": str(session.session_key),
        "login": user.get_session_auth_hash(),
        "cookie": signing.get_cookie_signer(salt="c").sign("x"),
        "token": default_token_generator.make_token(user),
    }


def check(signed: dict[str, str]) -> list[str]:
    """Return what is not valid."""
    valid = {
        "session": SessionStore(signed["session"]).load() == {"a": 1},
        "login": signed["login"]
        in (user.get_session_auth_hash(), *user.get_session_auth_fallback_hash()),
        "cookie": _is_valid(signed["cookie"]),
        "token": default_token_generator.check_token(user, signed["token"]),
    }
    return [name for name in valid if not valid[name]]


def _is_valid(cookie: str) -> bool:
    try:
        return bool(signing.get_cookie_signer(salt="c").unsign(cookie) == "x")
    except signing.BadSignature:
        return False


def refresh(stage: str) -> None:
    """Do what happens when the TTL of a stage is over."""
    registry.refresh(REFERENCE.format(stage=f"?stage={stage}" if stage else ""))


COMMANDS: dict[str, Any] = {"sign": sign, "check": check, "refresh": refresh}

for line in sys.stdin:
    name, *arguments = json.loads(line)
    sys.stdout.write(json.dumps(COMMANDS[name](*arguments)) + "\n")
    sys.stdout.flush()
