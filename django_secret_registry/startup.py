"""A secret that cannot be read while the process starts: one line that says what to do.

Somebody builds an image, or runs ``collectstatic`` in CI, and an app reads a setting at import. The
line names the setting, who read it and offline mode; a traceback through this package would not.
"""

from __future__ import annotations

import os
import sys
import threading
import weakref
from pathlib import Path
from types import FrameType, TracebackType

from django import __file__ as django_file
from django.apps import apps
from django.conf import __file__ as conf_file
from django.utils.functional import __file__ as functional_file

from . import lazy
from .discovery import found_in_settings
from .events import Event, Fetched
from .exceptions import SecretError
from .lazy import LazySecret
from .resolver import registry

#: Frames of these files lead from a reader to here: they are not who reads a setting.
_PLUMBING = (
    f"{Path(__file__).parent}{os.sep}",
    f"{Path(conf_file).parent}{os.sep}",
    functional_file,
)

_DJANGO = f"{Path(django_file).parent}{os.sep}"
_SAID, _SAID_AT_START = "cannot be read, as", "cannot be read at start-up, as"
_explained: weakref.WeakSet[SecretError] = weakref.WeakSet()
#: Aliases that have given a secret: they are in reach, and offline mode is not the way out.
_in_reach: set[str] = set()


def reader() -> FrameType | None:
    """Return the frame that reads a setting: the innermost one outside the plumbing."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_code.co_filename.startswith(_PLUMBING):
        frame = frame.f_back
    return frame


def _place(frame: FrameType) -> str:
    """Return where ``frame`` is, and if that is in Django, which app made Django read."""
    place = f"{frame.f_code.co_filename}:{frame.f_lineno} does"
    asking: FrameType | None = frame
    while asking is not None and asking.f_code.co_filename.startswith((_DJANGO, "<frozen")):
        asking = asking.f_back
    # A manage.py asks for the whole command, not for the setting.
    if asking in (None, frame) or asking.f_globals.get("__name__") == "__main__":
        return place
    return f"{place} for {asking.f_code.co_filename}:{asking.f_lineno}"


def explain(error: SecretError, marker: LazySecret) -> None:
    """Have ``error`` name the setting and its reader, if the process has not begun to serve.

    Once Django is set up and the backend has given a secret, neither start-up nor offline mode is
    named: a consumer in the middle of its work must not be told to go on with placeholders. In a
    test that overrides secrets nothing is: no process starts there.
    """
    if registry.overridden:
        return
    frame = reader()
    if registry.started or frame is None or frame.f_code.co_filename == threading.__file__:
        return  # serving; or a pool's thread, whose error is explained where it is waited for
    _explained.add(error)
    if _SAID in error.message or _SAID_AT_START in error.message:
        return  # of another setting, which this one needs
    places = {found.marker: found.where for found in found_in_settings()}
    where = places.get(marker) or next(
        (where for known, where in places.items() if known.reference == marker.reference),
        "a secret in settings",
    )
    starting = not apps.ready or error.provider not in _in_reach
    said = _SAID_AT_START if starting else _SAID
    error.message = f"{where} {said} {_place(frame)}: {error.message}"
    if starting:
        hint = "Set SECRET_REGISTRY_OFFLINE=1 where secrets are out of reach, as in an image build."
        error.hint = f"{error.hint} {hint}".lstrip()


def _listen(event: Event) -> None:
    if isinstance(event, Fetched) and event.status == "ok":
        _in_reach.add(event.provider)


def install() -> None:
    """Have live reads explain their failures, and a process that ends by one show its line only.

    The exit code is 1 as ever. ``--traceback``, Django's own option, brings the traceback back.
    """
    lazy.on_failure = explain
    registry.events.subscribe(_listen)
    if sys.excepthook is not _show:
        global _previous
        _previous, sys.excepthook = sys.excepthook, _show


_previous = sys.excepthook


def _show(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
    if isinstance(error, SecretError) and error in _explained and "--traceback" not in sys.argv:
        # The hook that was there goes on: it may report the error somewhere.
        traceback = error.__traceback__ = error.__cause__ = error.__context__ = None
    _previous(kind, error, traceback)
