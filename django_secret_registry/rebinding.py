"""Rebinding: what keeps a copy of a secret is made anew when the secret rotates.

Django's caches and storages are, without being asked. The setting ``REBIND`` names the rest: a
setting, whose readers are told by ``setting_changed`` as a test tells them; or a function (or the
path of one), which is called after every rotation with the arguments of ``secret_rotated``.

Nothing is taken from those who work with it: a request in flight finishes with the connection that
it has.
"""

from __future__ import annotations

import importlib
import logging
import sys
from collections.abc import Callable, Iterator
from typing import Any

from asgiref.local import Local
from django.conf import settings
from django.core.cache import caches
from django.core.signals import setting_changed
from django.utils.module_loading import import_string

from . import registry
from .containers import raw
from .discovery import markers, raw_setting
from .events import Rotated
from .logs import about
from .signals import secret_rotated

logger = logging.getLogger("django_secret_registry.rebinding")

#: What a library needs besides ``setting_changed``, by the name of its setting.
COMPLETIONS = {"SIMPLE_JWT": "django_secret_registry.rebinding.rebind_simplejwt"}


def rebind(event: Rotated) -> None:
    """Rebind what holds a copy of the secret that has rotated; never raises."""

    def holds(value: Any) -> bool:
        return any(registry.reads(marker.key, event) for marker in markers(value))

    extra = about(reference=event.reference, provider=event.provider, region=event.region)
    for what, action in (*_own(holds), *_named(holds), *_called(event)):
        try:
            action()
        except Exception as exc:
            # The type only: whoever reads the new value may have it in its message.
            logger.error("Rebinding %s failed with %s", what, type(exc).__name__, extra=extra)
        else:
            logger.info("Rebound %s, as %s has rotated", what, event.reference, extra=extra)


def copied(setting: str) -> bool:
    """Return whether a copy of a secret in this setting may be kept by who is told of rotations."""
    rebind = registry.config.rebind
    if secret_rotated.has_listeners() or any(callable(one) or "." in one for one in rebind):
        return True  # they may keep anything
    return setting in ("CACHES", "STORAGES", *rebind) or setting.startswith(_PREFIXES)


Action = tuple[str, Callable[[], object]]
Holds = Callable[[Any], bool]


# -- Django's own --------------------------------------------------------------------------------


def _own(holds: Holds) -> Iterator[Action]:
    if any(holds(config) for config in _configs("CACHES").values()):
        yield "the caches", rebind_caches
    by_setting = any(holds(raw_setting(name)) for name in _names() if name.startswith(_PREFIXES))
    for alias, config in _configs("STORAGES").items():
        if holds(config) or (by_setting and _reads_settings(config)):
            yield f"the storage {alias!r}", _Storage(alias)


def _configs(name: str) -> dict[str, Any]:
    value = raw(raw_setting(name, {}))
    return value if isinstance(value, dict) else {}


def _names() -> list[str]:
    return [name for name in dir(settings) if name.isupper()]


#: Top-level settings of django-storages, whose storages read them when they are made.
_PREFIXES = ("AWS_", "AZURE_", "DROPBOX_", "GS_", "SFTP_")


def _reads_settings(config: Any) -> bool:
    return isinstance(config, dict) and str(raw(config).get("BACKEND")).startswith("storages.")


def rebind_caches() -> None:
    """Have every thread make its caches anew when it next asks for one.

    By what Django does when a test overrides ``CACHES``. The connections of the old ones are closed
    when nobody uses them any more.
    """
    django_redis = sys.modules.get("django_redis.pool")
    if django_redis is not None:
        # It keeps pools by their URL, for all caches that are ever made.
        django_redis.ConnectionFactory._pools.clear()
    handler: Any = caches
    handler._connections = Local(handler.thread_critical)


class _Storage:
    """Makes a storage anew that was made already, for all who ask Django for it."""

    def __init__(self, alias: str) -> None:
        self._alias = alias

    def __call__(self) -> None:
        from django.contrib.staticfiles.storage import staticfiles_storage
        from django.core.files.storage import default_storage, storages

        handler: Any = storages
        holders: tuple[Any, ...] = (default_storage, staticfiles_storage)
        before = handler._storages.pop(self._alias, None)
        if before is None:
            return
        new = handler[self._alias]
        for holder in holders:
            # Not emptied: another thread may be about to use what it holds.
            if vars(holder)["_wrapped"] is before:
                holder._wrapped = new


# -- REBIND --------------------------------------------------------------------------------------


def _named(holds: Holds) -> Iterator[Action]:
    for name in registry.config.rebind:
        if isinstance(name, str) and "." not in name and holds(raw_setting(name)):
            yield f"settings.{name}", _Setting(name)


class _Setting:
    """Tells those who listen for the change of a setting."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __call__(self) -> None:
        # Not send_robust, which logs what receivers raise, with the value that may be in it.
        setting_changed.send(
            type(self), setting=self._name, value=getattr(settings, self._name), enter=True
        )
        if self._name in COMPLETIONS:
            import_string(COMPLETIONS[self._name])()


def _called(event: Rotated) -> Iterator[Action]:
    for target in registry.config.rebind:
        if callable(target) or "." in target:
            yield f"by {target}", _Call(target, event)


class _Call:
    def __init__(self, target: str | Callable[..., Any], event: Rotated) -> None:
        self._target, self._event = target, event

    def __call__(self) -> None:
        target = import_string(self._target) if isinstance(self._target, str) else self._target
        target(**self._event._asdict())


def rebind_simplejwt() -> None:
    """Give simplejwt a token backend with the current keys: it makes one when it is imported."""
    fresh: Any = importlib.import_module("rest_framework_simplejwt.settings").api_settings
    state: Any = importlib.import_module("rest_framework_simplejwt.state")
    state.token_backend = type(state.token_backend)(
        fresh.ALGORITHM,
        fresh.SIGNING_KEY,
        fresh.VERIFYING_KEY,
        fresh.AUDIENCE,
        fresh.ISSUER,
        fresh.JWK_URL,
        fresh.LEEWAY,
        fresh.JSON_ENCODER,
    )
