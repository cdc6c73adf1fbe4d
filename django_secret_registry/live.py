"""Live settings: ``django.conf.settings`` that hand out the current value of a secret.

:func:`install` makes it so, once and without I/O; ``django_secret_registry.apps`` calls it when it
is imported. Settings themselves keep the markers: what reads them past ``django.conf.settings``
(``diffsettings``, say) sees references.
"""

from __future__ import annotations

import contextlib
import functools
import sys
import threading
import time
import weakref
from collections.abc import Iterator
from typing import Any

from django.conf import LazySettings, Settings, UserSettingsHolder, settings
from django.core.exceptions import ImproperlyConfigured
from django.core.signals import setting_changed

from . import startup
from .containers import LiveDict, LiveList, raw
from .conversion import Known, make_live
from .discovery import Flaw, Found, flaws, markers, optional, raw_setting, references, references_in
from .exceptions import ProviderError
from .lazy import LazySecret, PutBack, resolve, secret
from .resolver import registry

__all__ = [
    "Flaw",
    "Found",
    "LazySecret",
    "LiveDict",
    "LiveList",
    "convert",
    "flaws",
    "install",
    "markers",
    "raw",
    "raw_setting",
    "references",
    "secret",
]

#: Django's classes that give way to ours where a project has not chosen others.
_DEFAULTS = {
    "django.views.debug.ExceptionReporter": "django_secret_registry.debug.ExceptionReporter",
    "django.views.debug.SafeExceptionReporterFilter": (
        "django_secret_registry.debug.ExceptionReporterFilter"
    ),
}

_settings: Any = settings  # with what Django keeps to itself
#: Where Django keeps settings that were read, as they stand; it forgets them when they change.
_cached: dict[str, Any] = vars(settings)
_lock = threading.RLock()
_converted: weakref.WeakSet[Any] = weakref.WeakSet()
#: What was written over settings that were markers, in case that it is put back.
_put_back = PutBack()
#: Settings that Django changes when it reads them.
_ADAPTED = ("MEDIA_URL", "SECRET_KEY", "STATIC_URL")

_get_attribute = object.__getattribute__


class LiveSettings(LazySettings):
    """The class of ``django.conf.settings`` once :func:`install` has run.

    Only reads are different: whatever changes settings makes Django forget what it has cached, and
    the next read takes in what is new. A receiver of ``setting_changed`` alone would be too late
    for those who read before it and keep what they got.
    """

    # Django looks for its own translations beside the module that the settings' class names.
    __module__ = LazySettings.__module__

    def __getattribute__(self, name: str) -> Any:
        marker = _cached.get(name)
        if type(marker) is LazySecret:
            slot, now = registry.slots.get(marker.key), registry.clock()
            if slot is not None and now < slot.until and now < registry.serves_until:
                slot.hits += 1
                return slot.value
            return _value(marker)
        # From here on as in LazyObject, whose own method is not called: that would cost every
        # setting of the project a tenth of its time.
        try:
            value = _get_attribute(self, name)
        except AttributeError:
            if not name.isupper():
                raise
            value = _read(name)
        if type(value) is LazySecret:
            return _value(value)
        if not getattr(value, "_mask_wrapped", True):
            raise AttributeError(name)
        return value

    @property
    def DEFAULT_EXCEPTION_REPORTER(self) -> str:  # noqa: N802
        """The project's reporter; ours where that is Django's default one."""
        chosen: str = _settings._wrapped.DEFAULT_EXCEPTION_REPORTER
        return _DEFAULTS.get(chosen, chosen)

    @property
    def DEFAULT_EXCEPTION_REPORTER_FILTER(self) -> str:  # noqa: N802
        """The project's filter; ours where that is Django's default one."""
        chosen: str = _settings._wrapped.DEFAULT_EXCEPTION_REPORTER_FILTER
        return _DEFAULTS.get(chosen, chosen)


