"""What masking costs: a record of the log, an event for Sentry, an error page."""

from __future__ import annotations

import logging
import secrets
import statistics
import time
from typing import Any

from django.views import debug as django_debug

from django_secret_registry import debug, redaction, registry
from django_secret_registry.needles import Needles

from . import timing

#: How many values are held: by a small project, and the most that there may be by default.
FEW, MANY = 20, 10_000
EVENT = {"exception": {"values": [{"vars": {f"name{n}": f"'value {n}'" for n in range(200)}}]}}


class _Handler(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        self.format(record)


def _record(*filters: logging.Filter) -> timing.Loop:
    handler = _Handler()
    handler.filters = list(filters)
    return timing.loop(
        "handle(Record('x', 20, 'p', 1, text, arguments, None))",
        handle=handler.handle,
        Record=logging.LogRecord,
        text="Sent order %s of %s to https://api.example.com/v1/orders?page=2, %d in %.1f ms",
        arguments=("2026-4711", "ada@example.org", 200, 12.5),
    )


def _page(reporter_class: Any, filter_class: Any) -> float:
    """Return the median of the milliseconds that a page takes."""
    try:
        registry.get("aws://prod/db#nothing")
    except Exception as error:
        reporter = reporter_class(None, type(error), error, error.__traceback__)
    reporter.filter = filter_class()
    samples = []
    for _ in range(timing.ROUNDS):
        began = time.thread_time()
        reporter.get_traceback_html()
        samples.append(time.thread_time() - began)
    return statistics.median(samples) * 1e3


def run() -> dict[str, Any]:
    """Return what each costs without and with us, with few values held and with many."""
    registry.get("aws://prod/db")
    hits = registry._resolver.cache._store.hits
    figures: dict[str, Any] = {
        "page of Django, ms": _page(
            django_debug.ExceptionReporter, django_debug.SafeExceptionReporterFilter
        )
    }
    for count in (FEW, MANY):
        began = time.thread_time()
        hits.needles = needles = Needles()
        for number in range(count):
            needles.put(number, [secrets.token_urlsafe(24)])
        figures[f"index of {count:,} values, ms"] = (time.thread_time() - began) * 1e3
        loops = {
            "record, no filter": _record(),
            "record, filter": _record(redaction.SecretFilter()),
            "event of 200 texts": timing.loop("f(event)", f=redaction.before_send, event=EVENT),
        }
        for name, seconds in timing.compare(loops).items():
            figures[f"{name}, {count:,} held, µs"] = seconds * 1e6
        page = _page(debug.ExceptionReporter, debug.ExceptionReporterFilter)
        figures[f"page of ours, {count:,} held, ms"] = page
    hits.needles = None
    return figures
