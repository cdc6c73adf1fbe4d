"""Checks of a deployment, which are run on demand.

``check --deploy``: secrets whose readers keep a copy that does not follow a rotation. What is said
here was seen with the packages themselves; see ``docs/rotation.md``.

``check --database``, the one that may ask servers: whether the engine of ``FLEET`` can be a bus.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from django.core import checks
from django.utils.module_loading import import_string

from . import registry
from .checks import message
from .conf import Id, Mistake, place
from .containers import raw
from .db.mixin import RotatingCredentials
from .discovery import markers, raw_setting
from .exceptions import SecretError
from .fleet.bus import BusDenied, BusUnavailable
from .providers.base import Problem

#: Settings that are read once, and whose readers listen to ``setting_changed``.
LISTENING = {
    "CHANNEL_LAYERS": "channels",
    "OAUTH2_PROVIDER": "django-oauth-toolkit",
    "SIMPLE_JWT": "simplejwt",
}
#: Settings that are read once by a reader who has to be reset by a function.
DEAF = {
    "BROKER_URL": "Celery's pool for sending tasks",
    "CELERY_BROKER_URL": "Celery's pool for sending tasks",
    "CELERY_RESULT_BACKEND": "Celery's result backend",
    "RESULT_BACKEND": "Celery's result backend",
}


def check_rotation(**kwargs: Any) -> list[checks.CheckMessage]:
    """Return what would go on with the old secret after a rotation."""
    return [message(mistake) for mistake in (*_settings(), *_pools(), *_secret_key())]


def _settings() -> Iterator[Mistake]:
    rebind = registry.config.rebind
    functions = [target for target in rebind if callable(target) or "." in target]
    for name, reader in LISTENING.items():
        if name not in rebind and not functions and markers(raw_setting(name)):
            hint = f'Write "REBIND": [{name!r}] into SECRET_REGISTRY.'
            yield _copied(f"settings.{name}", reader, hint)
    for name, reader in DEAF.items():
        if not functions and markers(raw_setting(name)):
            hint = f"Reset it in a function, and name that in {place('REBIND')}."
            yield _copied(f"settings.{name}", reader, hint)


def _copied(about: str, reader: str, hint: str) -> Mistake:
    message = f"holds a secret that {reader} reads once: it keeps the old one after a rotation"
    return Mistake(Id.COPIED, about, message, hint)


def _pools() -> Iterator[Mistake]:
    databases = raw(raw_setting("DATABASES", {}))
    for alias, database in databases.items() if isinstance(databases, dict) else ():
        config = raw(database)
        pooled = isinstance(config, dict) and (raw(config.get("OPTIONS")) or {}).get("pool")
        if pooled and markers(config) and not _rotates(config.get("ENGINE")):
            hint = (
                'Use "django_secret_registry.db.backends.postgresql", or put RotatingCredentials'
                " before the engine's own class."
            )
            yield _copied(f"settings.DATABASES[{alias!r}]", "Django's connection pool", hint)


def _rotates(engine: object) -> bool:
    try:
        found = import_string(f"{engine}.base.DatabaseWrapper")
    except Exception:  # Django says what is wrong with an engine
        return True
    return isinstance(found, type) and issubclass(found, RotatingCredentials)


def _secret_key() -> Iterator[Mistake]:
    if markers(raw_setting("SECRET_KEY")) and not markers(raw_setting("SECRET_KEY_FALLBACKS")):
        message = "is a secret without fallbacks: all sessions end when it rotates"
        hint = "Add secret(...) with stage=pending and stage=previous to SECRET_KEY_FALLBACKS."
        yield Mistake(Id.NO_FALLBACK, "settings.SECRET_KEY", message, hint)


def check_bus(
    *, databases: Sequence[str] | None = None, **kwargs: Any
) -> list[checks.CheckMessage]:
    """Return why the engine of ``FLEET`` cannot carry the bus, if one can tell.

    Without ``databases`` nothing is asked; nor is a bus in a database that is not among them. An
    engine that cannot be reached from here may be reached from where the workers run.
    """
    fleet = registry.fleet
    if databases is None or fleet is None:
        return []
    try:
        problems = fleet.probe(databases)
    except BusUnavailable as error:
        told = isinstance(error, BusDenied) or error.hint
        problems = [Problem(error.message, error.hint)] if told else []
    except SecretError:  # it cannot be made, or its secret not be read: other checks say so
        return []
    about = place("FLEET")
    return [
        message(Mistake(Id.BUS, about, f"cannot do all that it is for: {one.message}", one.hint))
        for one in problems
    ]
