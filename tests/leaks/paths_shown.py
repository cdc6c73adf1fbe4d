"""What others show by design, where our filters do not look. docs/leaks.md tells what to do."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator

from django.conf import settings
from django.test import Client

from django_secret_registry import registry
from django_secret_registry.redaction import SecretFilter
from tests.leaks import sinks
from tests.leaks.driving import Kind, Text, path
from tests.leaks.material import TEXT, Vault
from tests.leaks.paths import hold_everything


@path("shown: text made of it", Kind.SHOWN)
def text() -> Iterator[Text]:
    yield Text("f-string", f"{settings.TEXT}")
    yield Text("str", str(settings.TEXT))
    yield Text("sum", repr("key " + settings.TEXT))
    yield Text("encoded", repr(settings.TEXT.encode()))


@path("shown: JSON of it", Kind.SHOWN)
def json_of_it() -> Iterator[Text]:
    yield Text("dumps", json.dumps({"key": settings.TEXT}))


@path("shown: log without the filter", Kind.SHOWN)
def log() -> Iterator[Text]:
    logging.getLogger("project").info("with %s", settings.TEXT)
    yield Text("record", "\n".join(sinks.arrived()["log"]), "with")


@path("shown: formatter that reads exc_info", Kind.SHOWN)
def formatter() -> Iterator[Text]:
    hold_everything()
    record = logging.makeLogRecord({"exc_info": (ValueError, ValueError(str(TEXT)), None)})
    SecretFilter().filter(record)
    yield Text("exception", str(record.exc_info[1]) if isinstance(record.exc_info, tuple) else "")


@path("shown: Sentry without before_send", Kind.SHOWN)
def sentry() -> Iterator[Text]:
    Client(raise_request_exception=False).get("/made/x")
    yield Text("event", "\n".join(sinks.arrived()["Sentry"]), "RuntimeError")


@path("shown: argument of a task", Kind.SHOWN)
def argument() -> Iterator[Text]:
    from tests.leaks.celery_app import Traffic, run, take

    traffic = Traffic()
    with traffic.recorded():
        run(take, settings.TEXT)
    yield Text("messages", "\n".join(traffic.texts), "take")


@path("shown: DEBUG's page of a 404", Kind.SHOWN)
def not_found() -> Iterator[Text]:
    page = Client().get("/nothing/").content.decode()
    yield Text("page", page, "Page not found")


@path("shown: value that is not held", Kind.SHOWN)
def not_held() -> Iterator[Text]:
    before = str(registry.get("vault://rotating"))
    registry.evict("vault://rotating")
    Vault.rotate()
    registry.get("vault://rotating")
    yield Text("after an eviction", registry.redact(f"with {before}"))


@path("shown: part of a value", Kind.SHOWN)
def part() -> Iterator[Text]:
    hold_everything()
    yield Text("its first characters", registry.redact(f"with {TEXT[:-1]}"))
