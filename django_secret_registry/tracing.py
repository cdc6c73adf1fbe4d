"""OpenTelemetry: a span for each call to a backend, and for each client that is built.

Imported once the project has imported OpenTelemetry's API itself (``apps.py``): a project without
it, whatever is installed, has no span and pays nothing. What records spans is the project's matter.

A span names the alias, as in ``fetch aws``; references, regions and outcomes are its attributes. A
reference is no secret, and it is no label of a metric either. No span has a value.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import OrderedDict
from typing import Any, NamedTuple

from opentelemetry import context, trace
from opentelemetry.trace import Span, SpanContext, SpanKind, Status, StatusCode, Tracer

from . import __version__
from .events import Event, Fetched, FetchStarted, FetchSubmitted, ProviderBuilt

#: Calls that were handed to a pool and have not begun.
_MAX_SUBMITTED = 1000

#: Outcomes that are answers: a secret that may be missing is asked for by design.
_ANSWERS = ("ok", "not_found")


class _Call(NamedTuple):
    """A call that is under way in this thread: its span, and the outcomes there are."""

    event: FetchStarted
    span: Span
    token: Any
    outcomes: dict[str, str]


class Tracing:
    """Makes spans of events. Thread-safe.

    A call's span is a child of the span in which it was asked for, though it runs in a thread of a
    pool, and is the current span there: what instruments an SDK's HTTP client adds to it.
    """

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer
        self._submitted: OrderedDict[tuple[str, str, int], SpanContext] = OrderedDict()
        self._thread = threading.local()

    def listen(self, event: Event) -> None:
        """Take one event in."""
        match event:
            case FetchSubmitted():
                self._submit(event)
            case FetchStarted():
                self._start(event)
            case Fetched():
                self._fetched(event)
            case ProviderBuilt() if event.status != "cache_hit":
                self._past("build", event, event.status, event.seconds)

    def _submit(self, event: FetchSubmitted) -> None:
        asking = trace.get_current_span().get_span_context()
        if asking.is_valid:
            self._submitted[event] = asking
            while len(self._submitted) > _MAX_SUBMITTED:
                with contextlib.suppress(KeyError):  # another thread was faster
                    self._submitted.popitem(last=False)

    def _start(self, event: FetchStarted) -> None:
        self._end()  # of one whose end was not told
        where = event.provider, event.region, event.call
        asking = self._submitted.pop(where, None)
        if not event.references:
            return
        parent = context.get_current()
        if asking is not None:
            parent = trace.set_span_in_context(trace.NonRecordingSpan(asking), parent)
        span = self._tracer.start_span(
            f"fetch {event.provider}",
            parent,
            SpanKind.CLIENT,
            {**_where(event), "secret_registry.references": event.references},
        )
        token = context.attach(trace.set_span_in_context(span, parent))
        self._thread.call = _Call(event, span, token, {})

    def _fetched(self, event: Fetched) -> None:
        call: _Call | None = getattr(self._thread, "call", None)
        own = call is not None and event[:2] == call.event[:2]
        if call is None or not own or event.reference not in call.event.references:
            # Of a member of a chain, which is asked in the course of the chain's own call.
            self._past("fetch", event, event.status, event.seconds)
            return
        call.outcomes[event.reference] = event.status
        if len(call.outcomes) == len(call.event.references):
            self._end()

    def _end(self) -> None:
        call: _Call | None = self._thread.__dict__.pop("call", None)
        if call is not None:
            outcomes = [call.outcomes.get(name, "error") for name in call.event.references]
            _judge(call.span, outcomes)
            context.detach(call.token)
            call.span.end()

    def _past(self, verb: str, event: Fetched | ProviderBuilt, status: str, seconds: float) -> None:
        """Add a span of what has just ended, to the span that is current."""
        ended = time.time_ns()
        attributes: dict[str, Any] = _where(event)
        if isinstance(event, Fetched):
            attributes["secret_registry.references"] = (event.reference,)
        span = self._tracer.start_span(
            f"{verb} {event.provider}",
            kind=SpanKind.CLIENT if verb == "fetch" else SpanKind.INTERNAL,
            attributes=attributes,
            start_time=ended - int(seconds * 1e9),
        )
        _judge(span, [status])
        span.end(ended)


def _where(event: FetchStarted | Fetched | ProviderBuilt) -> dict[str, Any]:
    where = {"secret_registry.provider": event.provider}
    return {**where, "secret_registry.region": event.region} if event.region else where


def _judge(span: Span, outcomes: list[str]) -> None:
    span.set_attribute("secret_registry.outcomes", outcomes)
    failed = [outcome for outcome in outcomes if outcome not in _ANSWERS]
    if failed:
        span.set_attribute("error.type", failed[0])
        span.set_status(Status(StatusCode.ERROR, f"{len(failed)} of {len(outcomes)} failed"))


#: Of the tracer provider that the project sets, whenever it does.
tracing = Tracing(trace.get_tracer("django_secret_registry", __version__))
