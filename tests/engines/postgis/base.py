"""PostGIS, with the mixin."""

from django.contrib.gis.db.backends.postgis import base

from django_secret_registry.db.mixin import RotatingCredentials


class DatabaseWrapper(RotatingCredentials, base.DatabaseWrapper):
    pass
