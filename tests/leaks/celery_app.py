"""Celery with a broker, a result backend and events in memory, and tasks that use secrets."""

from __future__ import annotations

import base64
import contextlib
from collections.abc import Iterator
from typing import Any

from celery import Celery
from celery.contrib.testing.worker import start_worker
from kombu.transport import virtual

from django_secret_registry import registry
from tests.leaks.site import OURS

app = Celery("leaks", broker="memory://", backend="cache+memory://")
app.conf.update(
    task_send_sent_event=True,
    worker_send_task_events=True,
    worker_hijack_root_logger=False,
    worker_redirect_stdouts=False,
    task_store_errors_even_if_ignored=True,
    broker_connection_retry_on_startup=False,
    broker_transport_options={"polling_interval": 0.005},
)


@app.task(name="use")
def use(reference: str) -> str:
    """Resolve what a reference names, as a task should."""
    return f"{len(registry.get(reference))} characters"


@app.task(name="fail")
def fail(kind: str) -> str:
    """Fail in this package's code, with secrets in the frame."""
    held = [registry.get("vault://text"), registry.get("login")]
    return f"{OURS[kind]()}{held}"


@app.task(name="take")
def take(value: str) -> int:
    """Take a value as an argument, as a task should not."""
    return len(value)


class Traffic:
    """What celery sends and keeps, as text: messages, events, results."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    @contextlib.contextmanager
    def recorded(self) -> Iterator[None]:
        """Record what the broker carries and the backend is given, while a worker runs."""
        put = virtual.Channel.basic_publish
        store = app.backend.set

        def publish(channel: Any, message: Any, *args: Any, **kwargs: Any) -> Any:
            body = message["body"]
            if message.get("properties", {}).get("body_encoding") == "base64":
                body = base64.b64decode(body).decode()
            self.texts.append(f"{body} {message!r}")
            return put(channel, message, *args, **kwargs)

        def keep(key: Any, value: Any, *args: Any, **kwargs: Any) -> Any:
            self.texts.append(f"{key!r} {value!r}")
            return store(key, value, *args, **kwargs)

        virtual.Channel.basic_publish = publish
        app.backend.set = keep
        try:
            with start_worker(app, perform_ping_check=False, pool="solo", loglevel="debug"):
                yield
        finally:
            virtual.Channel.basic_publish = put
            app.backend.set = store


def run(task: Any, *args: Any) -> tuple[Any, str]:
    """Have the worker do a task; return its result or error, and its traceback."""
    result = task.delay(*args)
    value = result.get(timeout=120, interval=0.005, propagate=False)
    return value, f"{value!r} {result.traceback} {result.info!r}"