def install() -> None:
    """Make ``django.conf.settings`` live. Idempotent, no I/O; loads no settings."""
    if type(settings) is LazySettings:
        # settings.__class__ is that of what it wraps: LazyObject covers the object's own class.
        object.__dict__["__class__"].__set__(settings, LiveSettings)
        registry.set_discovery(references, optional, references_in)
        setting_changed.connect(_convert_override, dispatch_uid="django_secret_registry.live")
        startup.install()
    elif type(settings) is not LiveSettings:
        raise ImproperlyConfigured(
            "django_secret_registry makes Django's own settings object live, and another library"
            f" has replaced it by a {type(settings).__name__}."
        )
    convert()


def convert() -> None:
    """Make live what was put into the containers of settings since the last time. No I/O."""
    if settings.configured:
        _convert(_settings._wrapped, again=True)


def _convert_override(**kwargs: Any) -> None:
    """Convert what ``override_settings`` brings, for those who do not read it by the settings."""
    if _settings._wrapped not in _converted:
        _convert(_settings._wrapped)


def _convert(holder: Any, *, again: bool = False) -> None:
    known: Known = {}
    with _lock:
        for link in _chain(holder):
            if again or link not in _converted:
                own = isinstance(link, Settings | UserSettingsHolder)
                for name in list(vars(link)) if own else dir(link):
                    if name.isupper():
                        _take_in(link, name, getattr(link, name, None), known)
                with contextlib.suppress(TypeError):  # an object of a kind that cannot be kept
                    _converted.add(link)


def _chain(holder: Any) -> Iterator[Any]:
    """Yield ``holder`` and what it falls back to: overrides lie on top of one another."""
    yield holder
    while isinstance(holder, UserSettingsHolder):
        holder = holder.default_settings
        yield holder


def _take_in(link: Any, name: str, value: Any, known: Known) -> Any:
    live = make_live(value, known)
    if live is not value:
        setattr(link, name, live)
        _cached.pop(name, None)
    return live


def _read(name: str) -> Any:
    """Return a setting that is not cached, as it stands, if it is or was a marker.

    An ``AttributeError`` leaves all others, and those that do not exist, to Django.
    """
    if not settings.configured:
        _settings._setup(name)
    while (holder := _settings._wrapped) is None:
        time.sleep(0)  # another thread replaces the settings, which for an instant are gone
    if holder not in _converted:
        _convert(holder)
    value = getattr(holder, name)
    owner = next((link for link in _chain(holder) if name in vars(link)), holder)
    back = _put_back.stored(name, value)
    if back is not value:
        # Not by setattr, of which Django warns where the setting is deprecated.
        vars(owner)[name] = value = back
    value = _take_in(owner, name, value, {})
    if type(value) is LazySecret:
        marker = value
        if name in _ADAPTED:
            value = _as_django_reads(name, value)
        _put_back.known(name, marker, value)
    elif name not in _put_back or name in _ADAPTED:
        raise AttributeError(name)
    _cached[name] = value
    return value


@functools.cache  # one marker for each, since a value is kept for each marker
def _as_django_reads(name: str, marker: LazySecret) -> LazySecret:
    """Add what ``LazySettings`` does to these settings when it reads them."""
    return marker.map(_not_empty if name == "SECRET_KEY" else _settings._add_script_prefix)


def _not_empty(value: Any) -> Any:
    if not value:
        raise ProviderError("the SECRET_KEY setting must not be empty")
    return value


def _value(marker: LazySecret) -> Any:
    return marker if _is_told_only() else resolve(marker)


def _is_told_only() -> bool:
    """Whether the reader is the end of ``override_settings``: it reads to tell its receivers.

    It must not fetch: tests override a setting because they have no secret.
    """
    utils = sys.modules.get("django.test.utils")
    if utils is None:
        return False
    frame = startup.reader()
    return frame is not None and frame.f_code is utils.override_settings.disable.__code__
