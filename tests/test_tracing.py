"""Spans of fetches, by OpenTelemetry's own SDK."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from django_secret_registry import SecretRegistry
from django_secret_registry.exceptions import AccessDenied, ProviderUnavailable, SecretError
from django_secret_registry.provider_cache import ProviderSpec
from tests.canary import canary
from tests.scripted import Gate, HandClock, Script, alias, at_once, config, make, until

WHY = "needs opentelemetry-sdk: pip install opentelemetry-sdk"
pytest.importorskip("opentelemetry.sdk", reason=WHY)

from opentelemetry import trace  # noqa: E402
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider  # noqa: E402
from opentelemetry.sdk.trace.export import SimpleSpanProcessor  # noqa: E402
from opentelemetry.sdk.trace.export.in_memory_span_exporter import (  # noqa: E402
    InMemorySpanExporter,
)

from django_secret_registry.events import Fetched, FetchStarted, FetchSubmitted  # noqa: E402
from django_secret_registry.tracing import Tracing  # noqa: E402


class Recorder:
    """A tracer provider of the test's own, and what it has recorded."""

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        provider = TracerProvider(shutdown_on_exit=False)
        provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.tracer = provider.get_tracer("test")
        self.tracing = Tracing(self.tracer)

    def registry(self, *specs: ProviderSpec, **fields: Any) -> SecretRegistry:
        registry = make(*specs, **fields)
        registry.events.subscribe(self.tracing.listen)
        return registry

    def spans(self, name: str, count: int = 1) -> Sequence[ReadableSpan]:
        """Return the spans of this name; whoever is served does not wait for them to end."""
        until(lambda: len(self._named(name)) >= count)
        return self._named(name)

    def _named(self, name: str) -> list[ReadableSpan]:
        return [span for span in self.exporter.get_finished_spans() if span.name == name]


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


def ids(span: ReadableSpan) -> tuple[int, int]:
    found = span.get_span_context()
    assert found is not None
    return found.trace_id, found.span_id


def parent(span: ReadableSpan) -> tuple[int, int] | None:
    return None if span.parent is None else (span.parent.trace_id, span.parent.span_id)


def test_a_fetch_is_a_span_of_who_asked(recorder):
    """The call is a child of the reader's span, though another thread makes it; hits: none."""
    script = Script({"db": canary("traced")})
    registry = recorder.registry(alias("aws", script, region="eu-west-1"))
    with recorder.tracer.start_as_current_span("request") as request:
        registry.get("aws://db?version=3")
        registry.get("aws://db?version=3")
    (span,) = recorder.spans("fetch aws")
    assert parent(span) == ids(request)
    assert span.kind is trace.SpanKind.CLIENT
    assert span.attributes == {
        "secret_registry.provider": "aws",
        "secret_registry.region": "eu-west-1",
        "secret_registry.references": ("aws://db?version=3",),
        "secret_registry.outcomes": ("ok",),
    }
    assert span.status.is_unset
    assert canary("") not in span.to_json()


def test_without_a_span_of_the_reader(recorder):
    """A fetch that nobody traces is a trace of its own; no region is no attribute."""
    recorder.registry(alias("a", Script({"s": canary()}))).get("a://s")
    (span,) = recorder.spans("fetch a")
    assert parent(span) is None
    assert span.attributes is not None
    assert "secret_registry.region" not in span.attributes


def test_what_the_provider_does_is_inside(recorder):
    """The span is the current one while the provider works, and the thread is left as it was."""
    current = []

    def answer(ref):
        with recorder.tracer.start_as_current_span("GET"):
            return canary("inner")

    script = Script({"s": answer, "t": lambda ref: current.append(trace.get_current_span()) or "x"})
    registry = recorder.registry(alias("a", script))
    registry.get("a://s")
    (get,), (fetch,) = recorder.spans("GET"), recorder.spans("fetch a")
    assert parent(get) == ids(fetch)
    registry.get("a://t")
    second = recorder.spans("fetch a", 2)[1]
    assert ids(second) == (
        current[0].get_span_context().trace_id,
        current[0].get_span_context().span_id,
    )
    assert parent(second) is None, "of the first fetch, nothing is left in the pool's thread"


@pytest.mark.parametrize(
    ("answer", "outcome", "error"),
    [
        (None, "not_found", None),
        (AccessDenied("no"), "denied", "denied"),
        (ProviderUnavailable("no"), "unavailable", "unavailable"),
        (RuntimeError(canary("in an error")), "error", "error"),
    ],
)
def test_failures(recorder, answer, outcome, error):
    """A failure has its outcome and ``error.type``; that a secret is not there is no failure."""
    registry = recorder.registry(alias("a", Script({"s": answer})))
    with pytest.raises(SecretError):
        registry.get("a://s")
    (span,) = recorder.spans("fetch a")
    assert span.attributes is not None
    assert span.attributes["secret_registry.outcomes"] == (outcome,)
    assert span.attributes.get("error.type") == error
    assert span.status.is_ok is (error is None)
    assert canary("") not in span.to_json()


def test_one_call_is_one_span(recorder):
    """A batch is one span that names each reference, and their outcomes in the same order."""
    script = Script({"a": canary("a"), "b": AccessDenied("no"), "c": canary("c")})
    registry = recorder.registry(alias("b", script, kind="BatchProvider"))
    registry.warm(["b://a", "b://b", "b://c"])
    (span,) = recorder.spans("fetch b")
    assert span.attributes is not None
    assert span.attributes["secret_registry.references"] == ("b://a", "b://b", "b://c")
    assert span.attributes["secret_registry.outcomes"] == ("ok", "denied", "ok")
    assert span.status.description == "1 of 3 failed"


