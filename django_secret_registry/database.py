"""``database_config``: a ``DATABASES`` entry from the JSON that Amazon RDS keeps of a database.

::

    from django_secret_registry.database import database_config

    DATABASES = {"default": database_config("aws://prod/rds", engine="postgres")}
    DATABASES = {"default": database_config("aws://prod/rds", engine="mysql",
                                            HOST="db.internal", NAME="app", CONN_MAX_AGE=60)}
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from django.core.exceptions import ImproperlyConfigured

from .exceptions import SecretNotFound
from .extract import pick
from .lazy import LazySecret

#: Engines by what RDS and Aurora write into ``engine``.
ENGINES = {
    "postgres": "django_secret_registry.db.backends.postgresql",
    "postgresql": "django_secret_registry.db.backends.postgresql",
    "aurora-postgresql": "django_secret_registry.db.backends.postgresql",
    "mysql": "django_secret_registry.db.backends.mysql",
    "mariadb": "django_secret_registry.db.backends.mysql",
    "aurora-mysql": "django_secret_registry.db.backends.mysql",
}

#: Settings of Django by what the secret calls them.
_FIELDS = {
    "USER": "username",
    "PASSWORD": "password",
    "HOST": "host",
    "PORT": "port",
    "NAME": "dbname",
}


def database_config(reference: str, *, engine: str = "", **overrides: Any) -> dict[str, Any]:
    """Return a ``DATABASES`` entry whose fields are those of the secret ``reference``, live.

    The secret is a JSON object with ``username``, ``password``, ``host``, ``port`` and ``dbname``,
    or an entry with a ``MAP`` of these. ``overrides`` are settings of Django by their own names
    (``HOST``, ``OPTIONS``, …): they add to what the secret has and win over it. A secret that RDS
    manages has user and password only: give ``HOST`` and ``NAME`` then. Without a ``port`` the
    database's own default is used.

    ``engine`` is one of :data:`ENGINES`, or ``ENGINE`` the path of an engine. It must be given:
    the ``engine`` of the secret is not looked at, since Django reads ``ENGINE`` in every command,
    also where no secret can be had. No I/O; ``ImproperlyConfigured`` for what is missing or wrong.
    """
    path = overrides.pop("ENGINE", "") or ENGINES.get(engine, "")
    wrong = [name for name in overrides if name != name.upper()]
    if wrong:
        raise ImproperlyConfigured(
            f"database_config takes settings of Django, not {', '.join(map(repr, wrong))}: "
            "write HOST, PORT, NAME, …"
        )
    if not path:
        raise ImproperlyConfigured(
            "database_config needs the engine, which is not fetched: write"
            f" engine= with one of {', '.join(ENGINES)}, or ENGINE= with the path of another one."
        )
    marker = LazySecret(reference)
    fields = {name: marker.map(_Field(name, key)) for name, key in _FIELDS.items()}
    return {"ENGINE": path, **fields, **overrides}


@dataclasses.dataclass(frozen=True)
class _Field:
    """Picks one setting out of the secret; a class, because settings are pickled by tests."""

    name: str
    key: str

    def __call__(self, value: Any) -> Any:
        missing = ""
        try:
            if not isinstance(value, Mapping):
                return pick(value if isinstance(value, str) else value.decode(), self.key)
            if self.key in value:
                return value[self.key]
            missing = f"the entry has no {self.key!r}"
        except SecretNotFound as error:
            missing = error.message
        if self.name == "PORT":
            return ""
        raise SecretNotFound(missing, hint=f"Write database_config(..., {self.name}=...).")
