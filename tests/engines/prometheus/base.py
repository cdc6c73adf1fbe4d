"""django-prometheus' engine for PostgreSQL, with the mixin."""

from django_prometheus.db.backends.postgresql import base

from django_secret_registry.db.mixin import RotatingCredentials


class DatabaseWrapper(RotatingCredentials, base.DatabaseWrapper):
    pass
