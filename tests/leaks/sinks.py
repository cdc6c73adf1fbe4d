"""Where a secret may end up: each sink keeps, as text, what arrived there."""

from __future__ import annotations

import contextlib
import copy
import json
import logging
from collections.abc import Iterator
from typing import Any

import sentry_sdk
import sentry_sdk.transport
from django.core import mail
from django.core.cache.backends.locmem import LocMemCache
from django.db.backends.utils import CursorWrapper

from django_secret_registry.redaction import before_send
from tests.canary import is_unwatched

_RAW: list[str] = []
_FILTERED: list[str] = []
_EVENTS: list[str] = []
_STATEMENTS: list[str] = []
#: Loggers of what plays a backend here: they are no part of what is looked at.
_BACKENDS = ("moto", "werkzeug", "tests")


class SharedCache(LocMemCache):
    """Stands for a cache that all processes share; what lies in it is a sink."""

    def texts(self) -> Iterator[str]:
        for key, pickled in self._cache.items():
            yield f"{key}: {pickled.decode('latin-1')}"


class FilteredLog(logging.Handler):
    """The log of a handler with our filter."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            text = logging.Formatter("%(name)s %(message)s").format(record)
        except Exception:
            self.handleError(record)  # which prints it
        else:
            extra = {k: v for k, v in vars(record).items() if k not in ("exc_info", "request")}
            _FILTERED.append(f"{text} {extra!r}")


def _written(record: logging.LogRecord) -> str:
    """Return what formatters may write of a record, and the attributes that they may find."""
    shown = copy.copy(record)
    text = logging.Formatter("%(name)s %(message)s").format(shown)
    return f"{text} {vars(record)!r}"


class Transport(sentry_sdk.transport.Transport):
    """Keeps what would go to Sentry."""

    def capture_envelope(self, envelope: Any) -> None:
        _EVENTS.extend(item.get_bytes().decode() for item in envelope.items)


def watch() -> None:
    """Keep every log record before any filter saw it, and every statement for a database."""
    call = logging.Logger.callHandlers

    def keep_and_call(logger: logging.Logger, record: logging.LogRecord) -> None:
        if not (record.name.startswith(_BACKENDS) or is_unwatched()):
            with contextlib.suppress(TypeError):  # arguments that do not fit
                _RAW.append(_written(record))
            call(logger, record)

    logging.Logger.callHandlers = keep_and_call  # type: ignore[method-assign]
    for name in ("execute", "executemany"):
        run = getattr(CursorWrapper, name)

        def keep_and_run(cursor: Any, sql: str, *params: Any, run: Any = run) -> Any:
            _STATEMENTS.append(f"{sql} {params}")
            return run(cursor, sql, *params)

        setattr(CursorWrapper, name, keep_and_run)


def sentry(*, masked: bool) -> None:
    """Start Sentry with its default options, and with our hook or without it."""
    hooks = {"before_send": before_send, "before_breadcrumb": before_send} if masked else {}
    sentry_sdk.init("http://key@127.0.0.1:9/1", transport=Transport, **hooks)


def arrived() -> dict[str, list[str]]:
    """Return what arrived since the last call, by sink."""
    sentry_sdk.flush()
    taken = {
        "log": _RAW[:],
        "filtered log": _FILTERED[:],
        "Sentry": _EVENTS[:],
        "statements": _STATEMENTS[:],
        "mail": [text for message in mail.outbox for text in _parts(message)]
        if hasattr(mail, "outbox")
        else [],
    }
    for kept in (_RAW, _FILTERED, _EVENTS, _STATEMENTS, getattr(mail, "outbox", [])):
        kept.clear()
    return taken


def logged() -> list[str]:
    """Return what was logged since the last call of :func:`arrived`, before any filter."""
    return list(_RAW)


def _parts(message: Any) -> Iterator[str]:
    yield json.dumps([message.subject, message.to], default=str)
    yield message.body
    yield from (str(content) for content, *_ in message.alternatives)
