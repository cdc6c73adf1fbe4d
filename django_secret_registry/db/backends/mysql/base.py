"""Django's engine for MySQL and MariaDB, with credentials that rotate."""

from __future__ import annotations

from django.db.backends.mysql import base

from ...mixin import RotatingCredentials


class DatabaseWrapper(RotatingCredentials, base.DatabaseWrapper):
    """``"ENGINE": "django_secret_registry.db.backends.mysql"``."""