def test_many_readers_of_one_secret(recorder):
    """One call serves many readers, and is a child of one of them."""
    gate = Gate()
    script = Script({"s": lambda ref: gate.stop() or canary()})
    registry = recorder.registry(alias("a", script))
    requests = []

    def read():
        with recorder.tracer.start_as_current_span("request") as span:
            requests.append(ids(span))
            if len(requests) == 8:
                gate.open()
            return registry.get("a://s")

    at_once(read, 8)
    (span,) = recorder.spans("fetch a")
    assert parent(span) in requests


def test_a_build(recorder):
    """A client that is built has a span of its own, inside the fetch; a shared one has none."""
    registry = recorder.registry(alias("a", Script({"s": canary(), "t": canary()})))
    registry.get("a://s")
    registry.get("a://t")
    first, _ = recorder.spans("fetch a", 2)
    (build,) = recorder.spans("build a")
    assert parent(build) == ids(first)
    assert build.kind is trace.SpanKind.INTERNAL


def test_a_chain(recorder):
    """Who is asked for a chain has a span inside the chain's own."""
    script = Script({"s": canary()})
    chain = ProviderSpec(
        "both",
        "django_secret_registry.providers.chain.ChainProvider",
        options={"aliases": ["first", "second"]},
    )
    registry = recorder.registry(alias("first", Script()), alias("second", script), chain)
    registry.get("both://s")
    (own,) = recorder.spans("fetch both")
    (first,), (second,) = recorder.spans("fetch first"), recorder.spans("fetch second")
    assert parent(first) == parent(second) == ids(own)
    assert first.attributes is not None
    assert first.attributes["secret_registry.outcomes"] == ("not_found",)
    assert first.start_time is not None
    assert first.end_time is not None
    assert first.start_time <= first.end_time


def test_what_is_given_up_is_no_span(recorder):
    """A call that nobody waits for any more when its turn comes is made by nobody, nor traced."""
    recorder.tracing.listen(FetchSubmitted("a", "", 1))
    recorder.tracing.listen(FetchStarted("a", "", (), 1))
    assert recorder.exporter.get_finished_spans() == ()


def test_a_call_without_an_end(recorder):
    """A call whose end was never told ends with the next one, and is not the parent of that."""
    recorder.tracing.listen(FetchStarted("a", "", ("a://x", "a://y"), 1))
    recorder.tracing.listen(Fetched("a", "", "a://x", "ok", 0.0))
    recorder.tracing.listen(FetchStarted("a", "", ("a://z",), 2))
    recorder.tracing.listen(Fetched("a", "", "a://z", "ok", 0.0))
    lost, last = recorder.spans("fetch a", 2)
    assert lost.attributes is not None
    assert lost.attributes["secret_registry.outcomes"] == ("ok", "error")
    assert parent(last) is None
    assert not trace.get_current_span().get_span_context().is_valid


def test_calls_that_never_begin_take_no_room(recorder, monkeypatch):
    """What is remembered of calls until they begin has a bound."""
    monkeypatch.setattr("django_secret_registry.tracing._MAX_SUBMITTED", 3)
    with recorder.tracer.start_as_current_span("request"):
        for call in range(10):
            recorder.tracing.listen(FetchSubmitted("a", "", call))
    assert [key[2] for key in recorder.tracing._submitted] == [7, 8, 9]


def test_a_registry_that_is_configured_anew(recorder):
    """Calls of another configuration are numbered from the start again, and traced as well."""
    clock, script = HandClock(), Script({"s": canary()})
    registry = recorder.registry(alias("a", script), clock=clock)
    registry.get("a://s")
    registry.configure(config(alias("a", script)))
    registry.get("a://s")
    assert len(recorder.spans("fetch a", 2)) == 2


PROJECT = """
    import sys
    import time
    import django
    from django.conf import settings
    from django_secret_registry import registry, secret

    settings.configure(
        INSTALLED_APPS=["django_secret_registry"],
        SECRET_REGISTRY={"PROVIDERS": {"env": {
            "BACKEND": "django_secret_registry.providers.env.EnvProvider"}}},
        KEY=secret("env://TRACED"),
    )
    django.setup()
"""


def run(code: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(PROJECT) + textwrap.dedent(code)],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[1],
        env={**os.environ, "TRACED": canary("traced")},
    )
    assert canary("") not in done.stdout + done.stderr
    return done.stdout.split()


@pytest.mark.full
def test_a_project_without_opentelemetry():
    """Where the project imports no OpenTelemetry, nothing of it is imported: installed or not."""
    shown = run("""
        settings.KEY
        print([name for name in sys.modules if name.startswith("opentelemetry")])
        print("django_secret_registry.tracing" in sys.modules)
    """)
    assert shown == ["[]", "False"]


@pytest.mark.full
def test_a_project_with_opentelemetry():
    """Where it does, at any time, its own tracer provider gets the spans of live settings."""
    shown = run("""
        from opentelemetry import trace
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import SimpleSpanProcessor
        from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

        settings.KEY
        registry.evict(all=True)
        exporter = InMemorySpanExporter()
        trace.set_tracer_provider(TracerProvider())
        trace.get_tracer_provider().add_span_processor(SimpleSpanProcessor(exporter))
        with trace.get_tracer("shop").start_as_current_span("request"):
            settings.KEY
        deadline = time.monotonic() + 20
        while len(exporter.get_finished_spans()) < 3 and time.monotonic() < deadline:
            time.sleep(0.01)
        for span in exporter.get_finished_spans():
            print(span.instrumentation_scope.name, span.name.replace(" ", "-"))
    """)
    assert sorted(zip(shown[::2], shown[1::2], strict=True)) == [
        ("django_secret_registry", "build-env"),
        ("django_secret_registry", "fetch-env"),
        ("shop", "request"),
    ]
