"""An app that reads the settings through django-stubs' plugin: it needs to know of no secret."""

from __future__ import annotations

import re
from typing import Any, assert_type

from django.conf import settings

from django_secret_registry.lazy import SecretSetting


def reads_text() -> None:
    text: str = settings.STRIPE_KEY
    re.compile(settings.STRIPE_KEY)
    text += settings.SECRET_KEY.upper() + ",".join(settings.SECRET_KEY_FALLBACKS)
    headers: dict[str, str] = {"Authorization": f"Bearer {settings.STRIPE_KEY}"}
    headers["X-Key"] = settings.ENVIRONMENT_KEY
    assert_type(settings.STRIPE_KEY, SecretSetting)
    assert_type(settings.ANNOTATED_KEY, str)
    assert_type(settings.STRIPE_KEY.upper(), str)
    assert_type(settings.BROKER_URL, SecretSetting)
    assert_type(settings.CACHES, dict[str, dict[str, str]])


def reads_what_may_be_missing() -> None:
    assert_type(settings.OPTIONAL_KEY, SecretSetting | None)
    if settings.OPTIONAL_KEY:
        assert_type(settings.OPTIONAL_KEY, SecretSetting)
    settings.OPTIONAL_KEY.upper()  # type: ignore[union-attr]  # it may be None: an error is right


def reads_other_types() -> None:
    assert_type(settings.PORT, int)
    assert_type(settings.SMTP, dict[Any, Any])
    assert_type(settings.SIGNING_KEY, bytes)
    settings.STRIPE_KEY + 1  # type: ignore[operator]  # it is text
    settings.STRIPE_KEY.reference  # type: ignore[attr-defined]  # readers meet no marker
