"""Django's PostgreSQL engine, with credentials that rotate."""

from __future__ import annotations

from django.db.backends.postgresql import base

from ...mixin import RotatingCredentials


class DatabaseWrapper(RotatingCredentials, base.DatabaseWrapper):
    """``"ENGINE": "django_secret_registry.db.backends.postgresql"``."""
